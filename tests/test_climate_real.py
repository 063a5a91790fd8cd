"""The climate functions against cdo on real fields: annual temperatures of a scenario (360-day calendar), monthly sea
surface temperatures with land (OSTIA), both in float64 and in float32 as they are stored, and packed ERA5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from cdo import agrees, cdo, cdo_files
from gridcompute_workloads.climate.eof import eofs
from gridcompute_workloads.climate.grids import named_grid
from gridcompute_workloads.climate.means import annual_means, monthly_means, running_means, seasonal_means
from gridcompute_workloads.climate.normals import anomalies, anomaly_spread, normals
from gridcompute_workloads.climate.regrid import regridded
from gridcompute_workloads.climate.trend import trend_test
from gridcompute_workloads.climate.zonal import zonal_statistics

import gridcompute as grid

pytestmark = [pytest.mark.usefixtures("own_folder"), pytest.mark.timeout(1200)]  # compiling on a busy machine

QUIET: dict[str, Any] = {"executor": "inline", "quiet": True, "store": "work"}
FIELDS = {"A1B_north_america": "air_temperature", "ostia_monthly": "surface_temperature", "era5_1995-07-14T12": "t2m"}
METHODS = {"conservative": "con", "bilinear": "bil", "nearest": "nn"}
PRECISION = {"f8": 1e-12, "f4": 1e-6}
CASES = [("A1B_north_america", "f8"), ("ostia_monthly", "f8"), ("ostia_monthly", "f4")]

Array = np.ndarray[Any, Any]


def stored(folder: Path, name: str, dtype: str = "", steps: int | None = None) -> tuple[str, str]:
    """A file of the field alone: in another precision (float64 in degrees Celsius, which no sum of is exact), or packed
    as it is; and the variable's name."""
    path, name_in = folder / "climate" / f"{name}.nc", FIELDS[name]
    if not path.is_file():
        pytest.skip(f"no {path}")
    with xr.open_dataset(path) as data:
        one = data[[name_in]]
        one = (one.isel(time=slice(0, steps)) if "time" in one.dims else one.expand_dims("time")).load()
    one = one.drop_vars([coord for coord in one.coords if coord not in one.dims])
    if dtype:
        values = one[name_in].astype(dtype) - (273.15 if dtype == "f8" else 0)
        one[name_in] = values.drop_encoding()
        one[name_in].encoding["_FillValue"] = np.array(1e20, dtype)[()]
    one.to_netcdf("field.nc")
    return "field.nc", name_in


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_statistics_over_time_equal_cdo(name: str, dtype: str, data_dir: Path) -> None:
    path, variable = stored(data_dir, name, dtype)
    field, rel = grid.open_dataset(path)[variable], PRECISION[dtype]
    close: dict[str, float] = {"rel": rel, "atol": rel * 300}  # differences of temperatures, some of them near 0
    means = {"monmean": monthly_means(field), "yearmean": annual_means(field), "runmean,5": running_means(field, 5),
             "seasmean": seasonal_means(field)}
    run = grid.run(*means.values(), normals(field), anomalies(field), anomaly_spread(field), field.std("time"), **QUIET)
    for i, operator in enumerate(means):
        if operator == "seasmean" and name.startswith("A1B"):
            # One step a year, and each in summer: cdo sees no season end, and takes them all as one.
            assert cdo(operator, path).shape[0] == 1
            agrees(run[i].to_numpy(), cdo("yearmean", path), **close)
            continue
        agrees(run[i].to_numpy(), cdo(operator, path), **close)
    agrees(run.part(4, 5)["mean"].to_numpy(), cdo("ydaymean", path), **close)
    agrees(run[5].to_numpy(), cdo("ydaysub", path, "-ydaymean", path), **close)
    agrees(run[6].to_numpy(), cdo("timstd", "-ydaysub", path, "-ydaymean", path), **close)
    spread = run[7].to_numpy()
    agrees(spread, cdo("timstd", path), max(rel, 1e-9))  # of the small difference of two large sums
    with xr.open_dataset(path) as data:
        exact = data[variable].astype("f16").std("time", skipna=False).values.astype("f8")
    agrees(spread, exact, 1e-12)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_zonal_means_and_trends_equal_cdo(name: str, dtype: str, data_dir: Path) -> None:
    path, variable = stored(data_dir, name, dtype)
    field, rel = grid.open_dataset(path)[variable], PRECISION[dtype]
    run = grid.run(trend_test(field, method="ols"), zonal_statistics(field), **QUIET)
    slope, rows = run.part(0, 1), run.part(1, 2)
    level, rise = cdo_files("trend", path, count=2)
    agrees(slope["slope"].to_numpy(), rise, rel, atol=rel * np.nanmax(np.abs(rise)))
    agrees(slope["intercept"].to_numpy(), level, rel, atol=rel * 300)
    for part in ("mean", "min", "max"):
        agrees(rows[part].to_numpy(), cdo(f"zon{part}", path), rel, atol=rel * 300)
    agrees(rows["std"].to_numpy(), cdo("zonstd", path), max(rel, 1e-8))  # of the small difference of two large sums


@pytest.mark.parametrize(("name", "dtype", "target"), [("A1B_north_america", "f8", "r360x180"),
                                                       ("era5_1995-07-14T12", "", "r72x36"),
                                                       ("ostia_monthly", "f8", "r360x180"),
                                                       ("ostia_monthly", "f4", "r360x180")])  # fmt: skip
def test_other_grids_equal_cdo(name: str, dtype: str, target: str, data_dir: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path, variable = stored(data_dir, name, dtype, steps=3)
    field, belt, rel = grid.open_dataset(path)[variable], name.startswith("ostia"), PRECISION[dtype or "f8"]
    run = grid.run(*(regridded(field, named_grid(target), method) for method in METHODS), **QUIET)
    ours = {method: run[i].to_numpy() for i, method in enumerate(METHODS)}
    theirs = {method: cdo(f"remap{short},{target}", path) for method, short in METHODS.items()}
    if belt:
        # Where longitudes go round cdo makes bilinear values up to the poles, here from a row at 5 degrees.
        assert np.isfinite(theirs["bilinear"][0, 0]).any()
        assert np.isnan(ours["bilinear"][0, 0]).all()
        monkeypatch.setenv("REMAP_EXTRAPOLATE", "off")
        theirs["bilinear"] = cdo(f"remapbil,{target}", path)
        # This file's longitudes are rounded to float32. Our last column ends where the first begins; between cdo's two
        # is a gap of 3e-5 degrees, which the target's first column lies over.
        agrees(ours["conservative"][..., 0], theirs["conservative"][..., 0], 1e-6, atol=1e-6)
        ours["conservative"][..., 0] = theirs["conservative"][..., 0]
    for method in METHODS:
        assert np.isfinite(theirs[method]).any()
        agrees(ours[method], theirs[method], rel, atol=rel * 300)


@pytest.mark.parametrize(("name", "dtype"), CASES[:2])
def test_modes_equal_cdo(name: str, dtype: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, variable = stored(data_dir, name, dtype)
    for option, value in {"CDO_WEIGHT_MODE": "off", "CDO_SVD_MODE": "jacobi", "MAX_JACOBI_ITER": "1000",
                          "FNORM_PRECISION": "1e-14"}.items():  # fmt: skip
        monkeypatch.setenv(option, value)
    sizes, maps = cdo_files("eof,4", "-sub", path, "-timmean", path, count=2)
    found = eofs(grid.open_dataset(path)[variable], 4, "none")
    run = grid.run(found["eigenvalue"], found["eof"], **QUIET)
    times = grid.open_dataset(path)[variable].space["time"] or 0
    # cdo divides by the number of times, not by one less.
    np.testing.assert_allclose(run[0].to_numpy() * (times - 1) / times, sizes.ravel()[:4], rtol=PRECISION[dtype])
    for ours, theirs in zip(np.moveaxis(run[1].to_numpy(), -1, 0), maps, strict=True):
        known = np.isfinite(theirs)
        np.testing.assert_array_equal(np.isfinite(ours), known)
        length = np.sqrt((theirs[known] ** 2).sum())
        assert abs((ours[known] * theirs[known]).sum() / length) == pytest.approx(1.0, abs=1e-12)
