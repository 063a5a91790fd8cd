"""What every op should give, in plain NumPy and Python loops over whole arrays: no chunks, no plans, no compiler.

A `Table` is the model of a collection: columns (`Col`) over named dimensions. Each op here takes and gives tables;
`same` compares a finished run with one. Slow on purpose, and short enough to be read as the definition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gridcompute import random
from gridcompute.columns import Fixed, Ragged
from gridcompute.kernels import Kernel


@dataclass(frozen=True, eq=False)
class Col:
    """One column: `values` over `dims` (an object array of arrays where cells vary in length), `valid` or None.

    `exact` is false where a reduction's order of adding may show in the last bits.
    """

    dims: tuple[str, ...]
    values: np.ndarray
    valid: np.ndarray | None = None
    kind: str = "fixed"
    exact: bool = True

    @property
    def known(self) -> np.ndarray:
        """Which cells aren't null."""
        return np.ones(self.values.shape, bool) if self.valid is None else self.valid

    def at(self, dim: str, index: Any) -> Col:
        """The column at positions of one dimension (itself where it hasn't got it)."""
        if dim not in self.dims:
            return self
        where = tuple(index if name == dim else slice(None) for name in self.dims)
        dims = tuple(d for d in self.dims if d != dim or not isinstance(index, int))
        values = np.empty((), object) if self.kind != "fixed" and not dims else np.asarray(self.values[where])
        if self.kind != "fixed" and not dims:
            values[()] = self.values[index]
        return replace(
            self, dims=dims, values=values, valid=None if self.valid is None else np.asarray(self.valid[where])
        )

    def over(self, dims: Sequence[str], sizes: dict[str, int]) -> Col:
        """The column repeated over all of `dims`, in their order."""
        if tuple(dims) == self.dims:
            return self
        order = [self.dims.index(d) for d in dims if d in self.dims]
        index = tuple(slice(None) if d in self.dims else None for d in dims)
        shape = tuple(sizes[d] for d in dims)
        spread = [
            None if a is None else np.broadcast_to(a.transpose(order)[index], shape) for a in (self.values, self.valid)
        ]
        return replace(self, dims=tuple(dims), values=spread[0], valid=spread[1])


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name."""

    columns: dict[str, Col] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dimension, in the order of the columns."""
        found: dict[str, int] = {}
        for col in self.columns.values():
            for name, length in zip(col.dims, col.values.shape, strict=True):
                assert found.setdefault(name, length) == length
        return found

    def __getitem__(self, name: str) -> Col:
        return self.columns[name]

    def each(self, change: Callable[[Col], Col]) -> Table:
        """Every column changed."""
        return Table({name: change(col) for name, col in self.columns.items()})


def _run(
    kernel: Kernel, cell: list[Any], valid: list[Any], extra: dict[str, Any], params: dict[str, Any]
) -> tuple[Any, ...]:
    specials = {**extra, "valid": valid[0] if len(valid) == 1 else tuple(valid)}
    arguments = [*cell, *kernel.bind(params).values(), *(specials[name] for name in kernel.specials)]
    with np.errstate(all="ignore"):
        found = kernel.func(*arguments)
    return found if isinstance(found, tuple) else (found,)


def _seen(col: Col) -> np.ndarray:
    """Values as a kernel sees them: nulls as NaN, or as zero."""
    if col.valid is None or col.kind != "fixed":
        return col.values
    return np.where(col.valid, col.values, np.nan if col.values.dtype.kind == "f" else 0)


def mapped(
    kernel: Kernel,
    cols: Sequence[Col],
    names: Sequence[str],
    seed: int = 0,
    name: str = "",
    space: Sequence[str] = (),
    **params: Any,
) -> Table:
    """A kernel cell by cell. `space` gives the order of dimensions, where cells are told their index."""
    sizes = Table({str(i): c for i, c in enumerate(cols)}).sizes
    core = [() if c.kind != "fixed" else dims for c, dims in zip(cols, kernel.signature.inputs, strict=True)]
    loop = [d for d in space or sizes if any(d in c.dims and d not in k for c, k in zip(cols, core, strict=True))]
    spread = [c.over([*loop, *k], sizes) for c, k in zip(cols, core, strict=True)]
    shape = tuple(sizes[d] for d in loop)
    if kernel.mode != "cell":
        results = [np.asarray(r) for r in _run(kernel, [_seen(c).reshape(-1) for c in spread], [], {}, params)]
        return Table({n: Col(tuple(loop), r.reshape(shape)) for n, r in zip(names, results, strict=True)})
    key = random.seed_key(seed, name or kernel.name)
    given: list[list[Any]] = [[] for _ in names]
    for number, cell in enumerate(np.ndindex(shape)):
        extra = {"cell": np.array(cell, np.int64), "rng": random.state(key, number)}
        outs = _run(kernel, [_seen(c)[cell] for c in spread], [c.known[cell] for c in spread], extra, params)
        for into, out in zip(given, outs, strict=True):
            into.append(out)
    exact = all(c.exact for c in cols)
    columns = {}
    for label, dims, found in zip(names, kernel.signature.outputs, given, strict=True):
        if dims and any(c.kind != "fixed" and d == dims for c, d in zip(cols, kernel.signature.inputs, strict=True)):
            columns[label] = Col(tuple(loop), objects(found), kind="list", exact=exact)
            continue
        inner = tuple(kernel.sizes.get(d, sizes.get(d, 0)) for d in dims)
        columns[label] = Col(
            (*loop, *dims), np.asarray(found).reshape(shape + inner) if found else np.empty(shape + inner), exact=exact
        )
    return Table(columns)


def objects(cells: Sequence[Any]) -> np.ndarray:
    """An object array of cells."""
    made = np.empty(len(cells), object)
    for i, cell in enumerate(cells):
        made[i] = cell
    return made


def elementwise(ufunc: str, *operands: Col | float) -> Col:
    """A NumPy ufunc by dimension names; a null in gives a null out."""
    cols = [o for o in operands if isinstance(o, Col)]
    sizes = Table({str(i): c for i, c in enumerate(cols)}).sizes
    spread = [o.over(list(sizes), sizes) if isinstance(o, Col) else o for o in operands]
    with np.errstate(all="ignore"):
        values = getattr(np, ufunc)(*(o.values if isinstance(o, Col) else o for o in spread))
    masks = [o.valid for o in spread if isinstance(o, Col) and o.valid is not None]
    valid = None if not masks else np.logical_and.reduce(masks)
    return Col(tuple(sizes), np.asarray(values), valid, exact=all(c.exact for c in cols))


def filtered(table: Table, dim: str, mask: Col) -> Table:
    """Rows where a boolean column is true and not null."""
    keep = np.flatnonzero(mask.values & mask.known)
    return table.each(lambda c: c.at(dim, keep))


def exploded(kernel: Kernel, col: Col, names: Sequence[str], keep: Table, dim: str = "item", **params: Any) -> Table:
    """One row to many."""
    given: list[list[Any]] = [[] for _ in names]
    parents = []
    for i in range(len(col.values)):
        outs = _run(kernel, [_seen(col)[i]], [col.known[i]], {}, params)
        parents += [i] * len(outs[0])
        for into, out in zip(given, outs, strict=True):
            into.extend(out)
    index = np.array(parents, np.int64)
    kept = {n: replace(c.at(c.dims[0], index), dims=(dim,)) for n, c in keep.columns.items()}
    return Table(
        {
            **kept,
            **{n: Col((dim,), np.array(g, np.float64), exact=col.exact) for n, g in zip(names, given, strict=True)},
        }
    )


def joined(tables: Sequence[Table], dim: str) -> Table:
    """Tables one after the other."""
    columns = {}
    for name, first in tables[0].columns.items():
        cols = [t[name] for t in tables]
        axis = first.dims.index(dim)
        valid = None if all(c.valid is None for c in cols) else np.concatenate([c.known for c in cols], axis)
        columns[name] = replace(
            first, values=np.concatenate([c.values for c in cols], axis), valid=valid, exact=all(c.exact for c in cols)
        )
    return Table(columns)


def window(
    col: Col, cell: tuple[int, ...], halo: dict[str, tuple[int, int]], order: Sequence[str],
    boundary: str | dict[str, str], fill: float,
) -> np.ndarray:  # fmt: skip
    """The values around a cell, with the halo's dimensions in `order`."""
    picks, outside = [], []
    ends = boundary if isinstance(boundary, dict) else dict.fromkeys(halo, boundary)
    for name, at, length in zip(col.dims, cell, col.values.shape, strict=True):
        before, after = halo.get(name, (0, 0))
        wanted = np.arange(at - before, at + after + 1)
        outside.append((wanted < 0) | (wanted >= length))
        picks.append(wanted % length if ends.get(name) == "periodic" else np.clip(wanted, 0, length - 1))
    values = _seen(col)[np.ix_(*picks)].copy()
    for axis, beyond in enumerate(outside):
        if ends.get(col.dims[axis]) == "fill":
            values[tuple(beyond if a == axis else slice(None) for a in range(values.ndim))] = fill
    axes = [col.dims.index(d) for d in order]
    others = [a for a in range(values.ndim) if a not in axes]
    return np.ascontiguousarray(values.transpose([*others, *axes]).reshape([values.shape[a] for a in axes]))


def stencilled(
    kernel: Kernel,
    col: Col,
    halo: dict[str, tuple[int, int]],
    boundary: str | dict[str, str] = "clip",
    fill: float = 0.0,
    step: int = 0,
    **params: Any,
) -> Col:
    """A kernel over the window around each cell."""
    values = np.empty(col.values.shape)
    for cell in np.ndindex(col.values.shape):
        around = window(col, cell, halo, kernel.signature.inputs[0], boundary, fill)
        values[cell] = _run(kernel, [around], [], {"step": step}, params)[0]
    return Col(col.dims, values, exact=col.exact)


def iterated(kernel: Kernel, col: Col, steps: int, edges: Any, **params: Any) -> Col:
    """A kernel over the neighbours that a rule names, step after step."""
    values = col.values.copy()
    for step in range(steps):
        width = len(values) if edges.active is None else min(len(values), edges.active(step))
        after = values.copy()
        for cell in range(width):
            out = np.empty(edges.max_inputs, np.int64)
            count = edges.fn(step % edges.period, cell, out)
            after[cell] = _run(kernel, [values[out[:count]]], [], {"step": step}, params)[0]
        values = after
    return replace(col, values=values)


def propagated(kernel: Kernel, col: Col, inputs: list[list[int]], **params: Any) -> Col:
    """A kernel over the results of the cells that each cell reads, and its own value."""
    done: dict[int, Any] = {}

    def of(cell: int) -> Any:
        if cell not in done:
            read = np.array([of(one) for one in inputs[cell]], col.values.dtype)
            done[cell] = _run(kernel, [read, col.values[cell]], [], {}, params)[0]
        return done[cell]

    return replace(col, values=np.array([of(cell) for cell in range(len(inputs))]))


REDUCERS: dict[str, Callable[..., Any]] = {
    "sum": lambda v: v.sum() if len(v) else 0,
    "count": len,
    "mean": lambda v: np.mean(v, dtype=float) if len(v) else None,
    "var": lambda v, ddof=0: np.var(v.astype(float), ddof=ddof) if len(v) > ddof else None,
    "std": lambda v, ddof=0: np.std(v.astype(float), ddof=ddof) if len(v) > ddof else None,
    "min": lambda v: v.min() if len(v) else None,
    "max": lambda v: v.max() if len(v) else None,
    "first": lambda v: v[0] if len(v) else None,
    "last": lambda v: v[-1] if len(v) else None,
    "any": lambda v: bool((v != 0).any()),
    "all": lambda v: bool((v != 0).all()),
    "quantile": lambda v, q=0.5: np.quantile(v, q) if len(v) else None,
    "squares": lambda v: float((v.astype(float) ** 2).sum() + len(v)),
}
FLOATING = ("mean", "var", "std", "quantile")


def reduced(
    col: Col, how: str, dims: Sequence[str] = (), groups: tuple[str, np.ndarray] | None = None, **options: Any
) -> Col:
    """One column reduced, nulls and NaN left out; `groups` names the new dimension and gives each position's code."""
    over = [d for d in col.dims if d in dims] if dims else list(col.dims)
    kept = [d for d in col.dims if d not in over]
    sizes = dict(zip(col.dims, col.values.shape, strict=True))
    ordered = col.over([*kept, *over], sizes)
    shape = tuple(sizes[d] for d in kept)
    count = math.prod(sizes[d] for d in over)
    flat, ok = ordered.values.reshape(*shape, count), ordered.known.reshape(*shape, count)
    if flat.dtype.kind == "f":
        ok = ok & ~np.isnan(flat)
    codes = np.zeros(count, np.int64) if groups is None else groups[1]
    number = 1 if groups is None else int(codes.max()) + 1
    cells = [
        _reduced(flat[cell], ok[cell] & (codes == g), how, options) for g in range(number) for cell in np.ndindex(shape)
    ]
    valid = np.array([c is not None for c in cells], bool)
    inner = np.shape(next((c for c in cells if c is not None), 0))
    blank: Any = (
        np.nan if how in FLOATING or (flat.dtype.kind == "f" and how not in ("count", "argmin", "argmax")) else 0
    )
    made = np.array([np.full(inner, blank) if c is None else c for c in cells])
    lead = () if groups is None else (groups[0],)
    full = (*((number,) if groups else ()), *shape, *inner)
    new = {"histogram": ("bin",), "topk": ("rank",), "quantile": ("quantile",)}.get(how, ())[: len(inner)]
    mask = (
        None
        if valid.all() or made.dtype.kind == "f"
        else valid.reshape(full[: len(full) - len(inner)] + (1,) * len(inner))
    )
    exact = col.exact and how not in (*FLOATING, "sum", "squares")
    exact = exact or (how == "sum" and flat.dtype.kind != "f" and col.exact)
    return Col(
        (*lead, *kept, *new), made.reshape(full), None if mask is None else np.broadcast_to(mask, full), exact=exact
    )


def _reduced(values: np.ndarray, ok: np.ndarray, how: str, options: dict[str, Any]) -> Any:
    if how in ("argmin", "argmax"):
        places = np.flatnonzero(ok)
        return None if not len(places) else places[getattr(np, how)(values[ok])]
    if how == "histogram":
        return np.histogram(values[ok], np.asarray(options["bins"], float))[0]
    if how == "topk":
        best = np.sort(values[ok].astype(float))[::-1][: options["k"]]
        return np.concatenate([best, np.full(options["k"] - len(best), np.nan)])
    return REDUCERS[how](values[ok], **options)


def sort_key(col: Col, descending: bool) -> Callable[[int], Any]:
    """A key of row i: numbers, then NaN, then nulls."""
    known = col.known
    plain = [bytes(v) if col.kind != "fixed" else v for v in col.values]
    distinct = sorted({v for v, ok in zip(plain, known, strict=True) if ok and v == v}, reverse=descending)
    rank = {v: i for i, v in enumerate(distinct)}
    return lambda i: len(rank) + 1 if not known[i] else rank.get(plain[i], len(rank))


def ordered(table: Table, dim: str, keys: Sequence[str], descending: bool) -> Table:
    """Rows sorted by columns, stably."""
    by = [sort_key(table[k], descending) for k in keys]
    order = sorted(range(table.sizes[dim]), key=lambda i: tuple(k(i) for k in by))
    return table.each(lambda c: c.at(dim, np.array(order, np.int64)))


def rows(table: Table) -> list[tuple[Any, ...]]:
    """Rows as comparable tuples, in order."""

    def cell(col: Col, i: int) -> Any:
        if not col.known[i]:
            return "null"
        value = col.values[i]
        return repr(np.asarray(value).tolist()) if col.kind != "fixed" else repr(float(value))

    length = next(iter(table.sizes.values()))
    return [tuple(cell(c, i) for c in table.columns.values()) for i in range(length)]


def columns_of(result: Any) -> Table:
    """A finished result as a table."""
    block = result.block()
    found = {}
    for f in result.fields:
        column = block[f.name]
        if isinstance(column, Ragged):
            cells = [column.values[a:b] for a, b in itertools.pairwise(column.offsets)]
            valid = column.valid if f.dims or column.valid is None else column.valid.reshape(())
            found[f.name] = Col(f.dims, objects(cells) if f.dims else objects(cells).reshape(()), valid, f.kind)
        else:
            assert isinstance(column, Fixed)
            found[f.name] = Col(f.dims, column.values, column.valid)
    return Table(found)


def same(found: Table, wanted: Table) -> None:
    """Fail unless the columns are equal: bits where the model says `exact`, else to 1e-9."""
    assert list(found.columns) == list(wanted.columns)
    for name, want in wanted.columns.items():
        got = found[name]
        assert sorted(got.dims) == sorted(want.dims), f"{name}: {got.dims} is not {want.dims}"
        sizes = dict(zip(want.dims, want.values.shape, strict=True))
        want = want.over(got.dims, sizes)
        assert got.values.shape == want.values.shape, f"{name}: {got.values.shape} is not {want.values.shape}"
        if want.kind != "fixed":
            assert got.known.tolist() == want.known.tolist(), name
            for ok, a, b in zip(want.known.flat, got.values.flat, want.values.flat, strict=True):
                assert not ok or np.asarray(a).tolist() == np.asarray(b).tolist(), name
            continue
        # A float's null and its NaN are the same to a reader.
        floating = want.values.dtype.kind == "f" or got.values.dtype.kind == "f"
        left = np.where(got.known, got.values, np.nan if floating else 0)
        right = np.where(want.known, want.values, np.nan if floating else 0)
        if not floating:
            np.testing.assert_array_equal(got.known, want.known, err_msg=name)
        if want.exact:
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9, err_msg=name)
