"""The peers' side of the benchmark `climate` for stored chunks: dask and Cubed. Nothing of gridcompute is imported."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

Answer = tuple[float, Any]


def _took(work: Callable[[], Any]) -> Answer:
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value


def _target(path: str, source: str, chunks: list[int]) -> Any:
    """An array for the stack in other chunks, with the stack's own codec."""
    zarr, codecs = import_module("zarr"), import_module("zarr.codecs")
    codec = codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=4)
    shape = zarr.open_group(source, mode="r")["t"].shape
    return zarr.create_array(path, name="t", shape=shape, chunks=tuple(chunks), dtype="f4", compressors=[codec])


def dask_rechunk(path: str, output: str, chunks: list[int], threads: int) -> Answer:
    """The stack in other chunks, by dask's threads."""
    dask, array = import_module("dask"), import_module("dask.array")

    def work() -> None:
        with dask.config.set(scheduler="threads", num_workers=threads):
            source = array.from_zarr(path, component="t").rechunk(tuple(chunks))
            array.store(source, _target(output, path, chunks), lock=False)

    return _took(work)


def _spec(work_dir: str, allowed_mem: str, threads: int) -> Any:
    """Cubed's threads; what lies between is not compressed, as it advises for local disks."""
    return import_module("cubed").Spec(work_dir=work_dir, allowed_mem=allowed_mem, executor_name="threads",
                                       executor_options={"max_workers": threads}, zarr_compressor=None)


def cubed_rechunk(path: str, output: str, chunks: list[int], threads: int, allowed_mem: str) -> Answer:
    """The stack in other chunks, by Cubed's threads."""
    cubed = import_module("cubed")

    def work() -> None:
        source = cubed.from_zarr(path, path="t", spec=_spec(output + ".work", allowed_mem, threads))
        cubed.to_zarr(cubed.rechunk(source, tuple(chunks)), _target(output, path, chunks))

    try:
        return _took(work)
    finally:
        shutil.rmtree(output + ".work", ignore_errors=True)


# --- quadratic means ---


def _means(values: Any) -> list[list[float]]:
    """Mean and standard deviation of each result, over its cells."""
    return [[float(np.mean(one)), float(np.std(one))] for one in values]


def cubed_quadratic(shape: list[int], chunk: list[int], threads: int, allowed_mem: str, work_dir: str) -> Answer:
    """Means over the first dimension of u * u, v * v and u * v, for u and v that are drawn."""
    cubed, xp, random = map(import_module, ("cubed", "cubed.array_api", "cubed.random"))
    spec = _spec(work_dir, allowed_mem, threads)

    def work() -> Any:
        u, v = (random.random(tuple(shape), chunks=tuple(chunk), spec=spec) for _ in range(2))
        return cubed.compute(*(xp.mean(product, axis=0, split_every=10) for product in (u * u, v * v, u * v)))

    try:
        seconds, values = _took(work)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    return seconds, _means(values)


def xarray_quadratic(shape: list[int], chunk: list[int], threads: int) -> Answer:
    """The same by xarray with dask's threads."""
    dask, array, xr = map(import_module, ("dask", "dask.array", "xarray"))

    def work() -> Any:
        u, v = (xr.DataArray(array.random.random(tuple(shape), chunks=tuple(chunk)), dims=("time", "face", "j", "i"))
                for _ in range(2))
        means = [product.mean("time", skipna=False) for product in (u * u, v * v, u * v)]
        return dask.compute(*means, scheduler="threads", num_workers=threads)

    seconds, values = _took(work)
    return seconds, _means(values)
