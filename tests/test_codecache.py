from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from gridcompute import codecache
from gridcompute.codecache import cached_njit, shared_tuple
from gridcompute.codefolder import cache_directory
from gridcompute.errors import StoreError


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path / "own"))


CACHED = """
import json, sys
import numpy as np
sys.dont_write_bytecode = True
from gridcompute.codecache import compile_seconds
from gridcompute.compiled import run_cells
from gridcompute.columns import Fixed
from gridcompute.kernels import kernel
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event.data["dispatcher"].__qualname__)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
from helper import deep
SCALE = 2.0
TABLE = np.arange(3.0)
space = {"deep": deep}
exec("def typed(x):\\n    return deep(x) + 1", space)
typed = space["typed"]
made = kernel("(),(t)->()")(lambda x, t: typed(x) * SCALE + TABLE[1] + t[0] + t[1])
out = run_cells(made, [Fixed(np.ones(3)), Fixed(np.ones((3, 2)))], shape=(3,))
print(json.dumps({"value": out[0].values.tolist(), "compiled": compiled, "seconds": compile_seconds()}))
"""


@pytest.fixture
def run_script(tmp_path):
    (tmp_path / "script.py").write_text(CACHED)
    (tmp_path / "helper.py").write_text("def deep(x):\n    return x * 3\n")

    def command(**environment):
        env = {**os.environ, "GRIDCOMPUTE_CACHE": str(tmp_path / "cache"), **environment}
        return subprocess.Popen(
            [sys.executable, "-W", "error", str(tmp_path / "script.py")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )

    def run(**environment):
        out, errors = command(**environment).communicate()
        return json.loads(out) if out else errors

    run.command = command
    return run


def test_a_second_process_compiles_nothing(run_script, tmp_path):
    first, second = run_script(), run_script()
    assert first["value"] == second["value"] == [4.0 * 2 + 1 + 2] * 3
    assert len(first["compiled"]) >= 2
    assert second["compiled"] == []


LOADED = """
import json, sys
import numpy as np
from gridcompute.codecache import cached_njit
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event.data["dispatcher"].__qualname__)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
def arithmetic(x):
    return np.exp(x[0]) ** 2.5 + x.sum() % 3.0
def sorts(x):
    return np.median(x) + np.argsort(x)[1]
def solves(x):
    return np.linalg.solve(np.diag(x), x).sum() + x @ x
def looks_up(x):
    found = {"a": x[0], "b": x[1]}
    return found["a"] + found["b"]
def listed(x):
    many = [x[0]]
    many.append(x[1])
    return np.array(many).sum() + len(set(many))
def makes(x):
    return np.sort(x)[1:] * 2.0
def fails(x):
    if x[0] > 0:
        raise ValueError("as it does")
    return 0.0
name, x = sys.argv[1], np.array([1.0, 2.0, 4.0])
try:
    value = float(np.sum(cached_njit(globals()[name])(x)))
except ValueError as error:
    value = str(error)
print(json.dumps({"value": value, "compiled": len(compiled), "ready": "numba.np.arraymath" in sys.modules}))
"""


@pytest.mark.parametrize("name", ["arithmetic", "sorts", "solves", "looks_up", "listed", "makes", "fails"])
def test_loaded_code_needs_no_compiler(name, tmp_path):
    """What a second process loads gives the same, though numba isn't made ready to compile as in the first.

    But for looks_up: its hashes read a secret whose name comes with a module of numba's.
    """
    (tmp_path / "script.py").write_text(LOADED)
    env = {**os.environ, "GRIDCOMPUTE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "script.py"), name]
    first, second = (json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
                     for _ in range(2))
    assert first["value"] == second["value"]
    assert first["compiled"] >= 1
    assert first["ready"]
    assert second["compiled"] == 0
    assert second["ready"] == (name == "looks_up")


def test_an_edited_helper_is_compiled_anew(run_script, tmp_path):
    run_script()
    path = tmp_path / "helper.py"
    before = path.stat()
    path.write_text("def deep(x):\n    return x * 4\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    found = run_script()
    assert found["value"] == [5.0 * 2 + 1 + 2] * 3
    assert found["compiled"]


def test_two_processes_compile_once(run_script):
    pair = [run_script.command(), run_script.command()]
    found = [json.loads(one.communicate()[0]) for one in pair]
    assert found[0]["value"] == found[1]["value"]
    compiled = found[0]["compiled"] + found[1]["compiled"]
    assert len(compiled) == len(set(compiled)) >= 2


def test_broken_files_are_compiled_anew(run_script, tmp_path):
    first = run_script()
    files = sorted((tmp_path / "cache").rglob("*.code"))
    assert len(files) >= 2
    damages = [lambda raw: raw[:-9], lambda raw: raw[:100] + b"?" + raw[101:], lambda raw: b""]
    for file, damage in zip(files, damages, strict=False):
        file.write_bytes(damage(file.read_bytes()))
    second = run_script()
    assert second["value"] == first["value"]
    assert len(second["compiled"]) >= 2
    assert run_script()["compiled"] == []


def test_the_cache_is_private(run_script, tmp_path):
    run_script()
    for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    folder = tmp_path / "cache" / "code"
    folder.chmod(0o777)
    assert "others may write to it" in run_script()
    folder.chmod(0o700)
    for file in folder.rglob("*.code"):
        file.chmod(0o666)
    assert "others may write to it" in run_script()


def test_foreign_folders_are_refused(tmp_path, monkeypatch):
    link = tmp_path / "link"
    (tmp_path / "real").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "real")
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(link))
    with pytest.raises(StoreError, match="symbolic link"):
        cache_directory()
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path / "real"))
    assert cache_directory() == tmp_path / "real" / "code"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(StoreError, match="belongs to uid"):
        cache_directory()


def test_without_a_cache_folder_code_is_compiled_with_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRIDCOMPUTE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="can't be kept"):
        assert cached_njit(lambda x: x + 41)(1) == 42


def test_versions_of_a_function_do_not_share_machine_code(tmp_path):
    # Each version compiled by a process of its own, so that numba numbers them alike; then both loaded into one.
    source = textwrap.dedent("""
        import sys
        from gridcompute.codecache import cached_njit
        def make(n):
            space = {}
            exec(f"def big(x):\\n    if x > 10.0:\\n        return x\\n    return big(x + 1.0) * {n}.0\\n"
                 "def f(x):\\n    return big(x) + big(x * 0.5)", space)
            return cached_njit(space["f"])
        print([make(int(n))(9.5) for n in sys.argv[1:]])
    """)
    env = {**os.environ, "GRIDCOMPUTE_CACHE": str(tmp_path)}

    def run(*versions):
        return json.loads(
            subprocess.run(
                [sys.executable, "-c", source, *versions], capture_output=True, text=True, check=True, env=env
            ).stdout
        )

    alone = run("2") + run("3")
    assert alone[0] != alone[1]
    assert run("2", "3") == alone
    assert run("3", "2") == alone[::-1]


# -- functions that a function calls


def plain(x):
    return x * 2


@njit
def jitted(x):
    return plain_twin(x) + 1


@njit
def plain_twin(x):
    return x * 2


def test_plain_functions_are_compiled_with_it():
    inner = lambda x: plain(x) + jitted(x)  # noqa: E731

    def outer(x):
        return inner(x) + 1

    assert cached_njit(outer)(3.0) == 6 + 7 + 1


def test_functions_that_call_themselves():
    space: dict = {}
    exec(
        "def even(n):\n    if n == 0:\n        return True\n    return odd(n - 1)\n"
        "def odd(n):\n    if n == 0:\n        return False\n    return even(n - 1)\n"
        "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)",
        space,
    )
    assert cached_njit(space["fib"])(10) == 55
    assert cached_njit(space["even"])(10)


def test_functions_of_modules_are_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "def f(x):\n    return g(x) + 1\ndef g(x):\n    return x * 10\nLIMIT = 5\n"
    (tmp_path / "deep_module_x.py").write_text(text)
    import deep_module_x as module

    def outer(x):
        return module.f(x) + module.g(x) + module.LIMIT

    assert cached_njit(outer)(2) == 21 + 20 + 5
    space: dict = {"module": module}
    exec("def outer(x):\n    return module.f(x) + module.LIMIT", space)
    assert cached_njit(space["outer"])(2) == 21 + 5
    assert not hasattr(module.f, "py_func")


def test_one_function_is_one_dispatcher():
    def make():
        return lambda x: x + 7

    assert cached_njit(make()) is cached_njit(make())
    assert cached_njit(make(), "other") is not cached_njit(make())
    assert cached_njit(make(), flags=frozenset({"reassoc"})) is not cached_njit(make())


def test_arrays_that_lie_apart_need_no_check_of_it():
    def make():
        def work(a, b, c, d, x):
            for i in range(len(x)):
                a[i] += x[i]
                b[i] += a[i] * x[i]
                c[i] += b[i] / x[i]
                d[i] += c[i] - b[i]

        return work

    x = np.random.default_rng(1).normal(size=1000)
    sums = []
    for apart in (False, True):
        compiled, arrays = cached_njit(make(), apart=apart), np.zeros((4, 1000))
        compiled(*arrays, x)
        sums.append(arrays)
    assert cached_njit(make(), apart=True) is not cached_njit(make())
    assert sums[0].tobytes() == sums[1].tobytes()
    assert all("noalias" in text for text in cached_njit(make(), apart=True).inspect_llvm().values())


class Mine(NamedTuple):
    lon: np.ndarray
    lat: float


class Other(NamedTuple):
    lon: np.ndarray
    lat: float


def test_named_tuples_share_code_by_their_fields():
    a, b = shared_tuple(Mine(np.ones(2), 1.0)), shared_tuple(Other(np.ones(2), 2.0))
    assert type(a) is type(b)
    assert cached_njit(lambda t: t.lon[0] + t.lat)(a) == 2.0
    assert getattr(codecache, type(a).__name__) is type(a)
    with pytest.raises(AttributeError):
        _ = codecache.nothing
