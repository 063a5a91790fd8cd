"""The CF attributes of what a reduction gives: `cell_methods` with what it did, the unit that it left.

>>> import numpy as np
>>> attrs = (("standard_name", '"air_temperature"'), ("units", '"K"'))
>>> dict(described("mean", Field("tas", ("time",), np.dtype("f4"), attrs=attrs), ("time",)))["cell_methods"]
'"time: mean"'
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from gridcompute.columns import Field
from gridcompute.coords import packed
from gridcompute.times import time_attrs

Attrs = tuple[tuple[str, str], ...]
METHODS = {"mean": "mean", "sum": "sum", "min": "minimum", "max": "maximum", "std": "standard_deviation",
           "var": "variance", "first": "point", "last": "point"}  # fmt: skip
"""CF's name of each reduction that has one."""

_CF = ("units", "standard_name", "long_name", "cell_methods")
_OF_VALUES = ("actual_range", "valid_range", "valid_min", "valid_max", "ancillary_variables", "cell_measures")
_SIMPLE = re.compile(r"[A-Za-z]+|1")


def described(name: str, field: Field, over: Sequence[str]) -> Attrs:
    """Attributes of a column reduced over dimensions; none where the column has none of CF's, or counts times.

    What would no longer be true (ranges of the values) goes. A count has the unit 1, a variance the unit's square.
    A reduction that CF has no name for keeps nothing, as what it gives may be of any kind; a quantile keeps the unit.
    `name` is that of the reduction, or of one of its results.
    """
    attrs = {key: json.loads(text) for key, text in field.attrs}
    if not any(key in attrs for key in _CF) or time_attrs(field):
        return ()
    if name == "count":
        return packed({"units": "1"})
    if name == "quantile":
        return packed({key: attrs[key] for key in ("units", "standard_name", "long_name") if key in attrs})
    if name not in METHODS:
        return ()
    kept = {key: value for key, value in attrs.items() if key not in _OF_VALUES}
    if name == "var" and "units" in kept:
        kept["units"] = _squared(str(kept["units"]))
    done = f"{''.join(f'{dim}: ' for dim in over)}{METHODS[name]}"
    kept["cell_methods"] = " ".join(filter(None, [_said(kept), done]))
    return packed(kept)


def _said(attrs: dict[str, Any]) -> str:
    return str(attrs.get("cell_methods", "")).strip()


def _squared(unit: str) -> str:
    if unit == "1":
        return unit
    return f"{unit}2" if _SIMPLE.fullmatch(unit) else f"({unit})2"
