"""The documents hold: the README's script, the guide's examples, and every command that is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridcompute import errors

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN, PRINTS, TREE = "not run", "prints", "tree"
# numba takes longer to compile these pages' kernels than Python to run them; the others are run compiled.
PLAIN = ("climate-eof", "climate-quantile", "climate-rechunk", "climate-statistics", "collections", "data", "mapping",
         "reductions", "running", "workloads")


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Mark, language and text of each fenced block of a page."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield found["mark"] or "", found["kind"], found["text"]


def script_of(page: Path) -> str:
    """A page's Python blocks, in order, but for those marked `<!-- not run: why -->`."""
    return "\n".join(text for mark, kind, text in blocks(page) if kind == "python" and not mark.startswith(NOT_RUN))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Variables of a process that keeps all it writes below a folder."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GRIDCOMPUTE_", "RAY_", "NUMBA_"))
    }
    # One cache for all, so that what two scripts share is compiled once.
    own = {
        "GRIDCOMPUTE_STATE": str(folder / "state"),
        "GRIDCOMPUTE_CACHE": str(folder.parent / "cache"),
        "COLUMNS": "200",
    }
    return {**kept, **own, **more}


def run(script: Path, **more: str) -> str:
    """What a script prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script.name],
        cwd=script.parent,
        text=True,
        capture_output=True,
        timeout=240,
        env=environment(script.parent, **more),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


EXAMPLES = [page for page in PAGES if script_of(page)]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_examples_of_a_page_run_and_print_what_it_says(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(script_of(page), encoding="utf-8")
    plain = {"NUMBA_DISABLE_JIT": "1"} if page.stem in PLAIN else {}
    printed = run(script, GRIDCOMPUTE_EXECUTOR="inline", **plain)
    for mark, _, text in blocks(page):
        if mark == PRINTS:
            assert text.strip() in printed, f"{page.name} promises:\n{text}\nbut it printed:\n{printed}"


def readme_script() -> str:
    (script,) = [text for _, kind, text in blocks(ROOT / "README.md") if kind == "python"]
    return script


def test_readme_script_is_short() -> None:
    lines = [line for line in readme_script().splitlines() if line.strip()]
    assert len(lines) <= 12


def test_readme_script_runs_as_printed(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray")
    script = tmp_path / "job.py"
    script.write_text(readme_script(), encoding="utf-8")
    printed = run(script)
    assert "per worker" in printed
    assert "slope" in printed
    with xr.open_zarr(tmp_path / "trend.zarr") as result:
        assert dict(result.sizes) == {"latitude": 37, "longitude": 49}
        assert set(result.data_vars) == {"tau", "slope"}


def test_readme_script_runs_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in environment(tmp_path, GRIDCOMPUTE_EXECUTOR="inline").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    cells = [nbformat.v4.new_code_cell(text) for text in readme_script().split("\n\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    started = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"display_name": "test", "language": "python", "argv": started}
    folder = tmp_path / "jupyter" / "kernels" / "test"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    place = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=120, kernel_name="test", resources=place).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)
    assert "per worker" in printed
    assert (tmp_path / "trend.zarr" / "zarr.json").exists()


def test_tree_of_errors_is_the_one_of_the_code() -> None:
    (page,) = [text for mark, _, text in blocks(ROOT / "docs" / "guide" / "errors.md") if mark == TREE]
    lines = (errors.__doc__ or "").splitlines()[2:]
    assert page.rstrip() == "\n".join(line[4:] for line in lines).rstrip()


# `gridcompute run ...` in code: a span, or an indented line.
COMMAND = re.compile(r"(?:`|^    )gridcompute +(?P<words>[a-z][^`\n#]*)", re.MULTILINE)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every command that is named."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        for found in COMMAND.finditer(page.read_text(encoding="utf-8")):
            yield page.name, found["words"].split()


def test_commands_that_are_named_exist() -> None:
    import typer

    from gridcompute.cli import app
    from gridcompute.cli.command import leading
    from gridcompute.registry import find, registered

    known = typer.main.get_command(app).commands
    shipped = {workload.name for workload in registered()}
    named = list(commands())
    assert {words[0] for _, words in named} >= {"run", "plan", "resume", "doctor"}
    for page, (name, *rest) in named:
        assert name in known, f"{page} names gridcompute {name}"
        command = getattr(known[name], "commands", {}).get(rest[0] if rest else "", known[name])
        options = {option for one in command.params for option in one.opts} | {"--help"}
        job = next((word for word in rest if not word.startswith("-")), "")
        if name in ("run", "plan") and ("." in job or not job) and job not in shipped:
            continue  # a script, or a workload of somebody else
        if job in shipped:
            workload = find(" ".join(leading(rest)))
            options |= {one.option for one in workload.parameters}
            options |= {one.option.replace("--", "--no-") for one in workload.parameters if one.type is bool}
        for word in rest:
            assert not word.startswith("--") or word in options, f"{page} names {word} of gridcompute {name} {job}"


def test_commands_that_exist_are_documented() -> None:
    import typer

    from gridcompute.cli import app

    page = (ROOT / "docs" / "guide" / "cli.md").read_text(encoding="utf-8")
    for name in typer.main.get_command(app).commands:
        assert f"`gridcompute {name}" in page


def test_the_threat_model_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "concepts" / "threat-model.md").read_text(encoding="utf-8")
    rows = [line.split("|")[-2] for line in page.splitlines() if line.startswith("|") and line.count("|") == 5]
    assert len(rows) > 15
    for row in rows[2:]:
        for part in row.split(";"):
            file, *names = re.findall(r"`(test_\w+(?:\.py)?)`", part) or [""]
            text = (ROOT / "tests" / file).read_text(encoding="utf-8") if file else "conformance"
            assert all(f"def {name}(" in text for name in names), (file, names)
            assert file or "conformance" in part, part
