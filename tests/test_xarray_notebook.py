"""The notebook from `xr.open_dataset` to a trend map runs as it stands, and is as short as it says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "climate-trend.ipynb"


def test_the_notebook_is_ten_lines_and_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    lines = [line for line in "".join(cells[0]["source"]).splitlines() if line.strip()]
    assert len(lines) <= 10, "it says ten lines"


def test_the_notebook_runs_to_a_trend_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("iris_sample_data")
    for name, value in {"GRIDCOMPUTE_EXECUTOR": "inline", "GRIDCOMPUTE_STATE": str(tmp_path / "state"),
                        "JUPYTER_PLATFORM_DIRS": "1", "JUPYTER_PATH": str(tmp_path / "jupyter"),
                        "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    started = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"display_name": "test", "language": "python", "argv": started}))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs), "the map"
    assert any("time: mean" in output.get("data", {}).get("text/plain", "") for output in outputs)
