"""Graphs of cells as arrays: built from edges, ordered, refused with the place; against plain Python throughout."""

from __future__ import annotations

import graphlib
import json
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gridcompute as grid
from gridcompute import dags
from gridcompute.dags import Dag
from gridcompute.errors import ParameterError

PROPERTY = settings(deadline=None)


@st.composite
def edge_lists(draw: Any) -> tuple[int, list[tuple[int, int]]]:
    """Cells and edges of any graph, with cycles now and then; their numbers are an order in half of them."""
    cells = draw(st.integers(1, 30))
    numbers = st.integers(0, cells - 1)
    edges = draw(st.lists(st.tuples(numbers, numbers), max_size=60))
    if draw(st.booleans()):
        edges = [(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]]
    return cells, edges


def read_by(cells: int, edges: list[tuple[int, int]]) -> list[list[int]]:
    return [[source for source, target in edges if target == cell] for cell in range(cells)]


def level_of(inputs: list[list[int]]) -> list[int]:
    """Levels by brute force."""
    found = [0] * len(inputs)
    for _ in inputs:
        found = [1 + max((found[i] for i in one), default=-1) for one in inputs]
    return found


@PROPERTY
@given(edge_lists())
def test_edges_in_any_order_give_each_cell_its_inputs_in_that_order(made: tuple[int, list[tuple[int, int]]]) -> None:
    cells, edges = made
    dag = Dag.of_edges([s for s, _ in edges], [t for _, t in edges], cells)
    assert (dag.cells, dag.edges) == (cells, len(edges))
    assert [dag.inputs_of(cell) for cell in range(cells)] == read_by(cells, edges)
    again = Dag(dag.offsets.tolist(), dag.inputs.astype(np.uint16))
    assert again.key == dag.key
    assert dag.widest == max(map(len, read_by(cells, edges)))


@PROPERTY
@given(edge_lists(), st.sampled_from([0, 2, 64]))
def test_the_order_is_by_number_or_by_level_and_cycles_are_named(made: tuple[int, list[tuple[int, int]]],
                                                                 near: int) -> None:  # fmt: skip
    cells, edges = made
    inputs = read_by(cells, edges)
    dag = Dag.of_edges([s for s, _ in edges], [t for _, t in edges], cells)
    try:
        list(graphlib.TopologicalSorter(dict(enumerate(inputs))).static_order())
    except graphlib.CycleError:
        with pytest.raises(ParameterError, match="there is a cycle: cell") as caught:
            _ = dag.order
        words = caught.value.message.replace("cell ", "").split(": ")[-1].replace("itself", "").split(" reads ")
        named = [int(word.removesuffix(", which")) for word in words if word]
        if len(named) == 1:
            named *= 2
        if "and so on" not in caught.value.message:
            assert named[0] == named[-1]
            assert all(read in inputs[cell] for cell, read in pairwise(named))
        return
    levels = level_of(inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dags, "NEAR", near)
        order = dag.order.tolist()
    close = [cell for cell, one in enumerate(inputs) if one and cell - max(one) <= near]
    if all(i < cell for cell, one in enumerate(inputs) for i in one) and len(close) <= 0.25 * cells:
        assert order == list(range(cells))
    else:
        assert order == sorted(range(cells), key=lambda cell: (levels[cell], cell))
    assert dag.levels == max(levels) + 1
    assert dag.level_cells.tolist() == [levels.count(one) for one in range(dag.levels)]


@PROPERTY
@given(edge_lists())
def test_compiled_is_plain(made: tuple[int, list[tuple[int, int]]]) -> None:
    cells, edges = made
    ends = [s for s, _ in edges], [t for _, t in edges]

    def build() -> Any:
        dag = Dag.of_edges(*ends, cells)
        try:
            return [one.tolist() for one in (dag.offsets, dag.inputs, dag.order, dag.level_cells)]
        except ParameterError as error:
            return error.message

    compiled = build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dags, "cached_njit", lambda function: function)
        assert build() == compiled


@PROPERTY
@given(st.lists(st.integers(-1, 11), min_size=12, max_size=12))
def test_one_edge_a_cell_either_way(ends: list[int]) -> None:
    parents, targets = Dag.of_parents(ends), Dag.of_targets(np.array(ends, np.int16))
    assert [parents.inputs_of(cell) for cell in range(12)] == [[one] if one >= 0 else [] for one in ends]
    assert [targets.inputs_of(cell) for cell in range(12)] == [[c for c in range(12) if ends[c] == cell]
                                                               for cell in range(12)]  # fmt: skip


@pytest.mark.parametrize("turn", [1, -1])
def test_a_long_path_takes_no_stack(turn: int) -> None:
    cells = np.arange(100_000)[::turn]
    dag = Dag.of_edges(cells[:-1], cells[1:], len(cells))
    assert dag.order.tolist() == cells.tolist()
    assert dag.levels == len(cells)
    assert dag.nbytes <= 100 * dag.cells
    with pytest.raises(ParameterError, match=r"cell 0 reads \d+, .*and so on over 100000 cells, which reads 0"):
        _ = Dag.of_edges(cells, np.roll(cells, -1), len(cells)).order


def test_a_graph_without_edges_or_cells() -> None:
    none = Dag([0], [])
    assert (none.cells, none.order.tolist(), none.levels) == (0, [], 0)
    assert Dag([0, 0, 0], []).levels == 1
    assert repr(Dag.of_edges([], [], 1200)) == "<Dag of 1,200 cells, 0 edges>"


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Dag([], []), "offsets go nowhere"),
    (lambda: Dag([1, 2], [0, 0]), "offsets go from 1 to 2, not from 0 to the 2 inputs"),
    (lambda: Dag([0, 1], []), "not from 0 to the 0 inputs"),
    (lambda: Dag([0, 2, 1, 3], [0, 0, 0]), "offsets fall from 2 to 1 at cell 1"),
    (lambda: Dag(np.array([0, 2, 1, 3], np.uint8), [0, 0, 0]), "offsets fall from 2 to 1 at cell 1"),
    (lambda: Dag([0, 0, 2], [0, 2]), "cell 1 reads 2, outside 0 to 1"),
    (lambda: Dag([0, 0, 0, 1], [-1]), "cell 2 reads -1, outside 0 to 2"),
    (lambda: Dag([0, 1], np.array([2**63], np.uint64)), "cell 0 reads 9223372036854775808, outside 0 to 0"),
    (lambda: Dag([0.0, 1.0], [0]), r"offsets are float64 of shape \(2,\)"),
    (lambda: Dag([0, 1], [[0]]), r"inputs are int64 of shape \(1, 1\)"),
    (lambda: Dag([0, 1], [True]), "inputs are bool"),
    (lambda: Dag([0, 1], ["a"]), "inputs are <U1"),
    (lambda: Dag([0, 1], np.ma.array([0], mask=[True])), "inputs have masked elements"),
    (lambda: Dag.of_edges([0], [0, 1], 2), "1 sources, but 2 targets"),
    (lambda: Dag.of_edges([0, 2], [1, 1], 2), r"sources\[1\] is 2, outside 0 to 1"),
    (lambda: Dag.of_edges([0, 1], [1, -7], 2), r"targets\[1\] is -7, outside 0 to 1"),
    (lambda: Dag.of_edges([0], [0], -1), "the number of cells is -1"),
    (lambda: Dag.of_edges([0], [0], True), "the number of cells is True"),
    (lambda: Dag.of_edges([0], [0], 2.0), "the number of cells is 2.0"),
    (lambda: Dag.of_parents([-1, 2]), "cell 1 reads 2, outside 0 to 1"),
    (lambda: Dag.of_targets([1, -2]), "cell 1 is read by -2, outside 0 to 1"),
    (lambda: Dag([0, 1], [0]).order, "there is a cycle: cell 0 reads itself"),
    (lambda: Dag.of_parents([-1, 3, 1, 2]).order, "cell 1 reads 3, which reads 2, which reads 1"),
])  # fmt: skip
def test_what_is_no_graph_is_refused_by_place(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        make()


NUMBERS = st.one_of(st.integers(-2, 6), st.integers(-(2**63), 2**63 - 1))


@PROPERTY
@given(st.lists(NUMBERS, max_size=7), st.lists(NUMBERS, max_size=7), st.integers(0, 5))
def test_any_numbers_are_a_graph_or_refused(first: list[int], second: list[int], cells: int) -> None:
    """No array makes compiled code read or write where nothing is."""
    for make in (lambda: Dag(first, second), lambda: Dag.of_edges(first, second, cells), lambda: Dag.of_targets(first),
                 lambda: Dag.of_parents(second)):  # fmt: skip
        try:
            dag = make()
            place = {int(cell): at for at, cell in enumerate(dag.order)}
        except ParameterError as error:
            if not error.message.startswith("dag: "):
                raise
            continue
        assert sorted(place) == list(range(dag.cells))
        assert all(place[i] < place[cell] for cell in place for i in dag.inputs_of(cell))


def test_a_graph_does_not_change_with_the_arrays_that_it_was_made_of() -> None:
    offsets, inputs = np.array([0, 0, 1]), np.array([0])
    dag = Dag(offsets, inputs)
    offsets[1], inputs[0] = 1, 1
    assert dag.inputs_of(1) == [0]
    for one in (dag.offsets, dag.inputs, dag.order):
        with pytest.raises(ValueError, match="read-only"):
            one[0] = 0
    assert dag.inputs.dtype == dag.order.dtype == np.int32
    again = pickle.loads(pickle.dumps(dag))
    assert (again.key, again.order.tolist()) == (dag.key, [0, 1])
    assert not any(one.flags.writeable for one in (again.offsets, again.inputs, again.order, again.level_cells))


def test_the_key_tells_graphs_apart() -> None:
    keys = [Dag([0, 0, 0, 2], [0, 1]).key, Dag([0, 0, 0, 2], [1, 0]).key, Dag([0, 0, 1, 2], [0, 1]).key]
    assert len(set(keys)) == 3


def test_the_graphs_of_real_workflows(data_dir: Path) -> None:
    files = sorted((data_dir / "workflows").glob("*.json"))
    if not files:
        pytest.skip(f"no workflows in {data_dir}")
    for file in files:
        tasks = json.loads(file.read_text())["workflow"]["specification"]["tasks"]
        number = {task["id"]: i for i, task in enumerate(tasks)}
        inputs = [[number[parent] for parent in task["parents"]] for task in tasks]
        dag = Dag(np.cumsum([0, *map(len, inputs)]), [i for one in inputs for i in one])
        edges = [(number[task["id"]], number[child]) for task in tasks for child in task["children"]]
        same = Dag.of_edges([s for s, _ in edges], [t for _, t in edges], len(tasks))
        assert [sorted(same.inputs_of(c)) for c in range(len(tasks))] == [sorted(one) for one in inputs], file.name
        place = {int(cell): at for at, cell in enumerate(dag.order)}
        assert all(place[i] < place[cell] for cell, one in enumerate(inputs) for i in one)
        assert dag.levels == max(level_of(inputs)) + 1


def test_it_is_public() -> None:
    assert grid.Dag is Dag
