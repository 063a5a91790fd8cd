"""gridcompute: batch computing for scientific grids.

    import gridcompute as grid

    @grid.kernel("(time)->(),()", names=("tau", "slope"))
    def trend(series):
        return grid.stats.kendall_tau(series), grid.stats.sen_slope(series)

    t2m = grid.open_dataset("A1B_north_america.nc")["air_temperature"]
    run = grid.run(t2m.map(trend).write("trend.zarr"))

Names are imported when they are first used, so that `import gridcompute` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gridcompute.accessor import watch_for_xarray

if TYPE_CHECKING:
    from gridcompute import random, sequences, stats
    from gridcompute.actions.stencils import Edges
    from gridcompute.api import (
        concat,
        from_arrays,
        from_source,
        from_xarray,
        map,
        open_dataset,
        open_sequences,
        open_table,
        open_zarr,
        plan,
        run,
        space,
        start,
    )
    from gridcompute.collection import Collection
    from gridcompute.coords import Coordinate
    from gridcompute.dags import Dag
    from gridcompute.destined import UnrunOutputWarning
    from gridcompute.errors import GridError
    from gridcompute.grams import gram
    from gridcompute.kernels import Kernel, kernel, task
    from gridcompute.reducer import Reduction, reduction
    from gridcompute.registry import Job, together, workload
    from gridcompute.replaying import replay
    from gridcompute.resuming import resume
    from gridcompute.running import Run
    from gridcompute.sinks.results import open_result
    from gridcompute.testing.chaos import chaos

_HOME = {
    "Collection": "collection", "Coordinate": "coords", "Dag": "dags", "Edges": "actions.stencils",
    "GridError": "errors", "Job": "registry", "Kernel": "kernels", "Reduction": "reducer", "Run": "running",
    "UnrunOutputWarning": "destined", "chaos": "testing.chaos", "concat": "api", "gram": "grams",
    "from_arrays": "api", "from_source": "api", "from_xarray": "api", "kernel": "kernels", "map": "api",
    "open_dataset": "api",
    "open_result": "sinks.results", "open_sequences": "api", "open_table": "api", "open_zarr": "api", "plan": "api",
    "random": "", "reduction": "reducer", "replay": "replaying", "resume": "resuming", "run": "api", "sequences": "",
    "space": "api", "start": "api", "stats": "", "task": "kernels", "together": "registry",
    "workload": "registry",
}  # fmt: skip

__all__ = [
    "Collection", "Coordinate", "Dag", "Edges", "GridError", "Job", "Kernel", "Reduction", "Run",
    "UnrunOutputWarning", "chaos", "concat", "from_arrays", "from_source", "from_xarray", "gram", "kernel", "map",
    "open_dataset", "open_result", "open_sequences", "open_table", "open_zarr", "plan", "random", "reduction", "replay",
    "resume", "run", "sequences", "space", "start", "stats", "task", "together", "workload",
]  # fmt: skip

watch_for_xarray()


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'gridcompute' has no attribute {name!r}")
    if home and name == "kernel":
        import_module("gridcompute.compiled")  # so that kernels can be called on arrays
    value = import_module(f"gridcompute.{name}") if not home else getattr(import_module(f"gridcompute.{home}"), name)
    # A submodule's import sets the attribute to the module (kernel, reduction, run, space): the public name wins.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
