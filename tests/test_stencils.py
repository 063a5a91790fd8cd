"""What a window reads beyond the ends, dimension by dimension, against NumPy's pad."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import gridcompute as grid
from gridcompute.errors import ParameterError

pytestmark = pytest.mark.usefixtures("own_folder")

MODES: dict[str, dict[str, Any]] = {
    "clip": {"mode": "edge"}, "periodic": {"mode": "wrap"}, "fill": {"mode": "constant", "constant_values": -5.0}
}  # fmt: skip
ENDS = st.sampled_from(sorted(MODES))
SIDES = st.tuples(st.integers(0, 6), st.integers(0, 6))


@grid.kernel("(lat,lon)->()")
def weighed(window):  # type: ignore[no-untyped-def]
    """Other cells give another sum."""
    total = 0.0
    for i in range(window.shape[0]):
        for j in range(window.shape[1]):
            total += window[i, j] * (1.0 + i * 17 + j)
    return total


def padded(values: Any, halo: dict[str, tuple[int, int]], ends: dict[str, str]) -> Any:
    for axis, name in enumerate(("lat", "lon")):
        width = [(0, 0), (0, 0)]
        width[axis] = halo[name]
        values = np.pad(values, width, **MODES[ends[name]])
    return values


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 5), st.integers(1, 40), SIDES, SIDES, ENDS, ENDS, st.integers(0, 2))
def test_each_dimension_has_its_own_boundary(
    lats: int, lons: int, north: tuple[int, int], east: tuple[int, int], lat: str, lon: str, steps: int
) -> None:
    halo, ends = {"lat": north, "lon": east}, {"lat": lat, "lon": lon}
    values = np.random.default_rng(lats * 41 + lons).integers(-9, 9, (lats, lons)).astype(float)
    lazy = grid.from_arrays({"v": values}, dims=("lat", "lon"))["v"]
    run = grid.run(lazy.stencil(weighed, halo, boundary=ends, fill=-5.0),
                   lazy.iterate(weighed, steps, halo=halo, boundary=ends, fill=-5.0), executor="inline")  # fmt: skip
    shape = (sum(north) + 1, sum(east) + 1)
    weights = 1.0 + np.add.outer(np.arange(shape[0]) * 17, np.arange(shape[1]))

    def step(field: Any) -> Any:
        return (sliding_window_view(padded(field, halo, ends), shape) * weights).sum((-2, -1))

    np.testing.assert_array_equal(run[0].to_numpy(), step(values))  # small whole numbers: exact in any order
    again = values
    for _ in range(steps):
        again = step(again)
    np.testing.assert_allclose(run[1].to_numpy(), again, rtol=1e-12, atol=1e-6)


def test_a_dimension_that_the_mapping_leaves_out_is_clipped() -> None:
    lazy = grid.from_arrays({"v": np.arange(12.0).reshape(3, 4)}, dims=("lat", "lon"))["v"]
    halo = {"lat": 1, "lon": 1}
    some, all_of_them = lazy.stencil(weighed, halo, boundary={"lon": "periodic"}), {"lat": "clip", "lon": "periodic"}
    assert some.op.recipe == lazy.stencil(weighed, halo, boundary=all_of_them).op.recipe
    assert some.op.recipe != lazy.stencil(weighed, halo).op.recipe


@pytest.mark.parametrize(("boundary", "words"), [
    ({"time": "clip"}, "boundary names the dimension 'time', which has no halo"),
    ({"lat": "wrap"}, "the boundary of 'lat' is 'wrap'"),
    ("wrap", "the boundary of 'lat' is 'wrap'"),
])  # fmt: skip
def test_boundaries_that_are_none_are_refused(boundary: Any, words: str) -> None:
    lazy = grid.from_arrays({"v": np.zeros((3, 4))}, dims=("lat", "lon"))["v"]
    with pytest.raises(ParameterError, match=words):
        lazy.stencil(weighed, {"lat": 1, "lon": 1}, boundary=boundary)


def test_a_fill_that_one_dimension_uses_must_fit_the_column() -> None:
    lazy = grid.from_arrays({"v": np.zeros((3, 4), np.int32)}, dims=("lat", "lon"))["v"]
    with pytest.raises(ParameterError, match=r"doesn't hold fill=0\.5"):
        lazy.stencil(weighed, {"lat": 1, "lon": 1}, boundary={"lon": "fill"}, fill=0.5)
