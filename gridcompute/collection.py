"""Lazy values: named columns over a space. Nothing here reads or computes; `grid.run` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gridcompute import coords as coordinates
from gridcompute import ops, ops_compare, ops_positions, ops_rows, ops_windows, reducing
from gridcompute.access import Point
from gridcompute.actions.stencils import Edges
from gridcompute.actions.writes import Write
from gridcompute.arithmetic import Arithmetic
from gridcompute.auxiliary import fits, picked, without
from gridcompute.columns import Array, Field
from gridcompute.coords import Coordinate
from gridcompute.destined import Destined
from gridcompute.errors import DimensionError, MissingInputError, ParameterError
from gridcompute.kernels import Kernel
from gridcompute.op import Op
from gridcompute.ops import Ref
from gridcompute.ops_dags import Propagating
from gridcompute.ops_gaps import Gaps
from gridcompute.ops_weights import Weighted
from gridcompute.reducer import Reduction
from gridcompute.reducing import Reducible
from gridcompute.sinks.opening import open_sink
from gridcompute.spaces import Space

NOWHERE = Space()


class Collection(Arithmetic, ops_positions.Arranged, Gaps, Propagating, Reducible, Weighted):
    """Named columns over a space, not yet computed.

    Attributes:
        columns: op and name there, by the column's name here.
        coords: coordinates of its dimensions, as far as they have one; scalar and other ones, see `auxiliary`.
    """

    def __init__(self, columns: Mapping[str, Ref], coords: Iterable[Coordinate] = (), cells: Space = NOWHERE) -> None:
        self.columns = dict(columns)
        self._cells = cells
        lengths = dict(self.space.dims)
        self.coords = tuple(c for c in coords if fits(c, lengths))

    @classmethod
    def of(cls, op: Op, coords: Iterable[Coordinate] = ()) -> Collection:
        """All columns of an op."""
        return cls({f.name: (op, f.name) for f in op.fields}, coords, NOWHERE if op.fields else op.space)

    @property
    def space(self) -> Space:
        """The dimensions of all columns together."""
        return ops.joint_space(list(self.columns.values())) if self.columns else self._cells

    @property
    def fields(self) -> tuple[Field, ...]:
        """What each column is."""
        return tuple(ops.field_of(ref).renamed(name) for name, ref in self.columns.items())

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return self.space.names

    @property
    def op(self) -> Op:
        """The op that gives these columns side by side."""
        if not self.columns:
            raise ParameterError("a space has no columns to compute", hint="map a kernel over it first")
        return ops.choose(self.columns)

    def __repr__(self) -> str:
        columns = ", ".join(f"{f.name}: {f.kind if f.ragged else f.dtype}" for f in self.fields)
        return f"<Collection {self.space} {columns or 'no columns'}>"

    __iter__ = None  # else Python would try the columns 0, 1, ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Refused: NumPy would make an array of one object of it."""
        hint = "map a kernel over it, or grid.run(x)[0].to_numpy()"
        raise ParameterError("a collection has no values before it is computed", hint=hint)

    def __getitem__(self, names: str | Sequence[str]) -> Collection:
        """One column, or several by a list of names.

        Raises:
            MissingInputError: a name that isn't there; lists those that are.
        """
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self.columns:
                raise MissingInputError(
                    f"no column {name!r}", hint=f"the columns are {', '.join(self.columns) or 'none'}"
                )
        return Collection({name: self.columns[name] for name in wanted}, self.coords)

    def rename(self, **names: str) -> Collection:
        """Columns under other names: `rename(old="new")`."""
        self[list(names)]
        return Collection({names.get(name, name): ref for name, ref in self.columns.items()}, self.coords)

    def assign(self, **others: Collection) -> Collection:
        """Further columns beside these, each a collection of one column."""
        columns = dict(self.columns)
        for name, other in others.items():
            columns[name] = other._one()
        return Collection(columns, reducing.merged_coords([self, *others.values()]))

    def coord(self, dim: str) -> Coordinate:
        """The coordinate of a dimension.

        Raises:
            DimensionError: it has none.
        """
        for found in sorted(self.coords, key=lambda c: c.name != dim):  # its own first, then others along it
            if found.dim == dim:
                return found
        has = ", ".join(c.dim for c in self.coords if c.dim) or "none"
        raise DimensionError(f"dimension {dim!r} has no coordinate", hint=f"dimensions with coordinates: {has}")

    def _one(self) -> Ref:
        if len(self.columns) != 1:
            raise ParameterError(f"this needs one column, but there are {', '.join(self.columns) or 'none'}",
                                 hint="select one: collection['name']")
        return next(iter(self.columns.values()))

    def map(
        self,
        kernel: Kernel,
        *others: Collection,
        names: Sequence[str] | None = None,
        seed: int = 0,
        name: str = "",
        on_error: str | None = None,
        **params: Any,
    ) -> Collection:
        """Run a kernel for every cell; its inputs are these columns, then those of `others`, in order.

        Args:
            kernel: made by `@grid.kernel` or `@grid.task`.
            others: further collections, aligned by dimension and coordinate.
            names: of the outputs; else the kernel's.
            seed: of `rng`.
            name: the op's name in plans and messages, and part of the key of `rng`; else the kernel's.
            on_error: where the kernel fails "stop" ends the run, "skip" leaves a null; else as the run's option says.
            params: the kernel's parameters: scalars, arrays, or a named tuple of arrays (one copy a node).

        Raises:
            SignatureError, DimensionError, AlignmentError, ParameterError: kernel and columns don't fit.
        """
        if not isinstance(kernel, Kernel):
            raise ParameterError(
                f"map takes a kernel, not {type(kernel).__name__}", hint='decorate the function: @grid.kernel("()->()")'
            )
        every = [self, *others]
        coords = reducing.merged_coords(every)
        refs = [ref for one in every for ref in one.columns.values()]
        if not kernel.signature.inputs:
            refs = []
        given: dict[str, Any] = {"params": params, "seed": seed, "name": name, "on_error": on_error}
        op = ops.map_cells(kernel, refs, self.space, names=names, **given)
        return Collection.of(op, coords)

    def _with(self, ufunc: str, *operands: Any, reverse: bool = False) -> Collection:
        every = [*operands, self] if reverse else [self, *operands]
        arguments = [one._one() if isinstance(one, Collection) else one for one in every]
        op = ops_compare.elementwise(ufunc, arguments, next(iter(self.columns), "value"))
        return Collection.of(op, reducing.merged_coords([c for c in every if isinstance(c, Collection)]))

    def isel(self, **where: int | slice | Sequence[int]) -> Collection:
        """Positions along dimensions: an int (drops the dimension), a slice, or a list.

        Raises:
            DimensionError, ParameterError: a dimension or position that isn't there.
        """
        result = self
        for dim, index in where.items():
            result = result._selected(dim, index)
        return result

    def sel(self, **labels: Any) -> Collection:
        """Labels along dimensions with coordinates: one label, or a slice with both ends included."""
        result = self
        for dim, label in labels.items():
            found = coordinates.select(self.coord(dim), label)
            result = result._selected(dim, slice(found.start, found.stop) if isinstance(found, range) else found)
        return result

    def _selected(self, dim: str, index: Any) -> Collection:
        how, chosen, count = ops_positions.how_selected(self.space, dim, index)
        made: dict[int, Op] = {}
        columns = dict(self.columns)
        for name, (op, field) in self.columns.items():
            if dim in op.space:
                made.setdefault(id(op), ops_positions.select(op, how, count))
                columns[name] = (made[id(op)], field)
        coords = [picked(c, dim, int(index) if chosen is None else chosen) for c in self.coords]
        cells = self.space.without(*([dim] if chosen is None else []))
        left = Space(tuple((name, count if name == dim else length) for name, length in cells.dims))
        return Collection(columns, coords, left)

    def take(self, index: Collection | Sequence[int] | np.ndarray[Any, Any], dim: str) -> Collection:
        """Positions along a dimension, from a list or from a computed column of whole numbers."""
        if not isinstance(index, Collection):
            return self._selected(dim, index)
        op = ops_positions.take_at(self.op, dim, index._one())
        return Collection.of(op, without((*self.coords, *index.coords), [dim]))

    def filter(
        self, condition: Collection | Kernel, on: str | Sequence[str] | None = None, **params: Any
    ) -> Collection:
        """The rows for which a condition holds; how many isn't known before the run.

        Args:
            condition: a boolean column of the same rows, or a kernel that gives one.
            on: columns that the kernel takes; else all.
            params: the kernel's parameters, and options of `map`; a row skipped by `on_error` is dropped.
        """
        if isinstance(condition, Kernel):
            condition = (self if on is None else self[on]).map(condition, names=["keep"], **params)
        return Collection.of(ops_rows.filter_rows(self.op, condition._one()))

    def explode(
        self,
        kernel: Kernel,
        on: str | Sequence[str] | None = None,
        *,
        keep: Sequence[str] = (),
        dim: str = "item",
        max: int | None = None,
        names: Sequence[str] | None = None,
        seed: int = 0,
        name: str = "",
        on_error: str | None = None,
        **params: Any,
    ) -> Collection:
        """One row to many: the kernel gives arrays of a shared length, whose elements are the new rows.

        Args:
            kernel: with a signature such as "(n)->(k),(k)".
            on: columns that the kernel takes; else all.
            keep: columns repeated for each new row.
            dim: name of the new dimension.
            max: most elements a row may give; without it the kernel runs twice.
            names: as in `map`.
            seed: as in `map`.
            name: as in `map`.
            on_error: as in `map`; a row that is skipped gives none.
            params: as in `map`.
        """
        refs = list((self if on is None else self[on]).columns.values())
        kept = self[list(keep)].op if keep else None
        return Collection.of(
            ops_rows.explode_rows(kernel, refs, keep=kept, names=names, params=params, dim=dim, most=max, seed=seed,
                                  name=name, on_error=on_error)
        )

    def sort(self, by: str | Sequence[str], descending: bool = False) -> Collection:
        """Rows in the order of one or several columns: stable; NaN, then nulls, last."""
        keys = [by] if isinstance(by, str) else list(by)
        return Collection.of(ops_rows.shuffle(self.op, [(key, descending) for key in keys], order=True))

    def shuffle(self, by: str | Sequence[str]) -> Collection:
        """Rows brought together by key: equal keys come to lie in one block."""
        keys = [by] if isinstance(by, str) else list(by)
        return Collection.of(ops_rows.shuffle(self.op, [(key, False) for key in keys], order=False))

    def stencil(
        self,
        kernel: Kernel,
        halo: Mapping[str, int | tuple[int, int]],
        *,
        boundary: str | Mapping[str, str] = "clip",
        fill: float = 0.0,
        names: Sequence[str] | None = None,
        seed: int = 0,
        name: str = "",
        on_error: str | None = None,
        **params: Any,
    ) -> Collection:
        """A kernel over the window around each cell of one column.

        Args:
            kernel: its one input has the halo's dimensions, as in "(lat,lon)->()".
            halo: cells before and after along each dimension, `{"lat": 1, "lon": (2, 0)}`.
            boundary: at the ends, of all or each: "clip" repeats the last cell, "periodic" goes round, "fill" fills.
            fill: what is read beyond the ends of a dimension whose boundary is "fill".
            names: as in `map`.
            seed: as in `map`.
            name: as in `map`.
            on_error: as in `map`.
            params: as in `map`.
        """
        ref = self._one()
        checked = ops_windows.halo_of(ref[0], halo, boundary)
        given: dict[str, Any] = {"params": params, "fill": fill, "seed": seed, "name": name, "on_error": on_error}
        return Collection.of(ops_windows.stencil(kernel, ref, checked, names=names, **given), self.coords)

    def iterate(
        self,
        kernel: Kernel,
        steps: int,
        *,
        halo: Mapping[str, int | tuple[int, int]] | None = None,
        edges: Edges | None = None,
        boundary: str | Mapping[str, str] = "clip",
        fill: float = 0.0,
        checkpoint: int = 0,
        seed: int = 0,
        name: str = "",
        **params: Any,
    ) -> Collection:
        """The kernel step after step, all columns replaced by what it gives.

        Args:
            kernel: one input and one output a column; inputs are windows ("(x)->()") or neighbours' values ("(n)->()").
            steps: how many.
            halo: the window, as in `stencil`; or
            edges: which cells each reads, by rule.
            boundary: as in `stencil`.
            fill: as in `stencil`.
            checkpoint: keep the state after each so many steps; 0: about every half minute.
            seed: as in `map`.
            name: as in `map`.
            params: as in `map`.
        """
        if (halo is None) == (edges is None):
            raise ParameterError("iterate needs either a halo or edges")
        op = self.op
        neighbours = edges if edges is not None else ops_windows.halo_of(op, halo or {}, boundary)
        given: dict[str, Any] = {"params": params, "fill": fill, "keep": checkpoint, "seed": seed, "name": name}
        return Collection.of(ops_windows.iterate(kernel, op, steps, neighbours, **given), self.coords)

    def reduce(self, how: str | Reduction, dims: str | Sequence[str] = (), **options: Any) -> Collection:
        """All columns reduced over dimensions (all of them where none is named).

        Args:
            how: sum, count, mean, var, std, min, max, argmin, argmax, any, all, first, last, histogram, topk,
                quantile; or your own, made by `grid.reduction`.
            dims: reduced dimensions.
            options: of the reduction, such as `skipna`, `ddof`, `bins`, `k`, `q`. Of sum and mean also `weights`: a
                collection along one or more of the dimensions, an array for the only one, or `{"lat": array}`.
        """
        over = [dims] if isinstance(dims, str) else list(dims)
        if options.get("weights") is not None:
            return self._weighted(how, over, **options)
        return self.reduced(reducing.chosen(how, options), over)

    def reduced(self, how: Reduction, dims: Sequence[str], group: tuple[Coordinate, Array] | None = None) -> Collection:
        """All columns reduced, into the groups of one dimension where they are given; see `reduce` and `groupby`."""
        made = [reducing.reduced(ref, name, how, dims, group) for name, ref in self.columns.items()]
        new = [Coordinate(dim, dim, np.asarray(labels)) for dim, labels in how.coords]
        coords = [*([group[0]] if group else []), *without(self.coords, dims), *new]
        return Collection({f.name: (op, f.name) for op in made for f in op.fields}, coords)

    def groupby(
        self, by: str | Collection | Sequence[str] | Sequence[int] | np.ndarray[Any, Any], dim: str | None = None
    ) -> reducing.GroupBy[Collection]:
        """Positions of a dimension in groups, `groupby("time.month").mean()`; or rows, `groupby("station").max()`.

        Args:
            by: part of a time coordinate, a coordinate's name, or one label a position. For rows the name of a column
                or several, or a computed column of the same rows, whose groups are then called "group": the result has
                a row for each distinct key, in their order. Rows whose key is null or NaN are left out.
            dim: the dimension, where `by` holds labels.
        """
        if isinstance(by, Collection):
            own = next((name for name, ref in self.columns.items() if ref == by._one()), "")
            if not own and "group" in self.columns:
                raise ParameterError("groupby would give two columns 'group'", hint="rename the column first")
            return self.assign(**{own or "group": by}).groupby([own or "group"])
        keys = reducing.group_keys(by, self.columns, self.coords, dim)
        if keys:
            return reducing.GroupBy(lambda how: Collection.of(ops_rows.group_rows(self.op, keys, how)))
        over, groups, codes = reducing.group_codes(by, self.coords, self.space, dim)
        return reducing.GroupBy(lambda how: self.reduced(how, [over], (groups, codes)))

    def write(self, url: str, *, format: str | None = None, overwrite: bool = False, **options: Any) -> Destined:
        """Keep the columns in their own format: Zarr (`.zarr`), Parquet (`.parquet`), Arrow (`.arrow`) or BAM (`.bam`).

        Args:
            url: path or fsspec URL of the output.
            format: "zarr", "parquet", "arrow" or "bam", where the name doesn't say.
            overwrite: replace what another recipe left there.
            options: of the format and the file system.
        """
        sink = open_sink(url, format=format, **options)
        op = self.op
        name = f"write {str(sink.url).rsplit('/', 1)[-1]}"
        written = Op(Write.of(sink, op.fields), (op,), (Point,), op.space, op.fields, name)
        return Destined(written, self.coords, sink, overwrite)
