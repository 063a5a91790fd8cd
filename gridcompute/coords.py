"""Coordinates: what the positions along a dimension are called. Small, read when data is opened, exact.

>>> month = Coordinate("month", "month", np.arange(1, 13))
>>> select(month, slice(3, 5))
range(2, 5)
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gridcompute.calendar import (
    ALIASES,
    DAY,
    GREGORIAN_START,
    TimeUnit,
    counted,
    dates_of,
    days_of,
    instant_of,
)
from gridcompute.errors import AlignmentError, ParameterError

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, Any]
Component = Literal["year", "month", "day", "dayofyear", "season", "hour", "minute", "second"]
SEASONS = ("DJF", "MAM", "JJA", "SON")
"""Names of the codes 0 to 3 that `components(..., "season")` gives."""

_PARTIAL = re.compile(r"^(-?\d{4,6})(?:-(\d{1,2})(?:-(\d{1,2}))?)?$")


@dataclass(frozen=True, eq=False)
class Coordinate:
    """One value per position of one dimension.

    Attributes:
        dim: the dimension.
        name: the coordinate's name; equal to `dim` for the dimension's own coordinate.
        values: one-dimensional; numbers, booleans or NumPy strings; times as int64 counts of `unit`.
        unit: CF time unit such as "hours since 1970-01-01", empty where the values aren't times.
        calendar: CF calendar of a time, else empty.
        attrs: attributes as sorted pairs of name and JSON text (without a time's unit and calendar).

    Raises:
        ParameterError: values of more than one dimension or of another type, or an unreadable unit.
    """

    dim: str
    name: str
    values: Array
    unit: str = ""
    calendar: str = ""
    attrs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 1 or values.dtype.kind not in "biufU":
            raise ParameterError(
                f"coordinate {self.name!r} has {values.ndim} dimensions of {values.dtype}",
                hint="a coordinate is one-dimensional: numbers, booleans or strings; times are int64",
            )
        if self.unit:
            if values.dtype.kind not in "iu" or TimeUnit.parse(self.unit, self.calendar) is None:
                raise ParameterError(
                    f"coordinate {self.name!r}: {values.dtype}, {self.unit!r}, {self.calendar!r} is no time",
                    hint="times are integers of 'UNIT since DATE' in a CF calendar",
                )
            values = values.astype(np.int64, copy=False)
        object.__setattr__(self, "values", values)

    @property
    def is_time(self) -> bool:
        """Whether the values are times."""
        return bool(self.unit)

    @cached_property
    def time_unit(self) -> TimeUnit:
        """The parsed unit of a time."""
        unit = TimeUnit.parse(self.unit, self.calendar) if self.unit else None
        if unit is None:
            raise ParameterError(f"coordinate {self.name!r} isn't a time",
                                 hint="its values are plain labels, or dates of which some are missing")
        return unit

    @cached_property
    def micros(self) -> Array:
        """A time's instants: int64 microseconds since 1970-01-01 of its calendar."""
        instants: Array = self.time_unit.micros(self.values)
        return instants

    @cached_property
    def key(self) -> str:
        """Digest of the content."""
        values = self.values
        plain = values.tolist() if values.dtype.kind == "U" else values.dtype.newbyteorder("<").str
        head = [self.dim, self.name, plain, len(values), self.unit, self.calendar, self.attrs]
        state = hashlib.sha256(json.dumps(head).encode())
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
        if values.dtype.kind != "U":
            state.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
        return state.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coordinate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __len__(self) -> int:
        return len(self.values)

    def taken(self, index: slice | range | Array) -> Coordinate:
        """The coordinate of chosen positions."""
        return replace(self, values=self.values[np.asarray(index) if isinstance(index, range) else index])

    def renamed(self, dim: str, name: str | None = None) -> Coordinate:
        """The same labels on another dimension (and, if given, under another name)."""
        own = dim if self.name == self.dim else self.name
        return replace(self, dim=dim, name=name or own)

    def labels(self) -> Array:
        """Values as users write them: times as datetime64[us], or cftime objects where those don't reach."""
        if not self.is_time:
            return self.values
        calendar = self.time_unit.calendar
        if calendar == "proleptic_gregorian" or (
            calendar == "standard" and (not len(self.values) or int(self.micros.min()) >= GREGORIAN_START)
        ):
            return self.micros.astype("datetime64[us]")
        import cftime

        year, month, day, hour, minute, second, micro = _fields(self.micros, calendar)
        columns = zip(*(part.tolist() for part in (year, month, day, hour, minute, second, micro)), strict=True)
        out = np.empty(len(self.values), object)
        out[:] = [cftime.datetime(*parts, calendar=calendar) for parts in columns]
        return out

    def to_xarray(self) -> xr.Variable:
        """The coordinate as xarray reads it from a file (times decoded)."""
        import xarray as xr

        attrs: dict[str, Any] = {name: json.loads(text) for name, text in self.attrs}
        if not self.is_time and not str(attrs.get("dtype", "")).startswith("timedelta64"):
            return xr.Variable((self.dim,), self.values, attrs)
        times = {"units": self.unit, "calendar": self.calendar} if self.is_time else {}
        raw = xr.Variable((self.dim,), self.values, {**attrs, **times})
        return xr.conventions.decode_cf_variable(self.name, raw)

    @classmethod
    def from_xarray(cls, name: str, variable: Any) -> Coordinate | None:
        """Take a one-dimensional xarray variable, decoded or not; None where its type can't be held.

        CF times become int64: float counts are taken in the coarsest unit that gives them back exactly, to
        microseconds at least. Times with gaps stay plain numbers.
        """
        import xarray as xr

        variable = variable.variable if hasattr(variable, "variable") else variable
        if variable.ndim != 1:
            return None
        values = np.asarray(variable.values)
        attrs = dict(variable.attrs)
        if values.dtype.kind in "mM" or (values.dtype == object and _holds_dates(values)):
            encoded = xr.conventions.encode_cf_variable(xr.Variable(variable.dims, values, attrs, variable.encoding))
            values, attrs = np.asarray(encoded.values), dict(encoded.attrs)
            attrs.pop("_FillValue", None)
        elif values.dtype == object or values.dtype.kind == "T":
            if not all(isinstance(value, str) for value in values.tolist()):
                return None
            values = np.asarray(values.tolist(), dtype="U") if len(values) else np.empty(0, "U1")
        return cls.of_cf(variable.dims[0], name, values, attrs)

    @classmethod
    def of_cf(cls, dim: str, name: str, values: Array, attrs: Mapping[str, Any]) -> Coordinate | None:
        """Take values with CF attributes (units, calendar); None where their type can't be held."""
        values = np.asarray(values)
        if values.dtype.kind not in "biufU" or values.dtype == np.float16:
            return None
        rest = {key: value for key, value in attrs.items() if key not in ("units", "calendar")}
        unit = TimeUnit.parse(str(attrs.get("units", "")), str(attrs.get("calendar", "standard")))
        times = None if unit is None or values.dtype.kind not in "iuf" else counted(values, unit)
        if times is None:
            return cls(dim, name, values, attrs=packed(attrs))
        written = str(times[1]) if times[1] != unit else str(attrs["units"])
        return cls(dim, name, times[0], written, str(attrs.get("calendar", "standard")), packed(rest))


def packed(attrs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Attributes as sorted pairs of name and JSON text; what JSON can't say becomes its text."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def listed(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

    return tuple(sorted((str(name), json.dumps(listed(value), default=plain)) for name, value in attrs.items()))


def _holds_dates(values: Array) -> bool:
    import cftime

    return len(values) > 0 and isinstance(values[0], cftime.datetime | datetime.datetime)


def _fields(micros: Array, calendar: str) -> tuple[Array, ...]:
    days, rest = np.divmod(micros, DAY)
    year, month, day = dates_of(days, calendar)
    if calendar in ("standard", "julian"):
        year = np.where(year <= 0, year - 1, year)  # these have no year zero
    second, micro = np.divmod(rest, 1_000_000)
    return year, month, day, second // 3600, second // 60 % 60, second % 60, micro


def components(coordinate: Coordinate, what: Component) -> Array:
    """A part of each date of a time coordinate, int64, right in every CF calendar.

    Month, day and dayofyear count from 1, hour, minute and second from 0; seasons are 0 to 3 for DJF, MAM, JJA and SON.

    Raises:
        ParameterError: the coordinate isn't a time, or `what` isn't one of these parts.
    """
    calendar = coordinate.time_unit.calendar
    year, month, day, hour, minute, second, _ = _fields(coordinate.micros, calendar)
    if what == "dayofyear":
        days = np.floor_divide(coordinate.micros, DAY)
        first = np.ones_like(days)
        new_year: Array = days_of(dates_of(days, calendar)[0], first, first, calendar)
        return days - new_year + 1
    parts = {"year": year, "month": month, "day": day, "hour": hour, "minute": minute, "second": second}
    parts["season"] = month % 12 // 3
    if what not in parts:
        raise ParameterError(f"{what!r} is no part of a date", hint=f"choose from {', '.join(parts)}, dayofyear")
    return parts[what].astype(np.int64)


def select(coordinate: Coordinate, label: Any) -> int | range:
    """Positions of a label, or of a slice of labels with both ends included.

    Times take ISO text, datetime, datetime64 or cftime; text that names a whole year, month or day (and isn't
    itself a label) selects all of it. Float labels are compared in the coordinate's own precision.

    Raises:
        ParameterError: the label isn't there, stands twice, or a slice of labels that aren't in order.
    """
    values = coordinate.micros if coordinate.is_time else coordinate.values
    if isinstance(label, slice):
        return _between(coordinate, values, label)
    low, high = _interval(coordinate, label)
    found = np.flatnonzero(values == low)
    if len(found) == 1 and (low == high or ((values % DAY == 0).all() and high - low == DAY - 1)):
        return int(found[0])
    if low != high:
        found = np.flatnonzero((values >= low) & (values <= high))
        if len(found) and len(found) == found[-1] - found[0] + 1:
            return range(int(found[0]), int(found[-1]) + 1)
    where = "nowhere" if not len(found) else f"{len(found)} times"
    raise ParameterError(f"{label!r} stands {where} in coordinate {coordinate.name!r}", hint=_near(coordinate, low))


def _between(coordinate: Coordinate, values: Array, label: slice) -> range:
    steps = values[1:] >= values[:-1]
    rising, falling = bool(steps.all()), bool((values[1:] <= values[:-1]).all())
    if not (rising or falling):
        raise ParameterError(
            f"coordinate {coordinate.name!r} isn't in order, so a slice of it means nothing",
            hint="select single labels, or positions by isel",
        )
    first = None if label.start is None else _interval(coordinate, label.start)
    last = None if label.stop is None else _interval(coordinate, label.stop)
    keys, side = (values, 1) if rising else (values[::-1], -1)
    if side < 0:
        first, last = last, first
    start = 0 if first is None else int(np.searchsorted(keys, first[0], "left"))
    stop = len(keys) if last is None else int(np.searchsorted(keys, last[1], "right"))
    if side < 0:
        start, stop = len(keys) - stop, len(keys) - start
    if label.step is not None and (not isinstance(label.step, int) or label.step < 1):
        raise ParameterError(f"the step {label.step!r} of a slice isn't a positive whole number")
    return range(start, max(start, stop), label.step or 1)


def _interval(coordinate: Coordinate, label: Any) -> tuple[Any, Any]:
    """First and last value that a label may mean."""
    kind = coordinate.values.dtype.kind
    if coordinate.is_time:
        return _instants(coordinate, label)
    right = isinstance(label, str | np.str_) if kind == "U" else isinstance(label, int | float | np.number | np.bool_)
    if not right:
        raise ParameterError(f"coordinate {coordinate.name!r} holds {coordinate.values.dtype}, not {label!r}")
    cast = coordinate.values.dtype.type(label) if kind == "f" else label
    return cast, cast


def _instants(coordinate: Coordinate, label: Any) -> tuple[int, int]:
    calendar = coordinate.time_unit.calendar
    if isinstance(label, np.datetime64):
        label = str(label.astype("datetime64[us]"))
    elif hasattr(label, "isoformat"):
        other = ALIASES.get(getattr(label, "calendar", calendar) or "standard", "")
        if other != calendar and {other, calendar} != {"standard", "proleptic_gregorian"}:
            raise ParameterError(f"{label!r} is of calendar {other!r}, coordinate {coordinate.name!r} of {calendar!r}")
        label = label.isoformat()
    if not isinstance(label, str):
        raise ParameterError(f"coordinate {coordinate.name!r} holds times, not {label!r}", hint="write '2001-05-01'")
    start = instant_of(label, calendar)
    if start is None:
        raise ParameterError(f"{label!r} isn't a date of calendar {calendar!r}", hint="write '2001-05-01'")
    match = _PARTIAL.match(label.strip())
    if match is None:
        return start, start
    year, month = int(match[1]), int(match[2] or 1)
    if match[3] is not None:
        return start, start + DAY - 1
    year, month = (year + 1, 1) if match[2] is None or month == 12 else (year, month + 1)
    one = np.array([1])
    return start, int(days_of(np.array([year]), np.array([month]), one, calendar)[0]) * DAY - 1


def _near(coordinate: Coordinate, value: Any) -> str:
    values, labels = coordinate.micros if coordinate.is_time else coordinate.values, coordinate.labels()
    if not len(values):
        return "the coordinate is empty"
    if values.dtype.kind not in "iuf":
        return "its labels begin " + ", ".join(map(repr, labels[:8].tolist()))
    nearest = int(np.argmin(np.abs(values.astype(float) - float(value))))
    return f"the nearest label is {labels[nearest]}, at position {nearest}"


def difference(a: Coordinate, b: Coordinate) -> str:
    """Why two coordinates don't name the same positions, as words; empty where they do.

    Names, attributes and types don't count, nor does a time's unit: only the labels do.
    """
    if len(a) != len(b):
        return f"{len(a)} labels here and {len(b)} there"
    if a.is_time != b.is_time:
        return "times here, plain labels there" if a.is_time else "plain labels here, times there"
    x, y = (a.micros, b.micros) if a.is_time else (a.values, b.values)
    if a.is_time and a.time_unit.calendar != b.time_unit.calendar:
        real = {"standard", "proleptic_gregorian"}  # the same dates from 1582-10-15 on
        if {a.time_unit.calendar, b.time_unit.calendar} != real or min(
            x.min(initial=0), y.min(initial=0)
        ) < GREGORIAN_START:
            return f"calendar {a.calendar!r} here and {b.calendar!r} there"
    if (x.dtype.kind == "U") != (y.dtype.kind == "U"):
        return f"{x.dtype} here and {y.dtype} there"
    differ = x != y
    if x.dtype.kind == "f" and y.dtype.kind == "f":
        differ &= ~(np.isnan(x) & np.isnan(y))
    if not differ.any():
        return ""
    i = int(np.flatnonzero(differ)[0])
    return f"at position {i}, {a.labels()[i]} here and {b.labels()[i]} there"


def aligned(a: Coordinate, b: Coordinate) -> bool:
    """Whether two coordinates name the same positions (see `difference`)."""
    return not difference(a, b)


def concatenated(parts: Sequence[Coordinate]) -> Coordinate:
    """Coordinates end to end; times in the first's unit, or in a finer one where that isn't exact.

    Raises:
        AlignmentError: parts of different calendars or types.
    """
    first = parts[0]
    if not first.is_time:
        if len({part.values.dtype.kind == "U" for part in parts}) > 1 or any(part.is_time for part in parts):
            raise AlignmentError(f"coordinate {first.name!r} isn't of one type in all parts")
        return replace(first, values=np.concatenate([part.values for part in parts]))
    for part in parts:
        if not part.is_time or part.time_unit.calendar != first.time_unit.calendar:
            raise AlignmentError(f"coordinate {first.name!r} isn't of calendar {first.calendar!r} in all parts")
    if len({part.unit for part in parts}) == 1:
        return replace(first, values=np.concatenate([part.values for part in parts]))
    micros = np.concatenate([part.micros for part in parts])
    for unit in first.time_unit.finer():
        counts = np.floor_divide(micros - unit.origin, max(1, int(unit.size)))
        if (unit.micros(counts) == micros).all():
            return replace(first, values=counts, unit=str(unit))
    raise AlignmentError(f"the times of coordinate {first.name!r} have no common unit")
