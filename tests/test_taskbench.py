"""Task Bench's graphs against its oracle, on every system that is here; and mutants of our loop, all of them caught."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import taskbench, taskbench_peers  # noqa: E402
from benchmarks import taskbench_oracle as oracle  # noqa: E402
from benchmarks.rows import WrongResultError  # noqa: E402
from benchmarks.taskbench_graphs import edges, graph  # noqa: E402
from benchmarks.taskbench_mpi import MpiProgram  # noqa: E402
from gridcompute import gang, shares, steploops  # noqa: E402
from gridcompute.columns import Fixed  # noqa: E402
from gridcompute.errors import KernelError, RunError  # noqa: E402

pytestmark = pytest.mark.usefixtures("own_folder")

PROGRAMS = ["mpi"] if shutil.which("mpicc") and shutil.which("mpirun") else []


def hashes(pattern: str, width: int, steps: int, members: int, *, iterations: int = 0, depth: int | None = None) -> Any:
    """The last row's, by a gang of so many members."""
    action = graph(pattern, width, steps, iterations).op.action
    columns = [Fixed(one) for one in oracle.first_row(width).values()]
    made = gang.Gang(action.cells, action.neighbours, 0.0, ("p",), columns, members, steps, depth=depth)
    made.put(0, columns)
    made.run(0, steps)
    return tuple(int(one) for one in made.get(steps)[2].values)


@pytest.mark.parametrize("pattern", oracle.PATTERNS)
def test_the_rules_are_the_oracles(pattern: str) -> None:
    for width in (1, 2, 3, 5, 8, 13):
        rule, expected = edges(pattern, width), oracle.expected(pattern, width)
        assert (rule.lead, rule.period) == oracle.cycle(pattern, width)
        for phase in range(rule.phases):
            row = rule.width(phase, width)
            assert row == oracle.row(pattern, phase, width)
            offsets, index = rule.table(phase, row, width)
            for p in range(row):
                read = index[offsets[p]: offsets[p + 1]].tolist()
                assert read == oracle.inputs(pattern, phase, p, width)
                assert expected[phase, p, : 1 + len(read)].tolist() == [len(read), *read]


def test_later_steps_repeat_the_tabulated_ones() -> None:
    for pattern in oracle.PATTERNS:
        rule = edges(pattern, 8)
        for t in range(40):
            wanted = [oracle.inputs(pattern, t, p, 8) for p in range(oracle.row(pattern, t, 8))]
            assert wanted == [oracle.inputs(pattern, rule.phase(t), p, 8) for p in range(len(wanted))]


@pytest.mark.parametrize("pattern", oracle.PATTERNS)
def test_a_gang_computes_what_the_oracle_says(pattern: str) -> None:
    for width, members, depth in ((1, 1, None), (2, 2, None), (8, 2, 2), (13, 3, 5)):
        assert hashes(pattern, width, 60, members, depth=depth) == oracle.last_hashes(pattern, width, 60)


def test_a_whole_run_is_checked() -> None:
    assert taskbench.ours("tree", 8, 50, 3, cores=2) > 0
    assert taskbench.ours("stencil_1d", 8, 50, 3, cores=2, wall=True) > 0


def test_wrong_hashes_do_not_count() -> None:
    with pytest.raises(WrongResultError, match="stencil_1d, width 4"):
        taskbench._right((1, 2, 3, 4), "stencil_1d", 4, 5, "somebody")


def test_the_kernel_alone_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for iterations in (0, 1, 500):
        assert taskbench._kernel_alone("trivial", 8, 25, iterations, cores=2) > 0
    monkeypatch.setattr(taskbench, "kernels", lambda tasks, iterations: 0.0)
    with pytest.raises(WrongResultError, match="the kernel alone"):
        taskbench._kernel_alone("trivial", 8, 25, 3, cores=2)


def test_half_the_efficiency_is_found() -> None:
    def measure(pattern: str, width: int, steps: int, iterations: int) -> float:
        return oracle.tasks(pattern, width, steps) * (300e-9 + taskbench.flops(1, iterations) / 1e11) / 2

    found = taskbench.System(measure, 1000, 2).metg("stencil_1d", 8, 2e11)
    assert found == pytest.approx(600e-9, rel=0.05)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_mpi_program_computes_what_the_oracle_says(program: str, tmp_path: Path) -> None:
    mpi = MpiProgram(str(tmp_path), 2)
    try:
        for pattern in oracle.PATTERNS:
            for width in (2, 5):
                answer = mpi.ask(pattern, width, 40, 1)
                assert tuple(answer["hashes"]) == oracle.last_hashes(pattern, width, 40)
                assert (answer["wrong"], answer["tasks"]) == (0, oracle.tasks(pattern, width, 40))
    finally:
        mpi.close()


def test_a_peer_computes_what_the_oracle_says() -> None:
    for pattern in ("dom", "tree", "spread"):
        _, found = taskbench_peers.dask(pattern, 4, 6, 1)
        assert tuple(int(one) for one in found) == oracle.last_hashes(pattern, 4, 6)


def test_peers_are_asked_for_every_task() -> None:
    for pattern in oracle.PATTERNS:
        asked: list[tuple[int, int]] = []
        read: set[tuple[int, int]] = set()

        def submit(t: int, p: int, *inputs: Any) -> tuple[int, int]:
            asked.append((t, p))  # noqa: B023
            read.update(one for one in inputs if len(one) == 2)  # noqa: B023
            return t, p

        done = taskbench_peers._made(pattern, 5, 7, submit)
        assert len(asked) == oracle.tasks(pattern, 5, 7)
        assert read | set(done) >= set(asked)


# --- mutants: each must be found by the stamps, the hashes or a deadline ---


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def published_first(text: str) -> str:
    """The flag goes up when a task begins, not when it is done."""
    raised = "if shown[p - lo]:\n                store_release(seq, here + p + shift, base + t + 1)"
    assert text.count(raised) == 1
    text = text.replace(raised, "pass")
    return text.replace("            touch(mark, p)\n", f"            {raised}\n            touch(mark, p)\n")


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[str], str]], None]]:
    source = steploops.source

    def put(change: Callable[[str], str]) -> None:
        monkeypatch.setattr(steploops, "source", lambda shape: change(source(shape)))
        monkeypatch.setattr(gang, "PATIENCE_SECONDS", 2.0)
        steploops._make.cache_clear()

    yield put
    steploops._make.cache_clear()


def caught(pattern: str, steps: int, *, depth: int | None = None, iterations: int = 300) -> bool:
    try:
        found = hashes(pattern, 8, steps, 2, depth=depth, iterations=iterations)
        return bool(found != oracle.last_hashes(pattern, 8, steps))
    except (KernelError, RunError):
        return True


def test_what_is_not_mutated_is_right() -> None:
    assert not caught("dom", 2000, depth=4)


def test_a_consumer_that_does_not_wait_is_caught(mutate: Any) -> None:
    mutate(replaced("if load_acquire(seq, w) != base + t:", "if w < 0:"))
    assert any(caught("stencil_1d", 20_000) for _ in range(5))


def test_a_flag_before_its_data_is_caught(mutate: Any) -> None:
    mutate(published_first)
    assert any(caught("stencil_1d", 20_000) for _ in range(5))


def test_a_slot_that_is_taken_too_early_is_caught(mutate: Any) -> None:
    mutate(replaced("if slack < oldest and readers.size > 0:", "if slack < 0:"))
    assert any(caught("dom", 20_000, depth=2) for _ in range(5))


@pytest.mark.parametrize("pattern", ["dom", "tree", "spread"])
def test_edges_that_are_shifted_by_one_are_caught(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = shares.member_reads

    def shifted(by_phase: Any, places: Any, share: Any) -> Any:
        return reads([(offsets, (index + 1) % len(places)) for offsets, index in by_phase], places, share)

    monkeypatch.setattr(shares, "member_reads", shifted)
    assert caught(pattern, 20, iterations=0)


def test_an_edge_too_few_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = shares.member_reads

    def fewer(by_phase: Any, places: Any, share: Any) -> Any:
        found = reads(by_phase, places, share)
        found.tables[1][:] = np.maximum(found.tables[1] - 1, 0)
        return found

    monkeypatch.setattr(shares, "member_reads", fewer)
    assert caught("stencil_1d", 20, iterations=0)
