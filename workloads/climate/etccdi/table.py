"""The 27 core indices: what they are, which series they need, and which kernel gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .kernels import both_temperatures, percentile_days, precipitation, temperature_counts

SERIES = {"tx": "daily maximum temperature", "tn": "daily minimum temperature", "pr": "daily precipitation"}


class Index(NamedTuple):
    """One index.

    Attributes:
        about: what it is.
        units: of its values.
        needs: the series that it is made from.
        methods: CF cell_methods.
    """

    about: str
    units: str
    needs: tuple[str, ...]
    methods: str


def _over(needs: str, methods: str, units: str, **about: str) -> dict[str, Index]:
    return {name: Index(text, units, tuple(needs.split()), methods) for name, text in about.items()}


_DAYS = "time: sum"
INDICES = {
    **_over("tn", _DAYS, "days", fd="frost days: minimum below 0 degC"),
    **_over("tx", _DAYS, "days", su="summer days: maximum above 25 degC", id="icing days: maximum below 0 degC"),
    **_over("tn", _DAYS, "days", tr="tropical nights: minimum above 20 degC"),
    **_over("tx tn", _DAYS, "days", gsl="growing season length"),
    **_over("tx", "time: maximum", "degC", txx="highest daily maximum"),
    **_over("tn", "time: maximum", "degC", tnx="highest daily minimum"),
    **_over("tx", "time: minimum", "degC", txn="lowest daily maximum"),
    **_over("tn", "time: minimum", "degC", tnn="lowest daily minimum"),
    **_over("tn", "time: mean", "%", tn10p="cold nights: minimum below its 10th percentile"),
    **_over("tx", "time: mean", "%", tx10p="cold days: maximum below its 10th percentile"),
    **_over("tn", "time: mean", "%", tn90p="warm nights: minimum above its 90th percentile"),
    **_over("tx", "time: mean", "%", tx90p="warm days: maximum above its 90th percentile"),
    **_over("tx", _DAYS, "days", wsdi="days in warm spells: six or more warm days in a row"),
    **_over("tn", _DAYS, "days", csdi="days in cold spells: six or more cold nights in a row"),
    **_over("tx tn", "time: mean", "degC", dtr="mean daily temperature range"),
    **_over("pr", "time: maximum", "mm", rx1day="highest precipitation of a day",
            rx5day="highest precipitation of five days in a row"),
    **_over("pr", "time: mean", "mm day-1", sdii="mean precipitation of wet days"),
    **_over("pr", _DAYS, "days", r10mm="days of 10 mm or more", r20mm="days of 20 mm or more",
            rnnmm="days of a given amount or more"),
    **_over("pr", "time: maximum", "days", cdd="longest dry spell", cwd="longest wet spell"),
    **_over("pr", "time: sum", "mm", r95ptot="precipitation of very wet days, above the 95th percentile",
            r99ptot="precipitation of extremely wet days, above the 99th percentile",
            prcptot="precipitation of wet days"),
}  # fmt: skip
"""All of them, in ETCCDI's order."""


@dataclass(frozen=True)
class Group:
    """Indices that one kernel gives together.

    Attributes:
        function: the kernel's.
        signature: of the kernel, for a time dimension of that name.
        names: one index an output.
        given: its parameters apart from days and scales.
    """

    function: Any
    signature: str
    names: tuple[str, ...]
    given: tuple[tuple[str, Any], ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The series that it takes."""
        return INDICES[self.names[0]].needs


_COUNTS = "(time)->(year),(year),(month),(month)"
_PERCENTILES = "(time)->(month),(month),(year)"
GROUPS = (
    Group(temperature_counts, _COUNTS, ("su", "id", "txx", "txn"), (("hot", 25.0), ("cold", 0.0))),
    Group(temperature_counts, _COUNTS, ("tr", "fd", "tnx", "tnn"), (("hot", 20.0), ("cold", 0.0))),
    Group(percentile_days, _PERCENTILES, ("tx10p", "tx90p", "wsdi"), (("warm", True),)),
    Group(percentile_days, _PERCENTILES, ("tn10p", "tn90p", "csdi"), (("warm", False),)),
    Group(both_temperatures, "(time),(time),()->(month),(year)", ("dtr", "gsl")),
    Group(precipitation, "(time)->(month),(month)" + ",(year)" * 9,
          ("rx1day", "rx5day", "sdii", "r10mm", "r20mm", "rnnmm", "cdd", "cwd", "r95ptot", "r99ptot", "prcptot")),
)  # fmt: skip
