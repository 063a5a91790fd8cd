"""Pictures of fields and series: each kind is drawn, in colours that fit, from as much as can be seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from gridcompute_workloads.climate import pictures
from gridcompute_workloads.climate.pictures import cropped, draw, draw_field, draw_fields, draw_series, thinned

from gridcompute import plots
from gridcompute.errors import StoreError
from gridcompute.maps import DIVERGING, SEQUENTIAL, _colours, _mesh, draw_maps, draw_trend
from gridcompute.plots import Axis

Y = Axis("lat", np.linspace(-60, 60, 5), "degrees_north", "latitude")
X = Axis("lon", np.arange(0.0, 360, 45), "degrees_east", "longitude")


def size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_maps_panels_lines_and_stripes(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((5, 8))
    values[2, 3] = np.nan
    wide, high = size(draw_field(tmp_path / "a.png", values, Y, X, title="t", unit="K", centred=True))
    assert wide > high  # as the globe is
    assert size(draw_field(tmp_path / "b.png", values.T, X, Y, title="t", unit="K")) == (wide, high)  # turned upright
    dots = values > 0.5
    draw_field(tmp_path / "c.png", np.full((5, 8), np.nan), Y, X, title="t", unit="", dots=dots, note="dots: half")
    for count in (1, 2, 4, 5, 12):
        panels = {str(i): values + i for i in range(count)}
        assert size(draw_fields(tmp_path / "d.png", panels, Y, X, title="t", unit="K"))[0] > 500
    time = Axis("time", np.arange(1990.0, 1998), kind="time")
    size(draw_series(tmp_path / "e.png", {"a": values[0], "b": values[1]}, time, title="t", unit="K"))
    size(draw_series(tmp_path / "f.png", {"a": values[0]}, time, title="t", unit="K", stripes=True))


def test_colours() -> None:
    both, above = np.array([-1.0, 0, 3]), np.array([270.0, 300])
    assert _colours(both)["cmap"] == DIVERGING
    assert _colours(both, False)["cmap"] == SEQUENTIAL
    assert _colours(above)["cmap"] == SEQUENTIAL
    centred = _colours(above, True)
    assert (centred["cmap"], centred["vmin"]) == (DIVERGING, -centred["vmax"])
    assert _colours(np.zeros(3), True)["vmax"] == 1.0
    assert _colours(np.empty(0))["vmin"] == -1.0


def field(**sizes: int) -> xr.DataArray:
    coords: dict[str, Any] = {"lat": ("lat", np.linspace(-60, 60, sizes.get("lat", 3)), {"units": "degrees_north"}),
                              "lon": ("lon", np.arange(sizes.get("lon", 3)) * 10.0, {"units": "degrees_east"}),
                              "time": xr.date_range("2000-01-01", periods=sizes.get("time", 3), use_cftime=True,
                                                    calendar="360_day")}  # fmt: skip
    values = np.random.default_rng(2).random(tuple(sizes.values()))
    return xr.DataArray(values, dims=list(sizes), coords={name: coords[name] for name in sizes if name in coords})


@pytest.mark.parametrize("dims", [("lat", "lon"), ("time", "lat"), ("time",), (), ("level", "lat", "lon"), ("x", "y")])
def test_each_shape_is_drawn(dims: tuple[str, ...], tmp_path: Path) -> None:
    assert size(draw(tmp_path / "a.png", field(**dict.fromkeys(dims, 4)), title="t", unit="K"))[0] > 500


def test_panels_of_months_with_levels(tmp_path: Path) -> None:
    panels = [("January", 0), ("July", 2)]
    four = field(month=3, level=2, lat=4, lon=5)
    assert size(draw(tmp_path / "a.png", four, title="t", unit="K", panels=panels))[0] > 500


def test_one_panel_is_a_map_of_its_own(tmp_path: Path) -> None:
    months = field(month=1, lat=4, lon=5)
    alone = size(draw(tmp_path / "a.png", months, title="t", unit="K", panels=[("June", 0)]))
    assert alone == size(draw(tmp_path / "b.png", months[0], title="t, June", unit="K"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, as they are saved."""
    from matplotlib.figure import Figure

    found: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (found.append(self), save(self, *args, **more)))
    return found


@pytest.mark.parametrize(("lat", "lon"), [((84.0, 89), (0.0, 3)), ((-5.0, 4.5), (0.0, 359)), ((-60.0, 60), (0.0, 2))])
def test_titles_and_ticks_of_narrow_and_flat_maps_do_not_overlap(
    lat: tuple[float, float], lon: tuple[float, float], drawn: list[Any], tmp_path: Path
) -> None:
    axes = [Axis("lat", np.linspace(*lat, 4), "degrees_north", "latitude"),
            Axis("lon", np.linspace(*lon, 6), "degrees_east", "longitude")]  # fmt: skip
    values = np.arange(24.0).reshape(4, 6)
    draw_trend(tmp_path / "a.png", values, values > 3, axes, name="t", unit="K year-1", alpha=0.05)
    draw_maps(tmp_path / "b.png", {str(i): values for i in range(12)}, axes, title="t", unit="K")
    for figure in drawn:
        for panel in figure.axes[:-1]:
            low, high = sorted(panel.get_ylim())
            ticks = [tick.label1 for tick in panel.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
            for side in ([panel.title, panel._left_title, panel._right_title], ticks):
                boxes = [text.get_window_extent() for text in side if text.get_text()]
                assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_captions_say_what_is_shown(drawn: list[Any], tmp_path: Path) -> None:
    levels = field(time=2, level=3, lat=4).assign_coords(level=("level", [850.0, 500, 200], {"units": "hPa"}))
    draw(tmp_path / "a.png", levels, title="Zonal mean", unit="K")
    panel = drawn[-1].axes[0]
    assert panel.get_title(loc="left") == "Zonal mean, time 2000-01-01"
    assert panel.yaxis.get_inverted()  # pressure upright, latitudes beside each other
    assert "level" in panel.get_ylabel()
    draw_series(tmp_path / "b.png", {"a": np.arange(4.0)}, Axis("year", np.arange(1990.0, 1994)), title="t", unit="K")
    assert [float(tick) % 1 for tick in drawn[-1].axes[0].get_xticks()] == [0.0] * len(drawn[-1].axes[0].get_xticks())
    pole = Axis("lat", np.array([70.0, 80, 90]), "degrees_north", "latitude")
    assert pole.edges.tolist() == [65, 75, 85, 90]


def test_maps_show_the_part_that_has_values() -> None:
    values = np.full((40, 60), np.nan)
    y = Axis("lat", np.linspace(-78, 78, 40), "degrees_north", "latitude")
    x = Axis("lon", np.arange(60) * 6.0, "degrees_east", "longitude")
    assert cropped(values, y, x)[0] is values  # nothing to show
    values[10:15, 20:30] = 1.0
    values[12, 25] = np.nan
    part, rows, columns = cropped(values, y, x)
    np.testing.assert_array_equal(part, values[9:16, 19:31])
    np.testing.assert_array_equal(rows.values, y.values[9:16])
    assert (columns.values.tolist(), columns.kind) == (x.values[19:31].tolist(), "longitude")
    corner = np.where(np.arange(40)[:, None] < 3, np.ones(60), np.nan)
    assert cropped(corner, y, x)[0].shape == (4, 60)
    values[0, 0] = values[-1, -1] = 2.0
    assert cropped(values, y, x)[0] is values


@pytest.mark.parametrize(("first", "last", "ticks"), [(-88.0, 88, [-90, -60, -30, 0, 30, 60, 90]),
                                                      (15.0, 60, [20, 30, 40, 50, 60]), (-5.0, 4.5, [-4, -2, 0, 2, 4]),
                                                      (10.01, 10.03, None)])  # fmt: skip
def test_ticks_are_those_of_printed_maps(first: float, last: float, ticks: list[float] | None, tmp_path: Path) -> None:
    axis = Axis("lat", np.linspace(first, last, 12), "degrees_north", "latitude")
    with plots.figure_file(tmp_path / "a.png", 4, 4) as (_, (panel,)):
        panel.set_ylim(*axis.edges[[0, -1]])
        plots.dressed(panel, axis, "y")
        found = [tick for tick in panel.get_yticks() if axis.edges[0] - 1e-9 <= tick <= axis.edges[-1] + 1e-9]
    assert found == ticks if ticks else 2 < len(found) < 10


def test_what_is_huge_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    assert thinned(field(time=3, lat=20, lon=20), "lat", "lon").shape == (3, 10, 10)
    assert thinned(field(time=300), "time").shape == (100,)
    small = field(lat=10, lon=10)
    assert thinned(small, "lat", "lon") is small


@pytest.mark.parametrize(("attrs", "down"), [({"units": "hPa"}, True), ({"units": "m", "positive": "down"}, True),
                                             ({"units": "m"}, False), ({}, False)])
def test_pressure_and_depth_grow_downwards(attrs: dict[str, str], down: bool, tmp_path: Path) -> None:
    levels = Axis.of("level", xr.DataArray([1000.0, 500.0, 100.0], dims="level", attrs=attrs))
    with plots.figure_file(tmp_path / "a.png", 4, 4) as (_, (panel,)):
        _mesh(panel, np.ones((3, 5)), levels, Axis("lat", Y.values, "degrees_north", "latitude"), _colours(np.ones(1)))
        bottom, top = panel.get_ylim()
    assert bool(bottom > top) is down


def test_dates_of_every_calendar_are_years(tmp_path: Path) -> None:
    model = Axis.of("time", field(time=4)["time"])
    assert model.kind == "time"
    assert model.values[0] == 2000.0
    real = Axis.of("time", xr.DataArray(np.array(["2001-01-01", "2001-07-02T12"], "M8[ns]"), dims="time"))
    np.testing.assert_allclose(real.values, [2001.0, 2001.5])


def test_what_is_in_no_order_is_drawn_by_position(tmp_path: Path) -> None:
    def axis(values: Any, name: str = "lon", unit: str = "degrees_east") -> Axis:
        return Axis.of(name, xr.DataArray(np.array(values), dims=name, attrs={"units": unit}))

    np.testing.assert_array_equal(axis([0.0, 120.0, -120.0]).values, [0, 120, 240])  # a jump of longitudes is none
    dates = np.array(["2001-01-01", "NaT", "2001-03-01"], "M8[ns]")
    for one in (axis([0.0, np.nan, 20.0]), axis([0.0, 30.0, 10.0]), axis([5.0, 5.0, 6.0], "lat", "degrees_north"),
                Axis.of("time", xr.DataArray(dates, dims="time"))):
        assert one.values.tolist() == [0, 1, 2]
        assert one.kind == ""
        size(draw_field(tmp_path / "a.png", np.ones((5, 3)), Y, one, title="", unit=""))


def test_a_picture_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="can't be written"):
        draw_field(tmp_path / "file" / "a.png", np.ones((5, 8)), Y, X, title="", unit="")
