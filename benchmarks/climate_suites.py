"""Rows of the benchmark `climate` for workloads of other suites, made small: Coiled's geospatial one and Cubed's.

Coiled's repository (coiled/benchmarks, tests/geospatial, June 2025) publishes sizes and what doesn't complete, but no
times; its data lie in clouds. Here the same is computed of synthetic data of a hundredth of the size or less.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gridcompute as grid
from benchmarks.climate_ours import AbsentWorkloadError, told, workload
from benchmarks.climate_stack import SMALL, Grid, Stack, made
from benchmarks.climate_suite_peers import EDDIES
from benchmarks.memory import Watch
from benchmarks.overhead_tasks import end_ray
from benchmarks.peering import Peers
from benchmarks.rows import OURS, Row, Session, check
from benchmarks.running import new_store
from gridcompute.ray_session import connect

DEGREE = Grid(181, 360, 46)
WINDOW, HOURS, WORKERS = 61, 24, 2
ALLOWED = 2 * 10**9
"""Bytes that a worker may have, as Cubed is told."""

System = Callable[[], tuple[float, Any]]


def suites(session: Session, peers: Peers, small: Stack) -> Iterator[Row]:
    """Climatology with a window, bilinear regridding, eddy fluxes; quadratic means."""
    end_ray()
    connect(workers=WORKERS)
    sections: Mapping[str, Callable[[], Iterator[Row]]] = {
        "climatology, 61-day window": partial(_smoothed, session, peers),
        "bilinear regridding": partial(_bilinear, session, peers, small),
        "atmospheric circulation": partial(_eddies, session, peers),
        "quadratic means": partial(_quadratic, session, peers),
    }
    for name, section in sections.items():
        session.begin(f"suites, {name}")
        try:
            yield from section()
        except AbsentWorkloadError as error:
            yield told("suites", name, "s", error)
    peers.rest("flox", "xarray", "cubed")


def _ran(outputs: list[Any], pick: Callable[[Any], Any]) -> tuple[float, Any]:
    """Seconds of a run on Ray, and what is compared of it."""
    with new_store() as store:
        began = time.perf_counter()
        run = grid.run(*outputs, executor="ray", workers=WORKERS, store=store, quiet=True)
        seconds = time.perf_counter() - began
        return seconds, pick(run)


def _row(session: Session, name: str, systems: Mapping[str, System], equal: Callable[[Any, Any], bool],
         note: str) -> Row:
    """Seconds of all systems, in turn, whose results must be equal."""
    systems[OURS]()  # compiles
    raw: dict[str, list[float]] = {system: [] for system in systems}
    for _ in range(session.pick(1, 1, 3)):
        known = None
        for system, measure in systems.items():
            seconds, found = measure()
            raw[system].append(seconds)
            known = found if known is None else known
            check(equal(np.asarray(known, "f8"), np.asarray(found, "f8")), f"{name} by {system}")
    return Row(f"suites/{name}", "s", raw, note=note)


def _close(known: Any, found: Any) -> bool:
    return known.shape == found.shape and bool(np.allclose(known, found, rtol=1e-3, atol=5e-3))


def _others(peers: Peers, case: str, **question: Any) -> dict[str, System]:
    return {f"xarray + dask{' + flox' * (name == 'flox')}": partial(peer.ask, case, threads=WORKERS, **question)
            for name, peer in (peers.of("flox") or peers.of("xarray")).items()}


def _smoothed(session: Session, peers: Peers) -> Iterator[Row]:
    cycle, normals = workload("normals", "Cycle"), workload("normals", "normals")
    place, years = session.pick((SMALL, 3), (DEGREE, 10), (DEGREE, 10))
    stack = made("years.zarr", 365 * years, place, 365)
    field = grid.open_zarr(stack.path)["t"]
    outputs = [normals(field, cycle(window=WINDOW, weights="linear"))[["mean"]]]
    systems: dict[str, System] = {OURS: partial(_ran, outputs, lambda run: run[0].to_numpy()[:, place.row])}
    systems |= _others(peers, "smoothed", path=str(Path(stack.path).absolute()), window=WINDOW, row=place.row)
    yield _row(session, "climatology, 61-day window", systems, _close,
               "Coiled's climatology (published: sizes of 101.83 GiB, 2.12 TiB and 4.24 TiB, the last of which "
               f"\"currently doesn't complete\"; no times), the same workload on {stack.gigabytes:.2g} GB of synthetic "
               f"data: means of each day of {years} years within 61 days, weighted linearly.")


def _bilinear(session: Session, peers: Peers, stack: Stack) -> Iterator[Row]:
    lat, lon = stack.grid.coarse_lat * 0.999, stack.grid.coarse_lon + 0.1
    target, row = workload("grids", "Grid")("rectilinear", lat, lon), stack.grid.row // 4
    field = grid.open_zarr(stack.path)["t"]
    outputs = [workload("regrid", "regridded")(field, target, "bilinear")]
    systems: dict[str, System] = {OURS: partial(_ran, outputs, lambda run: run[0].to_numpy()[:, row])}
    systems |= _others(peers, "bilinear", path=str(Path(stack.path).absolute()), lat=lat.tolist(), lon=lon.tolist(),
                       row=row)
    yield _row(session, "bilinear regridding", systems, _close,
               "Coiled's regridding of two years from 0.25 degrees to 1 degree (published: weights of 4 MiB, no "
               f"times), the same on {stack.gigabytes:.2g} GB of synthetic data; xarray's is `interp`, as xESMF isn't "
               "there.")


def _flow(path: str, shape: tuple[int, ...]) -> str:
    """Four fields over time, level, latitude and longitude that go together a little."""
    import zarr
    from zarr.codecs import BloscCodec

    group, draw = zarr.open_group(path, mode="w"), np.random.default_rng(6)
    codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)
    fields = {name: group.create_array(name, shape=shape, chunks=(HOURS, *shape[1:]), dtype="f4", compressors=[codec],
                                       dimension_names=("time", "lev", "lat", "lon")) for name in "uvtw"}
    axes = {"lev": (np.geomspace(1000, 10, shape[1]), "hPa"), "lat": (np.linspace(90, -90, shape[2]), "degrees_north"),
            "lon": (np.arange(shape[3]) * 360 / shape[3], "degrees_east")}
    for name, (values, unit) in axes.items():
        axis = group.create_array(name, shape=values.shape, dtype="f8", dimension_names=(name,),
                                  attributes={"units": unit})
        axis[:] = values
    for at in range(0, shape[0], HOURS):
        common = draw.normal(size=(HOURS, *shape[1:]))
        for field in fields.values():
            values = 10 * (common + draw.normal(size=common.shape))
            field[at : at + HOURS] = np.round(values * 64).astype("f4") / 64
    return path


def _eddies(session: Session, peers: Peers) -> Iterator[Row]:
    shape = session.pick((48, 2, 18, 36), (96, 8, 181, 360), (96, 8, 181, 360))
    path = _flow("flow.zarr", shape)
    data, day = grid.open_zarr(path), np.arange(shape[0]) // HOURS
    fluxes = workload("eddies", "eddy_fluxes")(*(data[name] for name in "uvwt"))
    outputs = [fluxes.groupby(day, dim="time").mean()]
    systems: dict[str, System] = {OURS: partial(_ran, outputs, _last_day)}
    for name, measure in _others(peers, "eddies", path=str(Path(path).absolute()), hours=HOURS).items():
        systems[name] = partial(_in_order, measure)
    yield _row(session, "atmospheric circulation", systems,
               _close,
               "Coiled's atmospheric circulation (published: 852.56 GiB, 28.54 TiB and 608.42 TiB, no times), the same "
               f"on {4 * np.prod(shape) * 4 / 1e9:.2g} GB of synthetic data: daily zonal means of u, v, t, w and of "
               "the eddies' products, as the transformed Eulerian mean needs them.")


def _last_day(run: Any) -> Any:
    return np.stack([run[name].to_numpy()[-1] for name in EDDIES])


def _in_order(measure: System) -> tuple[float, Any]:
    seconds, found = measure()
    return seconds, np.array([found[name] for name in EDDIES])


# --- Cubed's ---


@grid.kernel("->(),()", names=("u", "v"))
def winds(rng):  # type: ignore[no-untyped-def]  # numba infers the types
    """Two random numbers of a cell."""
    return grid.random.uniform(rng), grid.random.uniform(rng)


def _quadratic(session: Session, peers: Peers) -> Iterator[Row]:
    for steps in session.pick((20,), (50,), (50, 500)):
        shape = session.pick((steps, 1, 98, 192), (steps, 1, 987, 1920), (steps, 1, 987, 1920))
        yield from _quadratic_rows(shape, peers, session.pick(1, 3, 3) if steps < 500 else 1)


def _quadratic_rows(shape: tuple[int, ...], peers: Peers, repeat: int) -> Iterator[Row]:
    drawn = grid.space(**dict(zip(("time", "face", "j", "i"), shape, strict=True))).map(winds)
    u, v = drawn["u"], drawn["v"]
    outputs = [product.mean("time") for product in (u * u, v * v, u * v)]
    chunk = [10, *shape[1:]]
    systems: dict[str, System] = {OURS: partial(
        _ran, outputs, lambda run: [_moments(run[place].to_numpy()) for place in range(3)])}
    for name, peer in peers.of("cubed").items():
        systems[name] = partial(peer.ask, "climate-quadratic", shape=list(shape), chunk=chunk, threads=WORKERS,
                                allowed_mem=f"{ALLOWED // 10**6}MB", work_dir=str(Path("cubed.work").absolute()))
    for name, peer in peers.of("xarray").items():
        systems[f"{name} + dask"] = partial(peer.ask, "climate-quadratic", shape=list(shape), chunk=chunk,
                                            threads=WORKERS)
    systems[OURS]()  # compiles
    raw: dict[str, list[float]] = {system: [] for system in systems}
    for _ in range(repeat):
        for system, measure in systems.items():
            seconds, moments = measure()
            raw[system].append(seconds)
            check(_as_drawn(np.array(moments), shape), f"quadratic means by {system}")
    size = 2 * np.prod(shape, dtype=float) * 8 / 1e9
    yield Row(f"suites/quadratic means, {shape[0]} steps", "s", raw,
              note=f"Cubed's own benchmark: means over time of u u, v v and u v for {' x '.join(map(str, shape))} "
              f"float64 ({size:.2g} GB in all) that are drawn where they are needed; Cubed with allowed_mem of "
              f"{ALLOWED / 1e9:g} GB. Published: 1.5 TB on a cloud, no time that could be compared.")
    with Watch() as watch:
        _ran(outputs, lambda run: None)
    yield Row(f"memory/quadratic means, {shape[0]} steps", "MiB", {OURS: [watch.peak / 2**20]},
              note=f"The most that a worker had; Cubed's bound is {ALLOWED / 2**20:.0f} MiB.")


def _moments(values: Any) -> list[float]:
    return [float(values.mean()), float(values.std())]


def _as_drawn(moments: Any, shape: tuple[int, ...]) -> bool:
    """Whether means over uniform numbers have the mean and the spread that they should have."""
    cells, expected = np.prod(shape[1:], dtype=float), np.array([1 / 3, 1 / 3, 1 / 4])
    spread = np.sqrt(np.array([4 / 45, 4 / 45, 7 / 144]) / shape[0])
    return bool((np.abs(moments[:, 0] - expected) < 6 * spread / np.sqrt(cells)).all()
                and np.allclose(moments[:, 1], spread, rtol=0.05))

