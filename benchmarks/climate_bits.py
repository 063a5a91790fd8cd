"""Rows of the benchmark `climate` for determinism: digests of whole results, however they were computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.climate_ours import OPERATIONS, AbsentWorkloadError, opened, ran, results, told
from benchmarks.climate_stack import Stack
from benchmarks.overhead_tasks import end_ray
from benchmarks.rows import OURS, Reference, Row, Session
from benchmarks.running import new_store
from benchmarks.stream import Setup
from gridcompute.ray_session import connect

SETUPS = (Setup(0, 1), Setup(0, 2), Setup(1, 1), Setup(2, 1))
"""One thread and two in this process, one worker and two on Ray."""

ONE = Reference(1, "the same bits everywhere")


def digest(outputs: Mapping[str, Any], run: Any) -> str:
    """Of all values, shapes and dtypes; one NaN is as good as another."""
    found = hashlib.sha256()
    for name, values in results(outputs, run):
        plain = np.ascontiguousarray(values)
        if plain.dtype.kind == "f":
            plain = np.where(np.isnan(plain), np.array(np.nan, plain.dtype), plain)
        found.update(f"{name} {plain.dtype} {plain.shape}".encode())
        found.update(plain.tobytes())
    return found.hexdigest()


def same_bits(session: Session, stack: Stack) -> Iterator[Row]:
    """How many different results each operation gives."""
    session.begin("bits")
    end_ray()
    connect(workers=2)
    for name, make in OPERATIONS.items():
        found: dict[str, list[str]] = {}
        try:
            for setup in SETUPS:
                outputs = make(opened(stack), stack)
                with new_store() as store:
                    run = ran(outputs, executor=setup.executor(), store=store)
                    found.setdefault(digest(outputs, run), []).append(str(setup))
        except AbsentWorkloadError as error:
            yield told("bits", name, "results", error)
            continue
        alike = "; other bits from: ".join(" = ".join(setups) for setups in found.values())
        yield Row(f"bits/{name}", "results", {OURS: [float(len(found))]}, target=ONE,
                  note=f"Different digests of the whole result. The same bits from: {alike}.")
