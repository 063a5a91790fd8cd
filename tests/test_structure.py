"""The house rules: sizes, names, layers, exports, lazy imports, and nothing that ties a file to one machine.

Adding a module is one line in LEVELS. A module imports only from strictly lower levels, wherever the import
stands: at the top, inside a function, or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"gridcompute": ROOT / "gridcompute", "gridcompute_workloads": ROOT / "workloads"}

# Levels have gaps, so that a module can go between two others.
LEVELS = {
    "gridcompute._myers": 0,
    "gridcompute._medians": -1,
    "gridcompute._sen": 0,
    "gridcompute.calendar": 0,
    "gridcompute.errors": 0,
    "gridcompute.secrecy": -1,
    "gridcompute.interrupts": 0,
    "gridcompute.ipcsizes": 0,
    "gridcompute.threads": 0,
    "gridcompute.blas": 0,
    "gridcompute.numerics": 0,
    "gridcompute.stores": 0,
    "gridcompute.syntax": 0,
    "gridcompute.walks": 0,
    "gridcompute.vectors.lanes": 24,
    "gridcompute.vectors.permute": 25,
    "gridcompute.vectors.types": 26,
    "gridcompute.vectors.lowering": 27,
    "gridcompute.vectors.methods": 28,
    "gridcompute.vectors": 29,
    "gridcompute.alignment.scoring": 24,
    "gridcompute.alignment.cigars": 25,
    "gridcompute.alignment.one": 26,
    "gridcompute.alignment.costs": 25,
    "gridcompute.alignment.lanes": 30,
    "gridcompute.alignment.wavefront": 31,
    "gridcompute.alignment.similar": 31,
    "gridcompute.alignment.tables": 31,
    "gridcompute.alignment.paths": 32,
    "gridcompute.alignment.edit_lanes": 30,
    "gridcompute.alignment.edit_groups": 31,
    "gridcompute.alignment.edit_strips": 31,
    "gridcompute.alignment.edit_path": 32,
    "gridcompute.alignment.edits": 32,
    "gridcompute.alignment.edit_paths": 33,
    "gridcompute.alignment.published": 0,
    "gridcompute.alignment.matrices": 25,
    "gridcompute.alignment.lookups": 30,
    "gridcompute.alignment.local": 31,
    "gridcompute.alignment.differences": 32,
    "gridcompute.alignment.search": 32,
    "gridcompute.alignment.significance": 24,
    "gridcompute.alignment": 40,
    "gridcompute.atomics": 0,
    "gridcompute.stretches": 0,
    "gridcompute.installs": 1,
    "gridcompute.skips": 1,
    "gridcompute.behind": 2,
    "gridcompute.digests": 2,
    "gridcompute._reads": 3,
    "gridcompute._seeds": 3,
    "gridcompute.coords": 3,
    "gridcompute.auxiliary": 4,
    "gridcompute.events": 3,
    "gridcompute.keys": 3,
    "gridcompute.progressword": 3,
    "gridcompute.random": 3,
    "gridcompute.reaper": 0,
    "gridcompute.signature": 3,
    "gridcompute._pairs": 1,
    "gridcompute._kendall": 2,
    "gridcompute._corrected": 3,
    "gridcompute.stats": 4,
    "gridcompute.codefolder": 3,
    "gridcompute.codeloading": 3,
    "gridcompute.stores.base": 3,
    "gridcompute.sequences": 35,
    "gridcompute.stores.local": 6,
    "gridcompute.stores.memory": 6,
    "gridcompute.stores.remote": 6,
    "gridcompute.codecache": 6,
    "gridcompute.declared": 3,
    "gridcompute.kernels": 10,
    "gridcompute.spaces": 10,
    "gridcompute.store": 10,
    "gridcompute.axes": 13,
    "gridcompute.columns": 13,
    "gridcompute.loops": 14,
    "gridcompute.times": 14,
    "gridcompute.access": 15,
    "gridcompute.segments": 16,
    "gridcompute.rechunking": 14,
    "gridcompute.cellinputs": 15,
    "gridcompute.cellmethods": 22,
    "gridcompute.unchecked": 14,
    "gridcompute.fold_loops": 15,
    "gridcompute.arrowcolumns": 15,
    "gridcompute.content": 15,
    "gridcompute.rowgroups": 16,
    "gridcompute.planes": 16,
    "gridcompute.extents": 16,
    "gridcompute.groupreads": 18,
    "gridcompute.argtypes": 16,
    "gridcompute.edges": 15,
    "gridcompute.shares": 16,
    "gridcompute.steploops": 17,
    "gridcompute.chunkcall": 16,
    "gridcompute.sinks.base": 15,
    "gridcompute.sources.base": 15,
    "gridcompute.compiled": 17,
    "gridcompute.fold": 17,
    "gridcompute.fold_bands": 18,
    "gridcompute.skipping": 18,
    "gridcompute.apart": 19,
    "gridcompute.shardfile": 17,
    "gridcompute.quantile_sketch": 22,
    "gridcompute.journal": 20,
    "gridcompute.lease": 20,
    "gridcompute.op": 20,
    "gridcompute.reducer": 20,
    "gridcompute.skipnotes": 21,
    "gridcompute.shard": 20,
    "gridcompute.reduction_steps": 22,
    "gridcompute.line_steps": 22,
    "gridcompute.reductions": 25,
    "gridcompute.checkpoints": 26,
    "gridcompute.bands": 17,
    "gridcompute.members": 15,
    "gridcompute.dags": 15,
    "gridcompute.dagloops": 18,
    "gridcompute.flows": 30,
    "gridcompute.gang": 27,
    "gridcompute.spread": 28,
    "gridcompute.stepping": 29,
    "gridcompute.actions.loads": 26,
    "gridcompute.readahead": 27,
    "gridcompute.actions.maps": 26,
    "gridcompute.actions.shapes": 26,
    "gridcompute.actions.writes": 26,
    "gridcompute.actions.folds": 28,
    "gridcompute.actions.gaps": 28,
    "gridcompute.actions.rows": 28,
    "gridcompute.actions.shuffles": 28,
    "gridcompute.actions.rechunks": 29,
    "gridcompute.actions.grams": 28,
    "gridcompute.actions.stencils": 30,
    "gridcompute.actions.dags": 31,
    "gridcompute.actions.groups": 29,
    "gridcompute.actions": 32,
    "gridcompute.sources.buffers": 0,
    "gridcompute.sources.bloscs": 0,
    "gridcompute.sources.chunks": 3,
    "gridcompute.sources.classic": 0,
    "gridcompute.sources.gribs": 0,
    "gridcompute.sources.contained": 2,
    "gridcompute.sources.files": 3,
    "gridcompute.tabular": 15,
    "gridcompute.sources.decoding": 17,
    "gridcompute.sources.auxiliaries": 18,
    "gridcompute.sources.references": 17,
    "gridcompute.sources.joined": 17,
    "gridcompute.sources.blocks": 18,
    "gridcompute.sources.norows": 18,
    "gridcompute.sources.inflating": 15,
    "gridcompute.sources.reads": 17,
    "gridcompute.sources.mates": 18,
    "gridcompute.sources.parsing": 18,
    "gridcompute.sources.bam": 18,
    "gridcompute.sources.seqtables": 18,
    "gridcompute.sources.marks": 19,
    "gridcompute.bgzf": 14,
    "gridcompute.bamcounts": 14,
    "gridcompute.bai": 15,
    "gridcompute.stores.joining": 11,
    "gridcompute.sinks.bam": 20,
    "gridcompute.sinks.tables": 20,
    "gridcompute.sinks.zarrs": 20,
    "gridcompute.sources.arrays": 20,
    "gridcompute.sources.fastx": 20,
    "gridcompute.sources.index": 20,
    "gridcompute.sources.tables": 20,
    "gridcompute.sources.zarrs": 20,
    "gridcompute.sinks.opening": 22,
    "gridcompute.sinks.results": 22,
    "gridcompute.sources.xarrays": 22,
    "gridcompute.sources.lazy": 23,
    "gridcompute.sinks": 30,
    "gridcompute.sources": 30,
    "gridcompute.arithmetic": 5,
    "gridcompute.attaching": 5,
    "gridcompute.certificates": 3,
    "gridcompute.config": 3,
    "gridcompute.retry": 10,
    "gridcompute.attempts": 13,
    "gridcompute.durations": 0,
    "gridcompute.outlasting": 11,
    "gridcompute.pacing": 0,
    "gridcompute.ready": 0,
    "gridcompute.planview": 3,
    "gridcompute.sizes": 13,
    "gridcompute.drops": 13,
    "gridcompute.ballots": 14,
    "gridcompute.state": 20,
    "gridcompute.voting": 21,
    "gridcompute.status": 5,
    "gridcompute.assemble": 30,
    "gridcompute.destined": 31,
    "gridcompute.located": 31,
    "gridcompute.ops": 32,
    "gridcompute.ops_compare": 33,
    "gridcompute.ops_positions": 33,
    "gridcompute.ops_rows": 34,
    "gridcompute.ops_weights": 34,
    "gridcompute.ops_dags": 34,
    "gridcompute.reducing": 33,
    "gridcompute.ops_gaps": 35,
    "gridcompute.ops_windows": 35,
    "gridcompute.ops_grams": 35,
    "gridcompute.cost": 33,
    "gridcompute.parts": 33,
    "gridcompute.bounds": 38,
    "gridcompute.footprint": 3,
    "gridcompute.lower": 35,
    "gridcompute.onerror": 36,
    "gridcompute.peaks": 36,
    "gridcompute.planning": 37,
    "gridcompute.collection": 38,
    "gridcompute.grams": 39,
    "gridcompute.stored": 40,
    "gridcompute.marked": 41,
    "gridcompute.record": 40,
    "gridcompute.lazyarrays": 42,
    "gridcompute.results": 44,
    "gridcompute.commits": 30,
    "gridcompute.votes": 31,
    "gridcompute.pointwise": 31,
    "gridcompute.tiles": 32,
    "gridcompute.slabs": 33,
    "gridcompute.endings": 34,
    "gridcompute.ended": 35,
    "gridcompute.orders": 49,
    "gridcompute.worker": 50,
    "gridcompute.absent": 53,
    "gridcompute.intermediates": 53,
    "gridcompute.ledger": 52,
    "gridcompute.deliveries": 54,
    "gridcompute.pages": 51,
    "gridcompute.outputs": 40,
    "gridcompute.executor": 54,
    "gridcompute.ray_session": 54,
    "gridcompute.shipping": 15,
    "gridcompute.ray_watch": 54,
    "gridcompute.losses": 52,
    "gridcompute.verdicts": 52,
    "gridcompute.looks": 55,
    "gridcompute.leftovers": 55,
    "gridcompute.driver": 56,
    "gridcompute.ray_nodes": 55,
    "gridcompute.ray_places": 55,
    "gridcompute.ray_calls": 55,
    "gridcompute.ray_executor": 56,
    "gridcompute.explain": 58,
    "gridcompute.progress": 58,
    "gridcompute.places": 57,
    "gridcompute.identified": 30,
    "gridcompute.running": 60,
    "gridcompute.accessor": 46,
    "gridcompute.api": 70,
    "gridcompute.datasets": 45,
    "gridcompute.plots": 5,
    "gridcompute.maps": 6,
    "gridcompute.timing": 51,
    "gridcompute.reasons": 57,
    "gridcompute.origins": 59,
    "gridcompute.summary": 61,
    "gridcompute.doctor": 61,
    "gridcompute.cleaning": 62,
    "gridcompute.parameters": 64,
    "gridcompute.registry": 65,
    "gridcompute.resuming": 75,
    "gridcompute.reading": 53,
    "gridcompute.single": 53,
    "gridcompute.replaying": 76,
    "gridcompute.cli.replay": 82,
    "gridcompute.cli.command": 80,
    "gridcompute.cli.output": 80,
    "gridcompute.cli.options": 80,
    "gridcompute.cli.cluster": 82,
    "gridcompute.cli.jobs": 82,
    "gridcompute.cli.machine": 82,
    "gridcompute.cli.runs": 82,
    "gridcompute.cli.chaos": 88,
    "gridcompute.cli": 89,
    "gridcompute.testing": 80,
    "gridcompute.testing.keeper": 81,
    "gridcompute.testing.kept": 82,
    "gridcompute.testing.proxy": 81,
    "gridcompute.testing.radosgw": 83,
    "gridcompute.testing.links": 83,
    "gridcompute.testing.cluster": 84,
    "gridcompute.testing.executors": 81,
    "gridcompute.testing.faults": 81,
    "gridcompute.testing.nodes": 81,
    "gridcompute.testing.liars": 81,
    "gridcompute.testing.simulated": 81,
    "gridcompute.testing.stores": 82,
    "gridcompute.testing.schedule": 81,
    "gridcompute.testing.compared": 81,
    "gridcompute.testing.injecting": 82,
    "gridcompute.testing.virtual": 83,
    "gridcompute.testing.lives": 84,
    "gridcompute.testing.chaos": 86,
    "gridcompute": 90,
    "gridcompute.__main__": 95,
    "gridcompute_workloads": 100,
    "gridcompute_workloads.climate": 100,
    "gridcompute_workloads.climate.inputs": 101,
    "gridcompute_workloads.climate.pictures": 102,
    "gridcompute_workloads.climate.eof": 110,
    "gridcompute_workloads.climate.grams": 100,
    "gridcompute_workloads.climate.weights": 104,
    "gridcompute_workloads.climate.rechunk": 110,
    "gridcompute_workloads.climate.etccdi": 100,
    "gridcompute_workloads.climate.etccdi.days": 101,
    "gridcompute_workloads.climate.etccdi.bootstrap": 101,
    "gridcompute_workloads.climate.etccdi.kernels": 102,
    "gridcompute_workloads.climate.etccdi.table": 103,
    "gridcompute_workloads.climate.daily": 104,
    "gridcompute_workloads.climate.indices": 110,
    "gridcompute_workloads.climate.trend": 110,
    "gridcompute_workloads.climate.refining": 105,
    "gridcompute_workloads.climate.quantile": 110,
    "gridcompute_workloads.climate.normals": 103,
    "gridcompute_workloads.climate.means": 104,
    "gridcompute_workloads.climate.climatology": 110,
    "gridcompute_workloads.climate.areas": 104,
    "gridcompute_workloads.climate.zonal": 111,
    "gridcompute_workloads.climate.scores": 105,
    "gridcompute_workloads.climate.verify": 111,
    "gridcompute_workloads.climate.grids": 103,
    "gridcompute_workloads.climate.regridding": 104,
    "gridcompute_workloads.climate.regridding.applying": 104,
    "gridcompute_workloads.climate.regridding.gridfiles": 104,
    "gridcompute_workloads.climate.regridding.weights": 105,
    "gridcompute_workloads.climate.regridding.bilinear": 106,
    "gridcompute_workloads.climate.regridding.conservative": 106,
    "gridcompute_workloads.climate.regridding.files": 106,
    "gridcompute_workloads.climate.regridding.nearest": 106,
    "gridcompute_workloads.climate.regridding.clipping": 107,
    "gridcompute_workloads.climate.regrid": 110,
    "gridcompute_workloads.climate.differences": 104,
    "gridcompute_workloads.climate.gradient": 111,
    "gridcompute_workloads.climate.eddies": 105,
    "gridcompute_workloads.climate.tem": 110,
    "gridcompute_workloads.mapping.seeds": 100,
    "gridcompute_workloads.mapping.index": 101,
    "gridcompute_workloads.mapping.places": 102,
    "gridcompute_workloads.mapping.lanes": 103,
    "gridcompute_workloads.mapping.quality": 103,
    "gridcompute_workloads.mapping.pairs": 103,
    "gridcompute_workloads.mapping.choice": 104,
    "gridcompute_workloads.mapping.kernel": 105,
    "gridcompute_workloads.mapping": 106,
    "gridcompute_workloads.references": 108,
    "gridcompute_workloads.mapping.records": 104,
    "gridcompute_workloads.mapping.pictures": 104,
    "gridcompute_workloads.genomes": 109,
    "gridcompute_workloads.mapping.header": 104,
    "gridcompute_workloads.map": 110,
    "gridcompute_workloads.genomics": 110,
    "gridcompute_workloads.pairs": 110,
    "gridcompute_workloads.proteins": 108,
    "gridcompute_workloads.search": 110,
}
# (importer, imported) pairs that may share a level: a module and the private half that was split off it.
SIBLINGS: set[tuple[str, str]] = set()
# What describes work (below) never imports what carries it out (from here on).
RUNTIME_LEVEL = 50

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FORBIDDEN_WORDS = {
    word + plural
    for word in ("manager", "handler", "util", "helper", "engine", "context")
    for plural in ("", "s")
}
LAZY = ("ray", "matplotlib", "xarray", "dask")


# --- the checkers: each takes a tree or a graph, so that the tests below can show them small broken ones ---


def find_modules(folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return module name -> file for every Python file of the packages; a package is named by its folder."""
    found = {}
    for package, folder in folders.items():
        for file in sorted(folder.rglob("*.py")):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _imported_names(node: ast.AST, module: str, file: Path, modules: Mapping[str, Path]) -> list[str]:
    """Return the absolute names of the modules that a node imports; `from a import b` may be a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parts = module.split(".")
        base = parts[: len(parts) - node.level + (file.name == "__init__.py")] if node.level else []
        origin = ".".join([*base, *([node.module] if node.module else [])])
        submodules = [f"{origin}.{alias.name}" for alias in node.names]
        return [name if name in modules else origin for name in submodules]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def import_graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return module -> the modules of the same tree that it names in any import, wherever it stands."""
    packages = {module.partition(".")[0] for module in modules}
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        names = {name for node in nodes for name in _imported_names(node, module, file, modules)}
        graph[module] = {name for name in names - {module} if name.partition(".")[0] in packages}
    return graph


def level_faults(
    graph: Mapping[str, set[str]], levels: Mapping[str, int], siblings: set[tuple[str, str]]
) -> list[str]:
    """Return a line for each module without a level and each import that does not go strictly down."""
    named = set(graph).union(*graph.values())
    faults = [f"{name} has no level: add a line to LEVELS" for name in sorted(named - set(levels))]
    for module, imported in graph.items():
        for name in sorted(imported):
            if module not in levels or name not in levels or (module, name) in siblings:
                continue
            if levels[name] >= levels[module]:
                faults.append(f"{module} (level {levels[module]}) imports {name} (level {levels[name]})")
    return faults


def find_circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of one import circle, first equal to last; an empty list if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for name in sorted(graph.get(module, ())):
            if circle := visit(name, [*path, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module, []))), [])


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return spaced.lower().replace(".", "_").split("_")


def form_faults(modules: Mapping[str, Path]) -> list[str]:
    """Return a line for each file or function that is too long and each name with a forbidden word."""
    faults = []
    for module, file in modules.items():
        text = file.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            faults.append(f"{module} has {lines} lines, more than {MAX_FILE_LINES}")
        names = [(module, 1)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.append((node.name, node.lineno))
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if not isinstance(node, ast.ClassDef) and length > MAX_FUNCTION_LINES:
                    faults.append(f"{module}:{node.lineno} {node.name} has {length} lines, more than 60")
        for name, line in names:
            if bad := FORBIDDEN_WORDS.intersection(_words(name)):
                faults.append(f"{module}:{line} {name}: say what it does instead of {', '.join(bad)!r}")
    return faults


# Written so that it does not find itself, for this file is checked as well.
TIED = re.compile(
    r"pypi[.]|python[h]osted|anaconda[.](org|com)|docker[.]io|ghcr[.]io|quay[.]io|index[-]url|[-]-find[-]links"
    # /home/ray is where Ray's own container image lives, and means the same everywhere.
    r"|(?<![\w.~/}$-])/(work|root|home(?!/ray\b))/[\w.]"
)


def tied_lines(text: str) -> list[str]:
    """Return the lines that name a package registry or an absolute path of somebody's machine."""
    return [line.strip()[:120] for line in text.splitlines() if TIED.search(line)]


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every text file that git tracks, or of the whole tree where git knows nothing."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        names = [str(path.relative_to(ROOT)) for folder in FOLDERS.values() for path in folder.rglob("*.py")]
    for name in names:
        if not (ROOT / name).is_file():
            continue  # deleted, not yet committed
        content = (ROOT / name).read_bytes()
        if b"\0" not in content[:8192]:
            yield name, content.decode("utf-8", errors="replace")


# --- the rules over the real tree ---


def test_the_package_is_found() -> None:
    assert "gridcompute.errors" in find_modules(FOLDERS)


def test_every_module_has_a_level_and_imports_only_downward() -> None:
    assert level_faults(import_graph(find_modules(FOLDERS)), LEVELS, SIBLINGS) == []


def test_no_import_circles() -> None:
    assert find_circle(import_graph(find_modules(FOLDERS))) == []


def test_sizes_and_names() -> None:
    assert form_faults(find_modules(FOLDERS)) == []


def test_no_file_is_tied_to_a_machine_or_a_registry() -> None:
    faults = [f"{name}: {line}" for name, text in tracked_texts() for line in tied_lines(text)]
    assert faults == []


def test_exports_resolve_are_sorted_and_documented() -> None:
    package = importlib.import_module("gridcompute")
    exported = list(getattr(package, "__all__", []))
    assert exported or "gridcompute.api" not in find_modules(FOLDERS), "an api, but nothing in __all__"
    assert exported == sorted(set(exported))
    undocumented = [name for name in exported if not inspect.getdoc(getattr(package, name))]
    assert undocumented == []


def _loaded_after(statements: str) -> set[str]:
    """Return the names in sys.modules of a fresh interpreter that ran some statements."""
    code = f"{statements}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_leaves_the_heavy_libraries_alone() -> None:
    assert _loaded_after("import gridcompute").intersection(LAZY) == set()


def test_describing_work_never_imports_the_runtime() -> None:
    modules = [name for name in find_modules(FOLDERS) if LEVELS.get(name, RUNTIME_LEVEL) < RUNTIME_LEVEL]
    loaded = _loaded_after("\n".join(f"import {name}" for name in modules))
    assert set(modules) <= loaded
    runtime = {name for name, level in LEVELS.items() if level >= RUNTIME_LEVEL and name != "gridcompute"}
    assert loaded.intersection({*runtime, "ray"}) == set()


# --- the checkers themselves, on small trees ---


def _tree(folder: Path, **files: str) -> dict[str, Path]:
    """Write `a__b="source"` as toy/a/b.py and return the modules of the package toy."""
    for name, source in {"__init__": "", **files}.items():
        path = folder / "toy" / Path(*re.split(r"(?<=[a-z])__(?=[a-z_])", name)).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return find_modules({"toy": folder / "toy"})


@pytest.mark.parametrize(
    "source",
    [
        "import toy.b",
        "import toy.b as x",
        "from toy import b",
        "from toy.b import something",
        "from . import b",
        "from .b import something",
        "def f():\n    from toy.b import something",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy import b",
        "import importlib\nimportlib.import_module('toy.b')",
    ],
)
def test_every_form_of_import_is_seen(tmp_path: Path, source: str) -> None:
    graph = import_graph(_tree(tmp_path, a=source, b=""))
    assert graph["toy.a"] == {"toy.b"}
    assert level_faults(graph, {"toy": 9, "toy.a": 1, "toy.b": 0}, set()) == []
    assert level_faults(graph, {"toy": 9, "toy.a": 1, "toy.b": 1}, set()) != []
    assert level_faults(graph, {"toy": 9, "toy.a": 1, "toy.b": 1}, {("toy.a", "toy.b")}) == []


def test_relative_imports_climb_from_where_they_stand(tmp_path: Path) -> None:
    inner = "from ..b import x\nfrom .. import y"
    modules = _tree(tmp_path, sub____init__="from . import c", sub__c=inner, b="")
    assert set(modules) == {"toy", "toy.b", "toy.sub", "toy.sub.c"}
    graph = import_graph(modules)
    assert graph["toy.sub"] == {"toy.sub.c"}
    assert graph["toy.sub.c"] == {"toy.b", "toy"}


def test_a_module_without_a_level_is_named(tmp_path: Path) -> None:
    faults = level_faults(import_graph(_tree(tmp_path, a="")), {"toy": 0}, set())
    assert faults == ["toy.a has no level: add a line to LEVELS"]


def test_a_circle_is_found(tmp_path: Path) -> None:
    late = "def f():\n    import toy.a"
    modules = _tree(tmp_path, a="import toy.b", b="import toy.c", c=late, d="import toy.a")
    assert find_circle(import_graph(modules)) == ["toy.a", "toy.b", "toy.c", "toy.a"]
    modules["toy.c"].write_text("import json", encoding="utf-8")
    assert find_circle(import_graph(modules)) == []


def test_lengths_are_measured(tmp_path: Path) -> None:
    assert form_faults(_tree(tmp_path, a="x = 1\n" * 400, b="def f():\n" + "    x = 1\n" * 59)) == []
    faults = form_faults(_tree(tmp_path, a="x = 1\n" * 401, b="def f():\n" + "    x = 1\n" * 60))
    assert [fault.split(",")[0] for fault in faults] == ["toy.a has 401 lines", "toy.b:1 f has 61 lines"]


@pytest.mark.parametrize(
    "name", ["TaskManager", "handler", "io_utils", "Helpers", "HTTPEngine", "run_context", "_util"]
)
def test_forbidden_words_are_found(tmp_path: Path, name: str) -> None:
    modules = _tree(tmp_path, a=f"class X:\n    def {name}(self): ...", b=f"class {name}: ...")
    assert len(form_faults(modules)) == 2


def test_a_forbidden_module_name_is_found_and_longer_words_are_not(tmp_path: Path) -> None:
    assert len(form_faults(_tree(tmp_path, utils=""))) == 1
    longer = "def contextual(): ...\nclass Manageress: ..."
    assert form_faults(_tree(tmp_path / "two", engineering=longer)) == []


def test_tied_lines_are_found_and_relative_ones_are_not() -> None:
    host, path = "https://py" + "pi.org/simple", "/" + "root/x"
    fine = ["../work/x", "a/home/b", "~/work/x", "$HOME/x", "/home/ray/x", "${X}/work/y", "s3://bucket/work"]
    assert tied_lines("\n".join([host, *fine, path, f"'{path}'", "--extra-index" + "-url x"])) == [
        host, path, f"'{path}'", "--extra-index" + "-url x",
    ]  # fmt: skip
