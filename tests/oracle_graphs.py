"""Random graphs of all ops, each grown together with its model in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracle_kernels as k
from hypothesis import strategies as st
from oracle import (
    Col,
    Table,
    elementwise,
    exploded,
    filtered,
    iterated,
    joined,
    mapped,
    objects,
    ordered,
    propagated,
    reduced,
    stencilled,
)

import gridcompute as grid

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True, eq=False)
class Grown:
    """A collection and what it should give; `said` tells how it was made."""

    lazy: Any
    model: Table
    said: str

    @property
    def name(self) -> str:
        """The first column's name."""
        return next(iter(self.model.columns))

    @property
    def col(self) -> Col:
        """The first column."""
        return self.model[self.name]


def alone(lazy: Any, col: Col, said: str) -> Grown:
    """A collection of one column."""
    return Grown(lazy, Table({lazy.fields[0].name: col}), said)


def source_arrays(seed: int) -> list[Grown]:
    """Two arrays that share dimensions; one has NaN."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-9, 9, (2, 3, 4)).astype(float), rng.integers(-9, 9, (3, 4)).astype(float)
    a[rng.random(a.shape) < 0.1] = np.nan
    made = grid.from_arrays({"a": a, "b": b}, dims={"a": ("t", "y", "x"), "b": ("y", "x")})
    return [alone(made["a"], Col(("t", "y", "x"), a), "a"), alone(made["b"], Col(("y", "x"), b), "b")]


def source_table(seed: int) -> Grown:
    """Rows with NaN, nulls, text and lists."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    v, keys, nulls = rng.integers(-9, 9, n).astype(float), rng.integers(0, 4, n), rng.random(n) < 0.3
    v[rng.random(n) < 0.15] = np.nan
    text = [None if rng.random() < 0.1 else "".join(rng.choice(list("ab"), rng.integers(0, 3))) for _ in range(n)]
    lists = [rng.integers(0, 9, rng.integers(0, 4)).astype(float) for _ in range(n)]
    nullable = np.ma.MaskedArray(rng.integers(0, 9, n), nulls)
    lazy = grid.from_arrays({"v": v, "k": keys, "n": nullable, "s": text, "l": lists}, dims="row")
    some = np.array([x is not None for x in text])
    model = Table({
        "v": Col(("row",), v),
        "k": Col(("row",), keys),
        "n": Col(("row",), nullable.data, ~nulls),
        "s": Col(("row",), objects([np.frombuffer((x or "").encode(), np.uint8) for x in text]), some, "string"),
        "l": Col(("row",), objects(lists), None, "list"),
    })  # fmt: skip
    return Grown(lazy, model, f"table of {n}")


def _mapped(draw: Draw, g: Grown, others: list[Grown]) -> Grown:
    kernel = draw(st.sampled_from([k.scaled, k.both, k.placed, k.drawn, k.batched, k.plain]))
    options = {"seed": 3, "name": "d"} if kernel is k.drawn else {}
    model = mapped(kernel, [g.col], list(kernel.names), space=g.lazy.dims, **options)
    made = Grown(g.lazy.map(kernel, **options), model, f"{kernel.name}({g.said})")
    pick = draw(st.sampled_from(list(kernel.names)))
    return Grown(made.lazy[pick], Table({pick: made.model[pick]}), made.said)


def _paired(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    other = draw(st.sampled_from(others))
    if any(g.model.sizes.get(d, n) != n for d, n in other.model.sizes.items()):
        return None
    if draw(st.booleans()):
        return alone(grid.map(k.pair, g.lazy, other.lazy), mapped(k.pair, [g.col, other.col], ["pair"])["pair"],
                     f"pair({g.said}, {other.said})")  # fmt: skip
    ufunc, sign = draw(st.sampled_from([("add", "+"), ("subtract", "-"), ("multiply", "*")]))
    lazy = {"+": g.lazy + other.lazy, "-": g.lazy - other.lazy, "*": g.lazy * other.lazy}[sign]
    return alone(lazy, elementwise(ufunc, g.col, other.col), f"({g.said} {sign} {other.said})")


def _whole(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    if "x" not in g.col.dims:
        return None
    kernel = draw(
        st.sampled_from([k.weighted, k.running, *([k.ends] if "k" not in g.col.dims and g.model.sizes["x"] else [])])
    )
    pick = draw(st.sampled_from(list(kernel.names)))
    model = mapped(kernel, [g.col], list(kernel.names))
    return Grown(g.lazy.map(kernel)[pick], Table({pick: model[pick]}), f"{kernel.name}({g.said})")


def _index(draw: Draw, length: int) -> int | slice | list[int]:
    kind = draw(st.sampled_from(["slice", "slice", "list", "int"]))
    if kind == "int" and length:
        return int(draw(st.integers(-length, length - 1)))
    if kind == "list" and length:
        return list(draw(st.lists(st.integers(-length, length - 1), max_size=4)))
    found: slice = draw(st.slices(length))
    return found


def _selected(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    if not g.col.dims or g.lazy.space[g.col.dims[0]] is None:
        return None
    dim = draw(st.sampled_from(g.col.dims))
    index = _index(draw, g.model.sizes[dim])
    array = np.array(index, np.int64) if isinstance(index, list) else index
    return Grown(g.lazy.isel(**{dim: index}), g.model.each(lambda c: c.at(dim, array)), f"{g.said}[{dim}={index}]")


def _joined(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    dims = [d for d in g.col.dims if g.lazy.space[d] is not None]
    if not dims or g.model.sizes[dims[0]] > 30:
        return None
    dim = draw(st.sampled_from(dims))
    cut = slice(0, draw(st.integers(0, g.model.sizes[dim])))
    parts = [g.lazy, g.lazy.isel(**{dim: cut})]
    model = joined([g.model, g.model.each(lambda c: c.at(dim, cut))], dim)
    return Grown(grid.concat(parts, dim), model, f"concat({g.said}, {dim}, {cut.stop})")


def _stencilled(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    if "x" not in g.col.dims or not all(g.model.sizes.values()):
        return None
    sides = st.tuples(st.integers(0, 5), st.integers(0, 5))
    halo = {"x": draw(sides), **({"y": draw(sides)} if "y" in g.col.dims and draw(st.booleans()) else {})}
    kernel = k.window2 if "y" in halo else k.window
    ends = st.sampled_from(["clip", "periodic", "fill"])
    how = draw(st.one_of(ends, st.fixed_dictionaries({"x": ends}, optional=dict.fromkeys(set(halo) - {"x"}, ends))))
    return alone(g.lazy.stencil(kernel, halo, boundary=how, fill=2.0), stencilled(kernel, g.col, halo, how, 2.0),
                 f"stencil({g.said}, {halo}, {how})")  # fmt: skip


def _iterated(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    if "x" not in g.col.dims or not all(g.model.sizes.values()):
        return None
    how, steps, col = draw(st.sampled_from(["clip", "periodic", "fill"])), draw(st.integers(0, 3)), g.col
    for _ in range(steps):
        col = stencilled(k.heat, col, {"x": (1, 1)}, how, 0.0)
    return alone(g.lazy.iterate(k.heat, steps, halo={"x": 1}, boundary=how), col, f"heat({g.said}, {steps}, {how})")


HOW: list[tuple[Any, str, dict[str, Any]]] = [
    ("sum", "sum", {}), ("mean", "mean", {}), ("var", "var", {}), ("min", "min", {}), ("max", "max", {}),
    ("count", "count", {}),
    ("quantile", "quantile", {"q": 0.25}), ("first", "first", {}), ("argmin", "argmin", {}), (k.squares, "squares", {}),
]  # fmt: skip


def _reduced(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    if not g.col.dims or g.col.kind != "fixed":
        return None
    how, name, options = draw(st.sampled_from(HOW))
    one = name in ("first", "argmin")
    dims = draw(st.lists(st.sampled_from(g.col.dims), min_size=1, max_size=1 if one else 3, unique=True))
    group = None
    if not g.col.exact and name in ("argmin", "quantile"):
        return None
    if g.model.sizes[dims[0]] and g.lazy.space[dims[0]] is not None and draw(st.integers(0, 3)) == 0:
        dims = dims[:1]
        group = np.arange(g.model.sizes[dims[0]]) % 2
        if "group" in g.col.dims:
            return None
        lazy = g.lazy.groupby(group, dim=dims[0]).reduce(how, **options)
    else:
        lazy = g.lazy.reduce(how, dims, **options)
    model = reduced(g.col, name, dims, None if group is None else ("group", group), **options)
    (field,) = lazy.fields
    if field.nullable and field.dtype.kind in "iu":  # kernels of whole numbers take no nulls
        lazy, model = lazy.fillna(0), replace(model, values=np.where(model.known, model.values, 0), valid=None)
    return alone(lazy, model, f"{name}({g.said}, {dims}{', by 2' if group is not None else ''})")


def _taken(draw: Draw, g: Grown, others: list[Grown]) -> Grown | None:
    dims = [d for d in g.col.dims if g.model.sizes[d] and g.lazy.space[d] is not None]
    if not dims or "i" in g.col.dims:
        return None
    dim = draw(st.sampled_from(dims))
    index = np.array(draw(st.lists(st.integers(0, g.model.sizes[dim] - 1), min_size=1, max_size=5)), np.int64)
    where = grid.from_arrays({"index": index}, dims="i") + 0
    new = replace(g.col.at(dim, index), dims=tuple("i" if d == dim else d for d in g.col.dims))
    return alone(g.lazy.take(where, dim), new, f"take({g.said}, {dim}, {index.tolist()})")


ARRAY_STEPS = [
    _mapped,
    _mapped,
    _paired,
    _paired,
    _whole,
    _selected,
    _joined,
    _stencilled,
    _iterated,
    _reduced,
    _reduced,
    _taken,
]


def grow_arrays(draw: Draw, steps: int) -> list[Grown]:
    """A few outputs over arrays."""
    made = source_arrays(draw(st.integers(0, 3)))
    for _ in range(steps):
        step, from_ = draw(st.sampled_from(ARRAY_STEPS)), draw(st.sampled_from(made))
        if (grown := step(draw, from_, made)) is not None and np.size(grown.col.values) <= 400:
            made.append(grown)
    return made[-3:]


def _filtered(draw: Draw, g: Grown) -> Grown:
    name = draw(st.sampled_from([n for n in ("v", "k", "n", "part") if n in g.model.columns]))
    at = draw(st.sampled_from([0, 2, 9]))
    mask = elementwise("less", g.model[name], at)
    return Grown(g.lazy.filter(g.lazy[name] < at), filtered(g.model, g.col.dims[0], mask), f"{g.said}[{name} < {at}]")


def _sorted(draw: Draw, g: Grown) -> Grown:
    names = [n for n, c in g.model.columns.items() if c.kind != "list" and c.exact]
    keys = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    down = draw(st.booleans())
    return Grown(
        g.lazy.sort(keys, descending=down),
        ordered(g.model, g.col.dims[0], keys, down),
        f"sort({g.said}, {keys}, {down})",
    )


def _exploded(draw: Draw, g: Grown) -> Grown | None:
    if "k" not in g.model.columns or g.col.dims[0] != "row":
        return None
    keep = [n for n in ("v", "n", "l") if n in g.model.columns and draw(st.booleans())]
    most = draw(st.sampled_from([None, 4]))
    kept = Table({n: g.model[n] for n in keep})
    model = exploded(k.stairs, g.model["k"], ["part", "v2"], kept)
    ordered_columns = Table({n: model[n] for n in [*keep, "part", "v2"]})
    return Grown(g.lazy.explode(k.stairs, on="k", keep=keep, max=most, names=["part", "v2"]), ordered_columns,
                 f"explode({g.said}, {keep}, {most})")  # fmt: skip


def _computed(draw: Draw, g: Grown) -> Grown | None:
    """A further column: a kernel over one of them."""
    kernels = {"l": k.size_of, "n": k.known, "v": draw(st.sampled_from([k.scaled, k.placed, k.drawn, k.plain]))}
    name = draw(st.sampled_from([n for n in kernels if n in g.model.columns] or [""]))
    if not name:
        return None
    kernel = kernels[name]
    new = mapped(kernel, [g.model[name]], ["new"])["new"]
    return Grown(g.lazy.assign(new=g.lazy[name].map(kernel, names=["new"])), Table({**g.model.columns, "new": new}),
                 f"{g.said} with {kernel.name}({name})")  # fmt: skip


def _centred(draw: Draw, g: Grown) -> Grown | None:
    """A further column that needs all rows: less their mean."""
    if "v" not in g.model.columns:
        return None
    new = elementwise("subtract", g.model["v"], reduced(g.model["v"], "mean"))
    return Grown(
        g.lazy.assign(new=g.lazy["v"] - g.lazy["v"].mean()),
        Table({**g.model.columns, "new": new}),
        f"centred({g.said})",
    )


def _smoothed(draw: Draw, g: Grown) -> Grown | None:
    if "v" not in g.model.columns or g.col.dims != ("row",):
        return None
    sides, how = (
        draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        draw(st.sampled_from(["clip", "periodic", "fill"])),
    )
    if not len(g.model["v"].values):
        return None
    new = stencilled(k.window_row, g.model["v"], {"row": sides}, how)
    lazy = g.lazy["v"].stencil(k.window_row, {"row": sides}, boundary=how)
    return alone(lazy, new, f"stencil({g.said}, {sides}, {how})")


def _ring(step: int, cell: int, out: Any) -> int:
    out[0] = cell
    out[1] = max(cell - 1 - step, 0)
    return 2 - cell % 2


def _edges(draw: Draw, g: Grown) -> Grown | None:
    if "v" not in g.model.columns or not len(g.model["v"].values):
        return None
    edges = grid.Edges(_ring, period=2, max_inputs=2)
    return alone(
        g.lazy["v"].iterate(k.mixed, 3, edges=edges), iterated(k.mixed, g.model["v"], 3, edges), f"edges({g.said})"
    )


def _along(draw: Draw, g: Grown) -> Grown | None:
    """Along a graph of the rows, which are counted first where their number isn't known."""
    n = len(g.model["v"].values) if "v" in g.model.columns else 0
    if not n:
        return None
    edges = [(c // 2, c) for c in range(1, n)] + [(c - 1, c) for c in range(1, n) if c % 3 == 0]
    if draw(st.booleans()):
        edges = [(n - 1 - source, n - 1 - target) for source, target in edges]
    dag = grid.Dag.of_edges([s for s, _ in edges], [t for _, t in edges], n)
    inputs = [[s for s, t in edges if t == cell] for cell in range(n)]
    return alone(g.lazy["v"].propagate(k.upstream, dag), propagated(k.upstream, g.model["v"], inputs),
                 f"along({g.said}, {edges})")  # fmt: skip


def _one_reduced(draw: Draw, g: Grown) -> Grown | None:
    name = draw(st.sampled_from([n for n, c in g.model.columns.items() if c.kind == "fixed"]))
    return _reduced(draw, Grown(g.lazy[name], Table({name: g.model[name]}), f"{g.said}.{name}"), [])


TABLE_STEPS = [_filtered, _filtered, _sorted, _exploded, _computed, _computed, _centred]
TABLE_ENDS = [
    _one_reduced,
    _smoothed,
    _edges,
    _along,
    lambda draw, g: _selected(draw, g, []),
    lambda draw, g: _joined(draw, g, []),
]


def grow_tables(draw: Draw, steps: int) -> list[Grown]:
    """A few outputs over rows, most of unknown number."""
    tables = [source_table(draw(st.integers(0, 5)))]
    ends: list[Grown] = []
    for _ in range(steps):
        g = draw(st.sampled_from(tables[-2:]))
        grown = draw(st.sampled_from(TABLE_STEPS))(draw, g)
        if grown is not None and len(grown.col.values) <= 60:
            tables.append(grown)
        if (end := draw(st.sampled_from(TABLE_ENDS))(draw, tables[-1])) is not None:
            ends.append(end)
    return [tables[-1], *ends[-2:]]
