"""What goes to workers: a kernel unpickled in another process has the key it had, whatever it calls."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gridcompute.shipping import by_value

pytestmark = pytest.mark.ray

READ = """
import sys, cloudpickle
from gridcompute.keys import machine_key
kernel = cloudpickle.loads(open(sys.argv[1], "rb").read())
assert machine_key(kernel.func) == kernel.loaded, "another function arrived"
print(kernel.key, kernel.func.__module__)
"""


def arrives(kernel: object, folder: Path) -> str:
    file = folder / "kernel.pickled"
    file.write_bytes(by_value(kernel))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(file)], cwd=elsewhere, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def test_a_kernel_over_installed_compiled_functions(tmp_path: Path) -> None:
    from gridcompute_workloads.genomics import best_place

    assert arrives(best_place, tmp_path) == best_place.key


def test_a_users_module_goes_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_ship.py").write_text(textwrap.dedent("""
        import numba
        import gridcompute as grid

        @numba.njit
        def twice(x):
            return x * 2

        @numba.njit
        def more(x):
            return twice(x) + 1

        def plain(x):
            return twice(x) + more(x)

        @grid.kernel("()->()")
        def cell(x):
            return twice(x) + more(x) + plain(x)
    """))
    monkeypatch.syspath_prepend(tmp_path)
    import mine_to_ship  # type: ignore[import-not-found]

    assert arrives(mine_to_ship.cell, tmp_path) == mine_to_ship.cell.key
