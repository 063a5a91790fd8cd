"""Each op by example against plain NumPy, several to a run, and what each says to hostile arguments."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import oracle_kernels as k
import pyarrow as pa
import pytest
from oracle import (
    Col,
    Table,
    columns_of,
    elementwise,
    exploded,
    filtered,
    iterated,
    joined,
    mapped,
    objects,
    ordered,
    reduced,
    rows,
    same,
    stencilled,
)

import gridcompute as grid
from gridcompute import axes, lower, segments
from gridcompute.actions import shapes
from gridcompute.errors import (
    AlignmentError,
    DimensionError,
    EmptyGridError,
    GridError,
    KernelError,
    MissingInputError,
    ParameterError,
    SignatureError,
    UsageError,
)
from gridcompute.executor import InlineExecutor

pytestmark = pytest.mark.usefixtures("module_folder")

RANDOM = np.random.default_rng(7)
A = Col(("t", "y", "x"), RANDOM.integers(-9, 9, (3, 4, 5)).astype(float))
A.values[0, 1, 2] = np.nan
B = Col(("y", "x"), RANDOM.integers(-9, 9, (4, 5)).astype(float))
N = 24
V = RANDOM.integers(-9, 9, N).astype(float)
V[3] = np.nan
TEXT: list[Any] = ["".join(RANDOM.choice(list("abc"), RANDOM.integers(0, 4))) for _ in range(N)]
TEXT[2] = None
LISTS = [RANDOM.integers(0, 9, RANDOM.integers(0, 4)).astype(float) for _ in range(N)]
NULLS = RANDOM.random(N) < 0.3
T = Table(
    {
        "v": Col(("row",), V),
        "k": Col(("row",), RANDOM.integers(0, 5, N)),
        "n": Col(("row",), RANDOM.integers(0, 9, N), ~NULLS),
        "s": Col(
            ("row",),
            objects([np.frombuffer((x or "").encode(), np.uint8) for x in TEXT]),
            np.array([x is not None for x in TEXT]),
            "string",
        ),
        "l": Col(("row",), objects(LISTS), None, "list"),
    }
)
F = filtered(T, "row", elementwise("less", T["k"], 3))


@pytest.fixture(name="arrays")
def _arrays() -> Any:
    return grid.from_arrays({"a": A.values, "b": B.values}, dims={"a": A.dims, "b": B.dims})


@pytest.fixture(name="table")
def _table() -> Any:
    nullable = np.ma.MaskedArray(T["n"].values, NULLS)
    return grid.from_arrays({"v": V, "k": T["k"].values, "n": nullable, "s": TEXT, "l": LISTS}, dims="row")


_stores = iter(range(10**6))


def run(*outputs: Any, seed: int = 0) -> Any:
    """Carry out in a random order, in a store of its own."""
    return grid.run(
        *outputs, executor=InlineExecutor(shuffle=seed, workers=2), store=f"memory://ops{next(_stores)}", quiet=True
    )


def check(*pairs: tuple[Any, Table]) -> None:
    """Each collection gives its model; all in one run."""
    finished = run(*(collection for collection, _ in pairs))
    for i, (_, model) in enumerate(pairs):
        try:
            same(columns_of(finished[i]), model)
        except AssertionError as error:
            raise AssertionError(f"output {i}: {error}") from error


def one(name: str, col: Col) -> Table:
    return Table({name: col})


def test_source(table: Any) -> None:
    check((table, T))


def test_map(arrays: Any) -> None:
    a, b = arrays["a"], arrays["b"]
    check(
        (a.map(k.scaled, k=2.0), mapped(k.scaled, [A], ["scaled"], k=2.0)),
        (a.map(k.both), mapped(k.both, [A], ["low", "high"])),
        (grid.map(k.pair, a, b), mapped(k.pair, [A, B], ["pair"])),
        (grid.map(k.pair, b, a), mapped(k.pair, [B, A], ["pair"])),
        (a.map(k.weighted), mapped(k.weighted, [A], ["weighted"])),
        (a.map(k.ends), mapped(k.ends, [A], ["ends", "middle"])),
        (a.map(k.placed), mapped(k.placed, [A], ["placed"])),
        (a.map(k.drawn, seed=4, name="q"), mapped(k.drawn, [A], ["drawn"], seed=4, name="q")),
        (a.map(k.batched), mapped(k.batched, [A], ["batched"])),
        (a.map(k.plain), mapped(k.plain, [A], ["plain"])),
    )


def test_map_of_whole_dimensions_then_parts_of_them(arrays: Any) -> None:
    running = arrays["a"].map(k.running)
    wanted = mapped(k.running, [A], ["running"])["running"]
    tasks = arrays["a"].map(k.plain)
    plain = mapped(k.plain, [A], ["plain"])["plain"]
    check(
        (running, one("running", wanted)),
        (running.isel(x=slice(1, 4)), one("running", wanted.at("x", slice(1, 4)))),
        (
            running.isel(x=slice(None, None, -2)) + 1,
            one("running", elementwise("add", wanted.at("x", slice(None, None, -2)), 1)),
        ),
        (running.sum("y"), one("running", reduced(wanted, "sum", ["y"]))),
        (running.max(), one("running", reduced(wanted, "max"))),
        (tasks.map(k.running), mapped(k.running, [plain], ["running"])),
        (tasks.assign(b=arrays["b"]), Table({"plain": plain, "b": B})),
    )


def test_map_of_nulls_and_cells_of_varying_length(table: Any) -> None:
    other = table[["l"]].rename(l="other")
    check(
        (table["n"].map(k.known), mapped(k.known, [T["n"]], ["known"])),
        (table["l"].map(k.size_of), mapped(k.size_of, [T["l"]], ["size_of"])),
        (table["l"].map(k.against, other), mapped(k.against, [T["l"], T["l"]], ["against"])),
        (table["l"].map(k.reversed_items), mapped(k.reversed_items, [T["l"]], ["reversed_items"])),
    )


def test_cells_of_a_space_without_dimensions(arrays: Any, table: Any) -> None:
    total = reduced(B, "sum")
    check(
        (arrays["b"].sum().map(k.scaled), mapped(k.scaled, [total], ["scaled"])),
        (arrays["b"].sum().map(k.plain) + 1, one("plain", elementwise("add", mapped(k.plain, [total], ["p"])["p"], 1))),
        (table.isel(row=5), T.each(lambda c: c.at("row", 5))),
        (table["v"].map(k.running_row), mapped(k.running_row, [T["v"]], ["running_row"])),
    )


def test_outputs_without_cells_beside_others(arrays: Any) -> None:
    empty = B.at("y", slice(0, 0))
    check(
        (arrays["a"].map(k.scaled), mapped(k.scaled, [A], ["scaled"])),
        (arrays["b"].isel(y=[]).sum("y"), one("b", reduced(empty, "sum", ["y"]))),
        (
            arrays["a"].map(k.plain).isel(y=[]).map(k.plain),
            mapped(k.plain, [mapped(k.plain, [A.at("y", [])], ["p"])["p"]], ["plain"]),
        ),
    )


def test_a_space_without_columns(arrays: Any) -> None:
    @grid.kernel("->()")
    def index(cell):
        return cell[0] * 10 + cell[1]

    check(
        (grid.space(p=3, q=4).map(index), one("index", Col(("p", "q"), np.add.outer(np.arange(3) * 10, np.arange(4)))))
    )


def test_draws_depend_on_the_lengths_of_inner_dimensions(arrays: Any) -> None:
    """The linear index of a cell follows from them, so chunks of equal name mustn't be shared."""
    finished = "memory://lengths"
    for stop in (3, 5, 4):
        drawn = arrays["a"].isel(x=slice(0, stop)).map(k.drawn)
        result = grid.run(drawn, executor=InlineExecutor(), store=finished, quiet=True)
        same(columns_of(result[0]), mapped(k.drawn, [A.at("x", slice(0, stop))], ["drawn"]))


def test_arithmetic(arrays: Any, table: Any) -> None:
    a, b, n = arrays["a"], arrays["b"], table["n"]
    check(
        (a - b * 2, one("a", elementwise("subtract", A, elementwise("multiply", B, 2)))),
        (b / a, one("b", elementwise("true_divide", B, A))),
        (2**b, one("b", elementwise("power", 2, B))),
        (7 % b, one("b", elementwise("remainder", 7, B))),
        (7 // b, one("b", elementwise("floor_divide", 7, B))),
        (
            (a > 1) & ~(b == 3) | False,
            one(
                "a",
                elementwise(
                    "logical_or",
                    elementwise(
                        "logical_and",
                        elementwise("greater", A, 1),
                        elementwise("logical_not", elementwise("equal", B, 3)),
                    ),
                    False,
                ),
            ),
        ),
        (-n + 1, one("n", elementwise("add", elementwise("negative", T["n"]), 1))),
        (n >= 4, one("n", elementwise("greater_equal", T["n"], 4))),
        (np.float64(2) - abs(b), one("b", elementwise("subtract", 2.0, elementwise("absolute", B)))),
    )


def test_arithmetic_that_shares_its_inputs_many_times_over(arrays: Any) -> None:
    """Ops that are fused are planned and computed once, however many ways lead to them."""
    x, model = arrays["b"], B
    for _ in range(30):
        x, model = (
            (x + 1) * 0.5 - x,
            elementwise("subtract", elementwise("multiply", elementwise("add", model, 1), 0.5), model),
        )
    check((x, one("b", model)), (x.sum(), one("b", reduced(model, "sum"))))


HOW = [
    ("sum", {}),
    ("mean", {}),
    ("var", {}),
    ("std", {"ddof": 1}),
    ("min", {}),
    ("max", {}),
    ("count", {}),
    ("any", {}),
    ("all", {}),
    ("histogram", {"bins": [-5, 0, 3, 9]}),
    ("topk", {"k": 3}),
    ("quantile", {"q": [0.1, 0.5]}),
    ("quantile", {"q": 0.5}),
]
FEW = [("sum", {}), ("mean", {}), ("max", {}), ("topk", {"k": 3}), ("first", {}), ("argmin", {})]
ALONG = [("first", {}), ("last", {}), ("argmin", {}), ("argmax", {})]


def test_reduce(arrays: Any) -> None:
    a = arrays["a"]
    pairs = [
        (a.reduce(how, dims, **options), one("a", reduced(A, how, dims, **options)))
        for how, options in HOW
        for dims in ([], ["t", "x"])
    ]
    pairs += [(a.reduce(how, "y"), one("a", reduced(A, how, ["y"]))) for how, _ in ALONG]
    check(*pairs, (a.reduce(k.squares, "y"), one("a", reduced(A, "squares", ["y"]))))


def test_a_line_through_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against NumPy's polyfit over the values that aren't NaN, through several segments; positions go on over them."""
    monkeypatch.setattr(segments, "STATE_SHARE", 0)
    monkeypatch.setattr(axes, "CHUNK_BYTES", 2000)
    rng = np.random.default_rng(8)
    values = rng.random((50, 4, 5)) + np.arange(50)[:, None, None] * rng.normal(size=(4, 5))
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 0, 0] = np.nan
    values[1:, 0, 1] = np.nan
    lazy = grid.from_arrays({"v": values}, dims=("t", "y", "x")).reduce("linregress", "t")
    assert len(grid.plan(lazy).plan.stages) > 1
    result = run(lazy)[0].to_xarray()
    for y, x in np.ndindex(4, 5):
        ok = np.isfinite(values[:, y, x])
        wanted = np.polyfit(np.flatnonzero(ok), values[ok, y, x], 1) if ok.sum() > 1 else [np.nan, np.nan]
        found = [result["v_slope"].values[y, x], result["v_intercept"].values[y, x]]
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_reduce_of_nulls_and_of_rows_not_yet_counted(table: Any) -> None:
    kept = table.filter(table["k"] < 3)
    pairs = []
    for how, options in FEW:
        pairs.append((table["n"].reduce(how, **options), one("n", reduced(T["n"], how, **options))))
        pairs.append((kept["v"].reduce(how, **options), one("v", reduced(F["v"], how, **options))))
    check(*pairs)


def test_groupby(arrays: Any) -> None:
    codes = np.array([0, 1, 0, 2])
    labelled = arrays["a"].groupby(["p", "q", "p", "r"], dim="y")
    check(
        *(
            (labelled.reduce(how, **options), one("a", reduced(A, how, ["y"], ("group", codes), **options)))
            for how, options in FEW
        )
    )


def test_groupby_months_of_a_time() -> None:
    days = np.arange("2001-11-20", "2002-03-05", dtype="datetime64[D]")
    values = RANDOM.integers(-5, 5, (len(days), 2)).astype(float)
    given = grid.from_arrays({"v": values}, dims=("time", "x"), coords={"time": days})
    months = days.astype("datetime64[M]").astype(int) % 12 + 1
    distinct, codes = np.unique(months, return_inverse=True)
    finished = run(given.groupby("time.month").mean(), given.sel(time=slice("2002-01-01", "2002-01-03")))
    same(columns_of(finished[0]), one("v", reduced(Col(("time", "x"), values), "mean", ["time"], ("month", codes))))
    assert finished[0].to_xarray()["month"].values.tolist() == distinct.tolist()
    same(columns_of(finished[1]), one("v", Col(("time", "x"), values[42:45])))


HALOS = [
    ("clip", {"x": 1}),
    ("clip", {"x": (0, 9)}),
    ("periodic", {"x": (2, 0)}),
    ("periodic", {"x": 17}),
    ("fill", {"x": (3, 1)}),
    ("fill", {"x": 11}),
]
HALOS2 = [
    ("clip", {"y": (2, 0), "x": (0, 1)}),
    ("periodic", {"x": 1, "y": 1}),
    ("periodic", {"x": 9, "y": 11}),
    ("periodic", {"y": 6, "x": 0}),
    ("fill", {"x": 9, "y": (0, 2)}),
    ({"x": "periodic", "y": "fill"}, {"x": (3, 1), "y": 2}),
    ({"y": "periodic"}, {"x": 2, "y": (1, 3)}),
]


def _sides(halo: Any) -> dict[str, tuple[int, int]]:
    return {name: (w, w) if isinstance(w, int) else w for name, w in halo.items()}


def test_stencil(arrays: Any) -> None:
    pairs = [
        (
            arrays["b"].stencil(k.window, halo, boundary=how, fill=2.0),
            one("window", stencilled(k.window, B, _sides(halo), how, 2.0)),
        )
        for how, halo in HALOS
    ]
    pairs += [
        (
            arrays["a"].stencil(k.window2, halo, boundary=how, fill=2.0),
            one("window2", stencilled(k.window2, A, _sides(halo), how, 2.0)),
        )
        for how, halo in HALOS2
    ]
    twice = stencilled(k.window, stencilled(k.window, B, {"x": (1, 1)}), {"x": (0, 2)}, "periodic")
    again = arrays["b"].stencil(k.window, {"x": 1}).stencil(k.window, {"x": (0, 2)}, boundary="periodic")
    check(*pairs, (again, one("window", twice)))


def _neighbours(step: int, cell: int, out: Any) -> int:
    out[0] = cell
    out[1] = (cell + 1 + step) % 24
    return 2 if cell % 3 else 1


def _width(step: int) -> int:
    return 10 + 5 * step


def test_iterate(arrays: Any, table: Any) -> None:
    pairs = []
    for how in ("clip", "periodic", "fill"):
        model = reduce(lambda col, _: stencilled(k.heat, col, {"x": (1, 1)}, how, 1.0), range(3), A)
        pairs.append((arrays["a"].iterate(k.heat, 3, halo={"x": 1}, boundary=how, fill=1.0), one("a", model)))
    pairs.append((arrays["b"].iterate(k.heat, 0, halo={"x": 1}), one("b", B)))
    for active in (None, _width):
        edges = grid.Edges(_neighbours, period=2, max_inputs=2, active=active)
        pairs.append((table["v"].iterate(k.mixed, 4, edges=edges), one("v", iterated(k.mixed, T["v"], 4, edges))))
    check(*pairs)


def test_isel_and_take(arrays: Any, table: Any) -> None:
    a = arrays["a"]
    few = table["k"].isel(row=slice(7))
    check(
        (a.isel(x=slice(None, None, -2), y=1), one("a", A.at("x", slice(None, None, -2)).at("y", 1))),
        (a.isel(x=[3, 3, -1, 0]), one("a", A.at("x", [3, 3, -1, 0]))),
        (a.isel(x=slice(2, 2)), one("a", A.at("x", slice(2, 2)))),
        (a.isel(x=slice(2, 2)).sum("x"), one("a", reduced(A.at("x", slice(2, 2)), "sum", ["x"]))),
        (a.isel(t=0, y=-1, x=2), one("a", A.at("t", 0).at("y", -1).at("x", 2))),
        (table.isel(row=slice(20, 3, -4)), T.each(lambda c: c.at("row", slice(20, 3, -4)))),
        (a.take([1, 0, 1], "x"), one("a", A.at("x", [1, 0, 1]))),
        (a.take(table["k"], "x"), one("a", Col(("t", "y", "row"), A.values[:, :, T["k"].values]))),
        (table.take(few, "row"), T.each(lambda c: c.at("row", T["k"].values[:7]))),
    )


def test_concat(arrays: Any, table: Any) -> None:
    a = arrays[["a"]]
    parts = [a.isel(y=slice(0, 2)), a, a.isel(y=[0])]
    models = [one("a", A.at("y", slice(0, 2))), one("a", A), one("a", A.at("y", [0]))]
    check(
        (grid.concat(parts, "y"), joined(models, "y")),
        (
            grid.concat(parts, "y").stencil(k.window2, {"x": 1, "y": 2}),
            one("window2", stencilled(k.window2, joined(models, "y")["a"], {"x": (1, 1), "y": (2, 2)})),
        ),
        (grid.concat(parts, "y").mean("y"), one("a", reduced(joined(models, "y")["a"], "mean", ["y"]))),
        (
            grid.concat([table, table.isel(row=slice(5))], "row"),
            joined([T, T.each(lambda c: c.at("row", slice(5)))], "row"),
        ),
    )


def test_filter_and_explode(table: Any) -> None:
    again = filtered(F, "row", elementwise("greater", F["v"], 0))
    kept = table.filter(table["k"] < 3)
    check(
        (kept, F),
        (kept.filter(kept["v"] > 0), again),
        (table.filter(k.wanted, on="k"), filtered(T, "row", mapped(k.wanted, [T["k"]], ["w"])["w"])),
        (table.filter(table["n"] > 2), filtered(T, "row", elementwise("greater", T["n"], 2))),
        (
            table.explode(k.stairs, on="k", keep=["n", "s"], max=4),
            exploded(k.stairs, T["k"], ["step", "part"], Table({"n": T["n"], "s": T["s"]})),
        ),
        (table.explode(k.stairs, on="k"), exploded(k.stairs, T["k"], ["step", "part"], Table())),
        (
            kept.explode(k.stairs, on="k", keep=["l"]),
            exploded(k.stairs, F["k"], ["step", "part"], Table({"l": F["l"]})),
        ),
    )


def test_after_a_filter(table: Any, arrays: Any) -> None:
    """Whatever needs cells counted waits for it; nothing else does."""
    kept, b = table.filter(table["k"] < 3), arrays["b"]
    scaled = mapped(k.scaled, [F["v"]], ["v"])["v"]
    outer = elementwise("multiply", B, F["v"])
    check(
        (kept["v"].map(k.placed), mapped(k.placed, [F["v"]], ["placed"])),
        (kept["v"].map(k.scaled).map(k.drawn), mapped(k.drawn, [scaled], ["drawn"])),
        (
            kept["v"].stencil(k.window_row, {"row": 2}, boundary="periodic"),
            one("window_row", stencilled(k.window_row, F["v"], {"row": (2, 2)}, "periodic")),
        ),
        (
            kept["v"].map(k.scaled).stencil(k.window_row, {"row": (3, 1)}),
            one("window_row", stencilled(k.window_row, scaled, {"row": (3, 1)})),
        ),
        (kept["v"].mean() + kept["v"], one("v", elementwise("add", reduced(F["v"], "mean"), F["v"]))),
        (table["k"].sum() * kept["v"], one("k", elementwise("multiply", reduced(T["k"], "sum"), F["v"]))),
        (
            table[["k"]].sum().rename(k="total").assign(v=kept["v"]),
            Table({"total": reduced(T["k"], "sum"), "v": F["v"]}),
        ),
        (b * kept["v"], one("b", outer)),
        (grid.map(k.pair, b, kept["v"]), mapped(k.pair, [B, F["v"]], ["pair"])),
        ((b * kept["v"]).sum("row"), one("b", reduced(outer, "sum", ["row"]))),
        ((b * kept["v"]).sum("y"), one("b", reduced(outer, "sum", ["y"]))),
        ((b * kept["v"]).isel(x=2), one("b", outer.at("x", 2))),
        (kept.sort("v"), ordered(F, "row", ["v"], False)),
        (kept["l"].map(k.size_of).max(), one("size_of", reduced(mapped(k.size_of, [F["l"]], ["s"])["s"], "max"))),
    )


def test_rows_that_are_none(table: Any, arrays: Any) -> None:
    none, model = table.filter(table["k"] > 99), filtered(T, "row", elementwise("greater", T["k"], 99))
    check(
        (none, model),
        (none.sort("v"), model),
        (none["v"].sum(), one("v", reduced(model["v"], "sum"))),
        (none["v"].mean(), one("v", reduced(model["v"], "mean"))),
        (
            none["v"].stencil(k.window_row, {"row": 2}),
            one("window_row", stencilled(k.window_row, model["v"], {"row": (2, 2)})),
        ),
        (none["v"].map(k.placed), mapped(k.placed, [model["v"]], ["placed"])),
        (none.explode(k.stairs, on="k"), exploded(k.stairs, model["k"], ["step", "part"], Table())),
        (none["v"] * arrays["b"], one("v", elementwise("multiply", model["v"], B))),
    )


@pytest.mark.parametrize("buckets", [1, 200])
def test_sort(table: Any, buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if buckets > 1:
        monkeypatch.setattr(lower, "BUCKET_BYTES", 2000)
    by: list[list[str]] = [["v"], ["k"], ["n"], ["s"], ["k", "v"], ["n", "s"]]
    check(
        *((table.sort(keys, descending=down), ordered(T, "row", keys, down)) for keys in by for down in (False, True))
    )


@pytest.mark.parametrize("key", ["v", "k", "n", "s", "l"])
def test_shuffle(table: Any, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "BUCKET_BYTES", 4000)
    finished = run(table.shuffle(key))
    found = columns_of(finished[0])
    assert sorted(rows(found)) == sorted(rows(T))
    blocks, start = [], 0
    source = finished[0]._stored()
    for entry in source.entries:
        part = found.each(lambda c, a=start, b=start + entry.rows: c.at("row", slice(a, b)))
        blocks.append({cell for (cell,) in rows(Table({key: part[key]}))})
        start += entry.rows
    assert start == N
    assert len(blocks) > 1
    assert sum(map(len, blocks)) == len(set().union(*blocks)), "equal keys lie in one block"


HOSTILE: list[tuple[str, type[GridError], tuple[str, ...], Any]] = [
    ("column", MissingInputError, ("nope", "columns are"), lambda a, t: a["nope"]),
    ("dimension", DimensionError, ("'z'",), lambda a, t: a["a"].isel(z=0)),
    ("position", ParameterError, ("99", "'x'"), lambda a, t: a["a"].isel(x=99)),
    ("float position", ParameterError, ("'x'",), lambda a, t: a["a"].isel(x=[0.5])),
    ("no coordinate", DimensionError, ("'x'", "coordinate"), lambda a, t: a["a"].sel(x=1)),
    ("not a kernel", ParameterError, ("kernel",), lambda a, t: a["a"].map(len)),
    ("columns", SignatureError, ("pair", "2 columns"), lambda a, t: a["a"].map(k.pair)),
    ("core", DimensionError, ("weighted", "'x'"), lambda a, t: t["v"].map(k.weighted)),
    ("ragged", SignatureError, ("scaled", "list"), lambda a, t: t["l"].map(k.scaled)),
    ("core and loop", DimensionError, ("'x'",), lambda a, t: grid.map(_mixed_core(), a["a"], a["b"])),
    ("nulls", UsageError, ("'n'", "valid"), lambda a, t: t["n"].map(k.both)),
    ("parameter", GridError, ("zz",), lambda a, t: a["a"].map(k.scaled, zz=1)),
    ("names", SignatureError, ("both", "names"), lambda a, t: a["a"].map(k.both, names=["x"])),
    ("alignment", AlignmentError, ("'x'",), lambda a, t: a["a"] + a["b"].isel(x=slice(2))),
    (
        "two unknown",
        DimensionError,
        ("'row'", "'item'"),
        lambda a, t: t.filter(t["k"] > 1)["v"] * t.explode(k.stairs, on="k")["part"],
    ),
    ("other rows", AlignmentError, ("'row'",), lambda a, t: t.filter(t["k"] > 1)["v"] + t.filter(t["k"] > 2)["v"]),
    ("text arithmetic", ParameterError, ("'s'", "string"), lambda a, t: t["s"] + 1),
    ("negative power", ParameterError, ("power",), lambda a, t: t["k"] ** -1),
    ("truth", ParameterError, ("truth",), lambda a, t: bool(a["a"] > 1)),
    ("operand", ParameterError, ("list",), lambda a, t: a["a"] + [1]),
    ("filter by number", ParameterError, ("boolean",), lambda a, t: t.filter(t["v"])),
    ("filter arrays", DimensionError, ("filter",), lambda a, t: a[["a"]].filter(a["a"] > 1)),
    ("filter by another dimension", DimensionError, ("'row'", "(y)"), lambda a, t: t.filter(a["b"].sum("x") > 1)),
    ("filter by a scalar", DimensionError, ("'row'", "()"), lambda a, t: t.filter(t["v"].sum() > 1)),
    (
        "explode twice",
        ParameterError,
        ("'step'",),
        lambda a, t: t[["k"]].rename(k="step").explode(k.stairs, keep=["step"]),
    ),
    ("explode max", ParameterError, ("max",), lambda a, t: t.explode(k.stairs, on="k", max=-1)),
    ("explode arrays", DimensionError, ("explode",), lambda a, t: a[["a"]].explode(k.stairs)),
    ("explode scalar", SignatureError, ("explode",), lambda a, t: t.explode(k.scaled, on="v")),
    ("sort key", ParameterError, ("'zz'",), lambda a, t: t.sort("zz")),
    ("sort nothing", ParameterError, ("at least one",), lambda a, t: t.sort([])),
    ("sort lists", ParameterError, ("'l'", "list"), lambda a, t: t.sort("l")),
    ("sort arrays", DimensionError, ("sort",), lambda a, t: a[["a"]].sort("a")),
    ("isel unknown", DimensionError, ("'row'", "known"), lambda a, t: t.filter(t["k"] > 1).isel(row=0)),
    ("concat unknown", DimensionError, ("'row'", "known"), lambda a, t: grid.concat([t.filter(t["k"] > 1), t], "row")),
    ("concat nothing", ParameterError, ("at least one",), lambda a, t: grid.concat([], "row")),
    ("concat others", AlignmentError, ("columns",), lambda a, t: grid.concat([a[["a"]], a[["b"]]], "x")),
    (
        "concat lengths",
        AlignmentError,
        ("dimensions",),
        lambda a, t: grid.concat([a[["a"]], a[["a"]].isel(x=slice(2))], "y"),
    ),
    (
        "boundary",
        ParameterError,
        ("clip, periodic, fill",),
        lambda a, t: a["b"].stencil(k.window, {"x": 1}, boundary="wrap"),
    ),
    ("negative halo", ParameterError, ("'x'", "negative"), lambda a, t: a["b"].stencil(k.window, {"x": -1})),
    ("halo type", ParameterError, ("'x'",), lambda a, t: a["b"].stencil(k.window, {"x": 1.5})),
    ("halo dimension", DimensionError, ("'z'",), lambda a, t: a["b"].stencil(k.window, {"z": 1})),
    ("halo signature", SignatureError, ("window",), lambda a, t: a["b"].stencil(k.window, {"y": 1})),
    ("stencil of text", ParameterError, ("'s'",), lambda a, t: t["s"].stencil(k.window_row, {"row": 1})),
    (
        "fill",
        ParameterError,
        ("int64", "fill"),
        lambda a, t: t["k"].stencil(k.window_row, {"row": 1}, boundary="fill", fill=np.nan),
    ),
    ("iterate steps", ParameterError, ("-1",), lambda a, t: a["b"].iterate(k.heat, -1, halo={"x": 1})),
    ("iterate neither", ParameterError, ("halo or edges",), lambda a, t: a["b"].iterate(k.heat, 1)),
    (
        "iterate nulls",
        UsageError,
        ("'n'", "nulls"),
        lambda a, t: t["n"].iterate(k.mixed, 1, edges=grid.Edges(_neighbours)),
    ),
    (
        "iterate edges",
        DimensionError,
        ("rows",),
        lambda a, t: a["b"].iterate(k.mixed, 1, edges=grid.Edges(_neighbours)),
    ),
    ("reduction", ParameterError, ("'median'", "quantile"), lambda a, t: a["a"].reduce("median")),
    ("reduction option", ParameterError, ("topk",), lambda a, t: a["a"].reduce("topk", n=3)),
    ("reduced dimension", DimensionError, ("'z'",), lambda a, t: a["a"].sum("z")),
    ("argmin of two", DimensionError, ("argmin", "one dimension"), lambda a, t: a["a"].reduce("argmin")),
    ("reduced text", ParameterError, ("'s'",), lambda a, t: t["s"].count()),
    ("group labels", ParameterError, ("shape",), lambda a, t: a["a"].groupby([1, 2], dim="x")),
    ("group coordinate", DimensionError, ("'time.month'",), lambda a, t: a["a"].groupby("time.month")),
    ("group without dim", ParameterError, ("dim=",), lambda a, t: a["a"].groupby([1, 2])),
    ("take floats", ParameterError, ("float64",), lambda a, t: a["a"].take(t["v"], "x")),
    ("take by a plane", DimensionError, ("(y, x)",), lambda a, t: t.take((a["b"] > 1) * 1, "row")),
    ("no columns", ParameterError, ("columns",), lambda a, t: grid.run(grid.space(p=3))),
    ("nothing", ParameterError, ("nothing",), lambda a, t: grid.run()),
    ("not a collection", ParameterError, ("ndarray",), lambda a, t: grid.run(np.ones(3))),
    ("empty space", EmptyGridError, ("no cells",), lambda a, t: grid.space(p=0)),
]


def _mixed_core() -> Any:
    @grid.kernel("(x),()->()")
    def mixed_core(row, value):
        return row[0] + value

    return mixed_core


@pytest.mark.parametrize(("kind", "words", "call"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_arguments(
    arrays: Any,
    table: Any,
    kind: type[GridError],
    words: tuple[str, ...],
    call: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The right kind of error, naming the thing, before anything is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        call(arrays, table)
    for word in words:
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


def _outside(step: int, cell: int, out: Any) -> int:
    out[0] = cell + 1
    return 1


def _crowded(step: int, cell: int, out: Any) -> int:
    return 9


@pytest.mark.parametrize(("rule", "word"), [(_outside, "outside"), (_crowded, "max_inputs")])
def test_edges_that_leave_the_space(table: Any, rule: Any, word: str) -> None:
    with pytest.raises(KernelError, match=word):
        run(table["v"].iterate(k.mixed, 1, edges=grid.Edges(rule, max_inputs=2)))


def test_take_goes_over_its_input_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "TAKE_BYTES", 64)
    rng = np.random.default_rng(3)
    values, where = rng.random((1000, 3)), rng.integers(0, 1000, 500)
    words = pa.array([None if i % 7 == 0 else "w" * (i % 5) for i in range(1000)])
    field = grid.from_arrays({"v": values}, dims=("x", "y"))["v"]
    names = grid.from_arrays({"s": words}, dims="x")["s"]
    index = grid.from_arrays({"i": where}, dims="row")["i"]
    taken = run(field.take(index, "x"), names.take(index, "x"))
    np.testing.assert_array_equal(taken[0].to_numpy(), values[where])
    assert taken[1].to_arrow()["s"].to_pylist() == words.take(pa.array(where)).to_pylist()


def test_take_needs_memory_for_its_output_only() -> None:
    @grid.kernel("->()")
    def number(cell):
        return cell[0]

    data, index = grid.space(x=10**8).map(number), grid.from_arrays({"i": np.arange(10**4)}, dims="row")["i"]
    assert grid.plan(data.take(index, "x"), workers=1).peak_bytes < 2**30


def test_take_at_positions_outside(arrays: Any, table: Any) -> None:
    with pytest.raises(KernelError, match="lies outside dimension 'x' of length 5"):
        run(arrays["a"].take(table["k"] * 9, "x"))
