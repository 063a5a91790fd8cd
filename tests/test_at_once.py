"""How tests are shared out to processes, and what of them coverage sees."""

from __future__ import annotations

import sys
from pathlib import Path

import at_once
from numba import njit

HERE = Path(__file__).parent


def test_what_starts_ray_is_shared_out_as_one() -> None:
    others = set(HERE.glob("test_*.py")) - {Path(__file__)}
    files = [file for file in sorted(others) if "mark.ray" in file.read_text()]
    assert len(files) > 10
    for file in files:
        assert at_once.together(file) == "ray", f"{file.name}: the mark is a whole file's, in a line `pytestmark = ...`"
    assert at_once.together(HERE / "test_search.py") == at_once.together(HERE / "test_wavefront.py") == "alignment"
    assert at_once.together(HERE / "test_keys.py") == ""


def test_the_compiler_is_not_traced_and_what_comes_after_is() -> None:
    def calls(traced: bool) -> set[str]:
        seen = set()

        def tracer(frame, event, argument):
            seen.add(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")

        before, at_once.traced = sys.gettrace(), traced
        sys.settrace(tracer)
        try:
            assert njit(lambda x: x + 1)(1) == 2
            at_once.together(HERE / "test_keys.py")
            sorted([1], key=lambda x: x)
        finally:
            sys.settrace(before)
            at_once.traced = False
        return seen

    assert "numba.core.typeinfer.propagate" in calls(traced=True)
    seen = calls(traced=False)
    assert "numba.core.typeinfer.propagate" not in seen
    assert {"numba.core.dispatcher._compile_for_args", "test_at_once.<lambda>"} <= seen
