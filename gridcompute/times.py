"""Columns of times: whole numbers, whose CF attributes say what they count. One rule for files of every format.

Numbers with the unit "seconds since 1970-01-01" are dates of a calendar; numbers with a unit of time and the
attribute dtype "timedelta64[s]" (by which xarray marks them too) are durations, with "time64[us]" times of day.
Kernels and arithmetic see the numbers. Results and tables show them as NumPy's and Arrow's own times where these
say the same: durations, and whole numbers that count dates of the proleptic Gregorian calendar. Dates with a time
zone are instants: they count from 1970-01-01 UTC.

>>> import numpy as np
>>> from gridcompute.columns import Field
>>> unit = (("calendar", '"proleptic_gregorian"'), ("units", '"hours since 1970-01-01 12:00"'))
>>> kind = TimeType.of(Field("t", ("row",), np.dtype("i4"), attrs=unit))
>>> kind.to_numpy(np.array([0, 13], "i4")).astype(str).tolist()
['1970-01-01T12:00:00', '1970-01-02T01:00:00']
"""

from __future__ import annotations

import datetime
import json
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from gridcompute.calendar import TimeUnit, instant_of
from gridcompute.columns import Array, Field
from gridcompute.errors import ParameterError

Attrs = tuple[tuple[str, str], ...]

UNITS = {"D": "days", "h": "hours", "m": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
         "ns": "nanoseconds"}  # fmt: skip
"""CF's names of NumPy's units."""

_NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_OWN = ("calendar", "dtype", "timezone", "units")
_SHIFT = re.compile(r"[+-]\d\d:\d\d")
_LENGTH = re.compile(r"(timedelta64|time32|time64)(?:\[\w+\])?")


def date_attrs(unit: str, timezone: str | None = None) -> Attrs:
    """Attributes of counts of NumPy's `unit` since 1970-01-01."""
    zone = (("timezone", json.dumps(timezone)),) if timezone else ()
    return (("calendar", '"proleptic_gregorian"'), *zone, ("units", f'"{UNITS[unit]} since 1970-01-01"'))


def length_attrs(unit: str, kind: str = "timedelta64") -> Attrs:
    """Attributes of durations (or times of day, of the kind "time32" or "time64") counted in NumPy's `unit`."""
    return (("dtype", f'"{kind}[{unit if unit in _NANOS else "s"}]"'), ("units", f'"{UNITS[unit]}"'))


def time_attrs(field: Field) -> Attrs:
    """Those attributes that make a column's numbers times; none where they are plain numbers."""
    if field.kind == "string" or field.dtype.kind not in "iuf" or _unit(field.attrs) is None:
        return ()
    return tuple((name, text) for name, text in field.attrs
                 if name in _OWN and (name != "dtype" or _LENGTH.fullmatch(str(json.loads(text)))))


def _unit(attrs: Attrs) -> TimeUnit | None:
    """The unit that is counted, durations as if they began at 1970-01-01."""
    said = {name: json.loads(text) for name, text in attrs if name in _OWN}
    units = said.get("units")
    if not isinstance(units, str):
        return None
    if _LENGTH.fullmatch(str(said.get("dtype"))):
        return TimeUnit.parse(f"{units} since 1970-01-01", "proleptic_gregorian")
    return TimeUnit.parse(units, str(said.get("calendar", "standard")))


@cache
def _is_zone(name: str) -> bool:
    """Whether Arrow and pandas know a zone: a file may have any text in an attribute of that name."""
    try:
        return bool(_SHIFT.fullmatch(name) or (name and zoneinfo.ZoneInfo(name)))
    except (ValueError, OSError, KeyError):
        return False


def _are_dates(attrs: Attrs) -> bool:
    return bool(attrs) and not any(name == "dtype" for name, _ in attrs)


@dataclass(frozen=True)
class TimeType:
    """The type by which NumPy and Arrow show a column of times.

    Attributes:
        kind: "timestamp", "date32", "duration", "time32" or "time64", as Arrow calls it.
        unit: NumPy's name of its unit.
        timezone: of timestamps, or empty.
        factor: how many of the unit one count is.
        offset: the count 0, in the unit.
    """

    kind: str
    unit: str
    timezone: str = ""
    factor: int = 1
    offset: int = 0

    @classmethod
    def of(cls, field: Field) -> TimeType | None:
        """The type of a column; None where it holds plain numbers, fractions, or dates of another calendar."""
        attrs = dict(time_attrs(field))
        counted = _unit(field.attrs) if attrs else None
        if counted is None or field.dtype.kind not in "iu" or field.dtype == np.uint64:
            return None
        mark = _LENGTH.fullmatch(str(json.loads(attrs.get("dtype", '""'))))
        if mark is None and counted.calendar != "proleptic_gregorian":
            return None
        if mark is None and field.dtype == np.int32 and counted.name == "days" and not counted.origin:
            return cls("date32", "D")
        size, origin = counted.size * 1000, counted.origin * 1000
        unit = next(u for u, nanos in _NANOS.items() if not size % nanos and not origin % nanos)
        kind = "timestamp" if mark is None else "duration" if mark[1] == "timedelta64" else mark[1]
        if kind.startswith("time") and mark is not None and (kind == "time32") != (field.dtype == np.int32):
            return None
        zone = str(json.loads(attrs.get("timezone", '""')))
        return cls(kind, unit, zone if _is_zone(zone) else "", int(size) // _NANOS[unit], origin // _NANOS[unit])

    @property
    def storage(self) -> np.dtype[Any]:
        """The integers that Arrow keeps for it."""
        return np.dtype(np.int32 if self.kind in ("date32", "time32") else np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's type: dates as datetime64 (of UTC), durations and times of day as timedelta64."""
        return np.dtype(f"{'M' if self.kind in ('timestamp', 'date32') else 'm'}8[{self.unit}]")

    def counts(self, values: Array, valid: Array | None = None, name: str = "") -> Array:
        """A column's numbers in the type's own unit, as `storage`; zero under nulls where they were converted.

        Raises:
            ParameterError: a number beyond what the type holds.
        """
        if self.factor == 1 and not self.offset:
            return values.astype(self.storage, copy=False)
        wide = values.astype(np.int64) if valid is None else np.where(valid, values, 0).astype(np.int64)
        most = (2**63 - 1 - abs(self.offset)) // self.factor
        if wide.size and (int(wide.max()) > most or int(wide.min()) < -most):
            raise ParameterError(f"column {name!r} counts times beyond what {self.dtype} holds",
                                 hint="drop what isn't a time first")
        return wide * self.factor + self.offset

    def to_numpy(self, values: Array, valid: Array | None = None, name: str = "") -> Array:
        """A column's numbers as datetime64 or timedelta64, NaT under nulls."""
        times = self.counts(values, valid, name).astype(np.int64, copy=False).view(self.dtype)
        return times if valid is None else np.where(valid, times, self.dtype.type("NaT"))


Moment = np.datetime64 | np.timedelta64 | datetime.date | datetime.timedelta | str
"""A date (also as ISO text) or a duration, beside a column of times."""


def counted(value: Any, field: Field) -> tuple[int | float, Attrs]:
    """A date, a duration or ISO text as a number of a column's unit, and the attributes that this number has.

    Raises:
        ParameterError: the column holds no times, or the calendar has no such date.
    """
    attrs = time_attrs(field)
    unit = _unit(attrs)
    if unit is None:
        raise ParameterError(f"column {field.name!r} holds no times to go with {value!r}",
                             hint="use a number or a collection")
    for name in ("to_datetime64", "to_timedelta64"):  # pandas' own, which count nanoseconds
        value = getattr(value, name)() if hasattr(value, name) else value
    if isinstance(value, np.datetime64 | np.timedelta64) and np.isnat(value):
        raise ParameterError("NaT is no time to compare or compute with", hint="isnull() finds the gaps")
    if isinstance(value, np.timedelta64 | datetime.timedelta):
        nanos, origin = _nanos(np.timedelta64(value)), 0
        own: Attrs = (("dtype", '"timedelta64[s]"'), ("units", json.dumps(unit.name)))
    else:
        if not _are_dates(attrs):
            raise ParameterError(f"column {field.name!r} holds durations, {value!r} is a date",
                                 hint="compare it with a timedelta")
        nanos, origin, own = _instant(value, unit), unit.origin * 1000, attrs
    count = Fraction(nanos - origin) / (unit.size * 1000)
    return (int(count) if count.denominator == 1 else float(count)), own


COMPARED = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def require_moment(number: float, *fields: Field) -> None:
    """Refuse to compare a plain number with columns of which one holds times (ParameterError)."""
    for field in fields:
        if attrs := time_attrs(field):
            hint = 'write a date: "2005-01-01"' if _are_dates(attrs) else 'write a duration: np.timedelta64(3, "h")'
            raise ParameterError(f"column {field.name!r} counts {_name(attrs, True)}: {number!r} is no time", hint=hint)


def _nanos(value: np.timedelta64) -> int:
    unit, many = np.datetime_data(value.dtype)
    if unit not in UNITS and unit != "W":
        raise ParameterError(f"{value!r} has no fixed length", hint="write it in days or a smaller unit")
    size = _NANOS.get(unit) or int(np.timedelta64(1, unit) / np.timedelta64(1, "ns"))  # type: ignore[call-overload]
    return int(value.astype(np.int64)) * many * size


def _instant(value: Any, unit: TimeUnit) -> int:
    """Nanoseconds since 1970-01-01 of the unit's calendar."""
    rest = 0
    if isinstance(value, np.datetime64):
        if np.datetime_data(value.dtype)[0] == "ns":
            rest = int(value.astype(np.int64)) * np.datetime_data(value.dtype)[1] % 1000
        text = str(value.astype("datetime64[us]"))
    else:
        text = value if isinstance(value, str) else value.isoformat()
    micros = instant_of(text, unit.calendar)
    if micros is None:
        raise ParameterError(f"{value!r} isn't a date of calendar {unit.calendar!r}", hint="write '2001-05-01'")
    return micros * 1000 + rest


def result_attrs(ufunc: str, operands: Sequence[Attrs], whole: bool) -> Attrs:
    """What arithmetic over times gives: the attributes of its result, none where that is a plain number.

    Dates differ by durations, and move by durations or by plain numbers of their unit; durations add up and scale.

    Args:
        ufunc: the function.
        operands: the time attributes of each operand.
        whole: whether the result is a whole number.

    Raises:
        ParameterError: two times of different units or calendars, or a sum of dates.
    """
    first, second = operands if len(operands) == 2 else (operands[0], ())
    dates = (_are_dates(first), _are_dates(second))
    if first and second and ufunc not in ("multiply", "logical_and", "logical_or"):
        alike = ufunc in ("add", "subtract") and dates[0] != dates[1]
        if _name(first) != _name(second) or (not alike and _origin(first) != _origin(second)):
            raise ParameterError(
                f"{ufunc} doesn't go with times counted in {_name(first, True)} and {_name(second, True)}",
                hint="convert one of the columns by a kernel first",
            )
    if ufunc == "add" and all(dates):
        raise ParameterError("dates can't be added up", hint="subtract one, or add a duration")
    if ufunc == "subtract" and first and dates == (False, True):
        raise ParameterError("a date can't be subtracted from a duration", hint="swap them")
    if not whole:
        return ()
    if ufunc in ("add", "subtract"):
        if ufunc == "subtract" and dates[1]:
            short = next((short for short, name in UNITS.items() if name == _name(second)), None)
            return length_attrs(short) if first and short else ()
        return second if dates[1] else first or second
    if any(dates) or (first and second and ufunc != "remainder") or (second and ufunc != "multiply"):
        return ()
    return first or second if ufunc in ("negative", "absolute", "multiply", "floor_divide", "remainder") else ()


def _origin(attrs: Attrs) -> object:
    unit = _unit(attrs)
    return unit and (_are_dates(attrs), unit.origin, unit.calendar)


def _name(attrs: Attrs, full: bool = False) -> str:
    unit = _unit(attrs)
    return "" if unit is None else str(unit) if full and _are_dates(attrs) else unit.name
