from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import linecache
import math
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from gridcompute.errors import UnkeyableError
from gridcompute.keys import digest, explain_difference, function_key, function_parts, machine_key

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a, b):
    """Equal in type and in bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


@given(PLAIN, PLAIN)
def test_digests_are_equal_exactly_where_values_are(a, b):
    assert (digest(a) == digest(b)) == same(a, b)


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Access:
    dims: tuple[str, ...]


class Keyed:
    def __init__(self, key):
        self.key = key


class KeyMethod:
    def key(self):
        return "k"


DIFFERENT = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**80,
    0.0,
    -0.0,
    math.nan,
    math.inf,
    1.0,
    1j,
    "",
    "1",
    b"",
    b"1",
    (),
    [],
    {},
    frozenset(),
    (1, 2),
    (12,),
    ("1", "2"),
    ("12",),
    ((1,), 2),
    (1, (2,)),
    {"a": 1},
    {"a": 1, "b": 2},
    frozenset({1}),
    ("ab", ""),
    ("a", "b"),
    np.float64(1),
    np.float32(1),
    np.int64(1),
    np.uint8(1),
    np.bool_(True),
    np.dtype("i4"),
    np.dtype("f4"),
    np.dtype(">i4"),
    np.datetime64(1, "s"),
    np.datetime64(1, "D"),
    np.arange(3),
    np.arange(3.0),
    np.arange(3).astype("i4"),
    np.zeros((2, 3)),
    np.zeros((3, 2)),
    np.zeros(0),
    np.zeros((0, 2)),
    np.array(["a"], object),
    np.array(["b"], object),
    np.array(1),
    np.array([(1, 2)], [("a", "i4"), ("b", "i4")]),
    Colour.RED,
    Pair(1, 2),
    Pair(2, 1),
    Access(("a",)),
    Access(("b",)),
    Keyed("a"),
    Keyed("b"),
    KeyMethod(),
    {1: "a"},
    {"1": "a"},
    Ellipsis,
    "\ud800",
]


def test_digests_of_unlike_values_differ():
    digests = [digest(value) for value in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)
    assert all(len(one) == 32 and int(one, 16) >= 0 for one in digests)


def test_what_makes_no_difference():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) == digest(types.MappingProxyType({"a": 1, "b": 2}))
    array = np.arange(12).reshape(3, 4)
    assert digest(array[:, ::2]) == digest(array[:, ::2].copy()) == digest(np.asfortranarray(array[:, ::2]))
    assert digest({3, 1, 2}) == digest(frozenset([2, 1, 3]))


def test_digests_are_the_same_in_another_process():
    code = "from gridcompute.keys import digest; print(digest(({'b': 1.5, 'a': frozenset('xyz')}, b'', None)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert run.stdout.strip() == digest(({"b": 1.5, "a": frozenset("xyz")}, b"", None))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, object()]}, r"the value\['a'\]\[1\]"),
        (Access((open,)), r"the value\.dims\[0\]"),
        (np.array([1, object()], object), r"the value\[1\]"),
        ({object(): 1}, "a key of the value"),
        (np.ma.masked_array([1]), "MaskedArray"),
    ],
)
def test_other_values_are_refused_with_the_path_to_them(value, path):
    with pytest.raises(UnkeyableError, match=path):
        digest(value)


def test_a_list_that_contains_itself_is_refused():
    loop: list = []
    loop.append(loop)
    with pytest.raises(UnkeyableError, match="contains itself"):
        digest(loop)


KERNELS = '''
import numpy as np
from enum import Enum
from numba import njit
import helpers_{n}
from helpers_{n} import scale
import helpers_{n} as other

LIMIT = 3
UNREAD = [object()]
TABLE = np.arange(4)

class Mode(Enum):
    FAST = 1

def outer(n):
    def inner(x, y=2):
        return x + n
    return inner

closure = outer(5)

@njit
def twice(x):
    return 2 * x

def kernel(x, threshold=0.5):
    """What it does."""
    total = 0.0
    for i in range(LIMIT):
        total += scale(x) + other.shift(x) + TABLE[i]
    if total > threshold and Mode.FAST.value:
        return twice(closure(total))  # a comment
    return max([v for v in (total, np.sqrt(x))])
'''

HELPERS = """
FACTOR = 10

def scale(x):
    return deep(x) * FACTOR

def deep(x):
    return x + 1

def shift(x):
    return x - 1
"""


class Project:
    """Two modules in a folder, imported anew after each edit."""

    count = 0

    def __init__(self, folder, monkeypatch):
        Project.count += 1
        self.folder, self.n = folder, Project.count
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        self.kernels, self.helpers = KERNELS.replace("{n}", str(self.n)), HELPERS

    def parts(self):
        for name, text in (("kernels", self.kernels), ("helpers", self.helpers)):
            (self.folder / f"{name}_{self.n}.py").write_text(text)
            sys.modules.pop(f"{name}_{self.n}", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        self.module = importlib.import_module(f"kernels_{self.n}")
        return function_parts(self.module.kernel)


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("kernels", "total > threshold", "total >= threshold", "code of kernels.kernel changed"),
        ("kernels", "total = 0.0", "total = 0", "code of kernels.kernel changed"),
        ("kernels", "LIMIT = 3", "LIMIT = 4", "global LIMIT changed"),
        ("kernels", "LIMIT = 3", "LIMIT = 3.0", "global LIMIT changed"),
        ("kernels", "arange(4)", "arange(5)", "global TABLE changed"),
        ("kernels", "FAST = 1", "FAST = 2", "global Mode changed"),
        ("kernels", "outer(5)", "outer(6)", "closure n of kernels.outer.inner changed"),
        ("kernels", "y=2", "y=3", "default y of kernels.outer.inner changed"),
        ("kernels", "return 2 * x", "return 3 * x", "code of kernels.twice changed"),
        ("kernels", "@njit\n", "@njit(fastmath=True)\n", "flags of kernels.twice is new"),
        ("kernels", "threshold=0.5", "threshold=0.6", "default threshold of kernels.kernel changed"),
        ("kernels", "np.sqrt(x)", "np.cbrt(x)", "global np.cbrt is new"),
        ("kernels", "import scale", "import shift as scale", "code of helpers.scale is no longer used"),
        ("helpers", "FACTOR = 10", "FACTOR = 11", "global FACTOR changed"),
        ("helpers", "x + 1", "x + 2", "code of helpers.deep changed"),
        ("helpers", "x - 1", "x - 2", "code of helpers.shift changed"),
    ],
)
def test_an_edit_changes_the_key_and_says_what(project, file, old, new, says):
    before = project.parts()
    source = getattr(project, file)
    assert old in source
    setattr(project, file, source.replace(old, new))
    after = project.parts()
    assert digest(before) != digest(after)
    told = [line.replace(f"_{project.n}", "") for line in explain_difference(before, after)]
    assert says in told


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("kernels", "  # a comment", "  # another comment, longer"),
        ("kernels", '"""What it does."""', '"""What it does, in other words."""'),
        ("kernels", '    """What it does."""\n', ""),
        ("kernels", "total = 0.0", "total: float = 0.0"),
        (
            "kernels",
            "def kernel(x, threshold=0.5)",
            "def kernel(\n    x: float,\n    threshold: float = 0.5,\n) -> float",
        ),
        (
            "kernels",
            "total += scale(x) + other.shift(x) + TABLE[i]",
            "total += (\n            scale(x) + other.shift(x)\n            + TABLE[i])",
        ),
        ("kernels", "UNREAD = [object()]", "UNREAD = None\nMORE = 1"),
        ("kernels", "@njit\n", "@njit(nogil=True, cache=False)\n"),
        ("kernels", "LIMIT = 3", "\n\n\nLIMIT = 2 + 1"),
        ("helpers", "def deep(x):", "# moved\n\n\ndef deep(x):\n    'Doc.'"),
        ("helpers", "def shift(x):", "def unused(x):\n    return x\n\ndef shift(x):"),
    ],
)
def test_reformatting_changes_nothing(project, file, old, new):
    before = project.parts()
    source = getattr(project, file)
    assert old in source
    setattr(project, file, source.replace(old, new))
    assert explain_difference(before, project.parts()) == []


def test_an_edit_that_was_not_imported_is_not_believed(project):
    project.parts()
    kernel = project.module.kernel
    path = Path(kernel.__code__.co_filename)
    path.write_text(project.kernels.replace("total = 0.0", "total = 9.0"))
    linecache.clearcache()
    edited = function_parts(kernel)
    # The old code is still what runs: its key isn't that of the new source.
    project.kernels = path.read_text()
    fresh = project.parts()
    name = f"code of kernels_{project.n}.kernel"
    assert edited[name] != fresh[name]


def test_machine_key_follows_the_loaded_code(project):
    project.parts()
    before = machine_key(project.module.kernel)
    project.kernels = project.kernels.replace("# a comment", "# words").replace('"""What', '"""Now what')
    project.parts()
    assert machine_key(project.module.kernel) == before
    project.helpers = project.helpers.replace("x + 1", "x + 2")
    project.parts()
    assert machine_key(project.module.kernel) != before


def make(source, name="f", **namespace):
    space = {"__name__": "__main__", **namespace}
    exec(compile(textwrap.dedent(source), "<made>", "exec"), space)
    return space[name]


def test_functions_without_a_source_have_keys_of_their_code():
    one = make("def f(x):\n    'doc'\n    return [y + 1.0 for y in x if y in {1, 2, 3}]")
    two = make("# moved\n\ndef f(x):\n    'other'\n    return [y + 1.0 for y in x if y in {3, 2, 1}]")
    three = make("def f(x):\n    return [y + 1 for y in x if y in {1, 2, 3}]")
    assert function_key(one) == function_key(two) != function_key(three)
    assert function_key(make("def f(x):\n    return -0.0")) != function_key(make("def f(x):\n    return 0.0"))


def test_a_notebook_cell_is_known_by_its_source_not_by_its_number():
    keys = set()
    for number, text in enumerate(["def f(x):\n    return x + 1\n", "# again\ndef f(x):  # same\n    return x+1\n"]):
        name = f"<ipython-input-{number}-abc>"
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        space: dict = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), space)
        keys.add(function_key(space["f"]))
    assert len(keys) == 1


def test_recursion_ends():
    fact = make("def f(n):\n    return 1 if n < 2 else n * f(n - 1)")
    assert "code of f" in function_parts(fact)
    even = make("def f(n):\n    return n == 0 or g(n - 1)\ndef g(n):\n    return n != 0 and f(n - 1)")
    assert {"code of f", "code of g"} <= set(function_parts(even))


def test_lambdas_partials_and_caches_are_followed():
    base = make("def f(x, y):\n    return g(x, y)", g=lambda x, y: x + y)
    other = make("def f(x, y):\n    return g(x, y)", g=lambda x, y: x - y)
    assert function_key(base) != function_key(other)
    parts = [function_key(make("def f(x):\n    return g(x)", g=functools.partial(pow, n))) for n in (2, 3)]
    assert parts[0] != parts[1]
    caches = [
        function_key(make("def f(x):\n    return g(x)", g=functools.lru_cache(make(f"def f(x): return {n}"))))
        for n in (2, 3)
    ]
    assert caches[0] != caches[1]


def test_what_two_names_stand_for_counts():
    a, b = make("def f(x): return x + 1"), make("def f(x): return x * 2")
    text = "def f(x):\n    return g(h(x))"
    assert function_key(make(text, g=a, h=b)) != function_key(make(text, g=b, h=a))


def test_installed_functions_count_by_version():
    from scipy.special import gammaln

    parts = function_parts(make("def f(x):\n    return np.linalg.norm(x) + gammaln(x)", np=np, gammaln=gammaln))
    assert {"version of numpy", "version of scipy"} <= set(parts)
    assert not any(name.startswith("code of") and "norm" in name for name in parts)


@pytest.mark.parametrize(
    "expression",
    [
        "np.empty_like(x)",
        "np.where(x)",
        "np.dot(x)",
        "np.random.default_rng(x)",
        "np.s_[1]",
        "np.float32(x)",
        "np.add.reduce(x)",
        "np.maximum.accumulate(x)",
        "np.fft.fft(x)",
        "np.iinfo(np.int64).max",
        "np.lib.stride_tricks.sliding_window_view(x)",
        "numba.float64(x)",
        "numba.prange(x)",
        "math.floor(x)",
    ],
)
def test_foreign_things_of_all_kinds_are_known_by_name(expression):
    parts = function_parts(make(f"def f(x):\n    return {expression}", np=np, math=math, numba=numba))
    assert any(name.startswith("global") for name in parts)
    assert ("version of numpy" in parts) == expression.startswith("np.")


def test_names_that_mean_different_things_in_two_functions_both_count():
    inner = [make("def f(x):\n    return g(x)", g=g) for g in (np.sin, np.cos)]
    outer = [make("def f(x):\n    return g(x) + h(x)", g=np.tan, h=one) for one in inner]
    assert function_key(outer[0]) != function_key(outer[1])


def test_own_functions_count_by_their_code():
    from gridcompute import random

    parts = function_parts(make("def f(rng):\n    return random.uniform(rng)", random=random))
    assert "code of random.philox" in parts


@pytest.mark.parametrize(
    ("source", "values", "says"),
    [
        ("def f(x):\n    return BAD", {"BAD": object()}, "global BAD"),
        ("def f(x):\n    return g(x)", {"g": make("def f(x):\n    return BAD", BAD=iter([]))}, "global BAD"),
        ("def f(x):\n    return missing(x)", {}, "'missing', which isn't defined"),
        ("def f(x):\n    return g(mod)", {"mod": math, "g": abs}, "module math"),
        ("def f(x):\n    return np.nothing(x)", {"np": np}, "np.nothing"),
        ("def f(x, y=open):\n    return BAD", {"BAD": object()}, "global BAD"),
        ("def f(x):\n    return ITEMS.append(x)", {"ITEMS": [object()]}, r"global ITEMS\[0\]"),
        ("def f(x):\n    return put(x)", {"put": [].append}, "bound to a list"),
    ],
)
def test_what_cannot_enter_a_key_is_refused_by_name(source, values, says):
    with pytest.raises(UnkeyableError, match=says):
        function_key(make(source, **values))


def test_an_empty_closure_is_refused():
    def outer():
        def inner():
            return later

        key = function_key(inner)
        later = 1
        return key, later

    with pytest.raises(UnkeyableError, match="no value yet"):
        outer()


def test_imports_inside_a_function(project):
    project.parts()
    name = f"helpers_{project.n}"
    parts = function_parts(
        make(
            f"def f(x):\n    import math\n    import scipy.special\n    from {name} import scale, FACTOR\n"
            "    return scale(x) + math.pi"
        )
    )
    assert {"version of scipy", f"code of {name}.deep", f"global {name}.FACTOR"} <= set(parts)
    with pytest.raises(UnkeyableError, match="at the top"):
        function_key(make(f"def f(x):\n    import {name}\n    return {name}.scale(x)"))


def test_classes_count_by_their_methods():
    text = (
        "class C:\n    limit = {n}\n    def grow(self, x):\n        return x {op} 1\ndef f(x):\n    return C().grow(x)"
    )
    keys = {function_key(make(text.format(n=n, op=op))) for n, op in ((1, "+"), (2, "+"), (1, "-"), (1, "+"))}
    assert len(keys) == 3


def test_dispatchers_equal_their_functions():
    plain = make("def f(x):\n    return x + 1")
    assert function_key(njit(plain)) == function_key(plain)


def test_explain_difference():
    assert explain_difference({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == [
        "a is no longer used",
        "b changed",
        "c is new",
    ]


BROUGHT = {
    "named tuple's method": (
        "class P(typing.NamedTuple):\n a: int\n def f(self, v): return v * 2.5\ndef k(v): return P(1).f(v)"
    ),
    "named tuple at hand": (
        "class P(typing.NamedTuple):\n a: int\n def f(self, v): return v * 2.5\np = P(1)\ndef k(v): return p.f(v)"
    ),
    "enum's method": "class P(enum.Enum):\n A = 1\n def f(self, v): return v * 2.5\ndef k(v): return P.A.f(v)",
    "enum member": "class P(enum.IntEnum):\n A = 1\n def f(self, v): return v * 2.5\np = P.A\ndef k(v): return p.f(v)",
    "dataclass instance": (
        "@dataclasses.dataclass\nclass P:\n a: list = dataclasses.field(default_factory=list)\n"
        " @property\n def f(self): return 2.5\np = {'x': (P(),)}\ndef k(v): return v * p['x'][0].f"
    ),
    "dataclass with a key": (
        "@dataclasses.dataclass\nclass P:\n key: str\n a: float\np = P('x', 2.5)\ndef k(v): return v * p.a"
    ),
    "factory": (
        "@dataclasses.dataclass\nclass P:\n a: float = dataclasses.field(default_factory=lambda: 2.5)\n"
        "def k(v): return v * P().a"
    ),
    "metaclass": "class M(type):\n def f(cls, v): return v * 2.5\nclass P(metaclass=M): pass\ndef k(v): return P.f(v)",
    "partialmethod": (
        "class P:\n def g(self, s, v): return v * s\n f = functools.partialmethod(g, 2.5)\ndef k(v): return P().f(v)"
    ),
    "attribute of a function": "def f(v): return v * f.s\nf.s = 2.5\ndef k(v): return f(v)",
    "single dispatch": (
        "@functools.singledispatch\ndef f(v): return v\n@f.register\ndef _(v: float): return v * 2.5\n"
        "def k(v): return f(v)"
    ),
    "contextmanager": "@contextlib.contextmanager\ndef f(v): yield v * 2.5\ndef k(v):\n with f(v) as w: return w",
    "errstate": "@np.errstate(all='ignore')\ndef f(v): return v * 2.5\ndef k(v): return f(v)",
    "vectorize": "@np.vectorize\ndef f(v): return v * 2.5\ndef k(v): return f(v)",
    "overload": (
        "@numba.extending.overload(np.hanning)\ndef f(v):\n def impl(v): return v * 2.5\n return impl\n"
        "def k(v): return np.hanning(v)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROUGHT)
def test_code_that_comes_with_a_value_counts(what):
    def kernel(number):
        space = {"__name__": "job"} | {m: importlib.import_module(m) for m in ("contextlib", "dataclasses", "enum")}
        space |= {"functools": functools, "typing": importlib.import_module("typing"), "np": np, "numba": numba}
        exec(BROUGHT[what].replace("2.5", number), space)
        return space["k"]

    sys.modules.setdefault("job", types.ModuleType("job"))
    from numba.core.typing.templates import builtin_registry

    known = list(builtin_registry.globals)
    keys = []
    for number in ("2.5", "2.5", "3.5"):
        func = kernel(number)
        keys.append((function_key(func), machine_key(func)))
        builtin_registry.globals[:] = known
    assert keys[0] == keys[1]
    assert keys[0][0] != keys[2][0]
    assert keys[0][1] != keys[2][1]


class Held:
    def __init__(self, func, scale):
        functools.update_wrapper(self, func)
        self.func, self.scale = func, scale

    def __call__(self, v):
        return self.func(v) * self.scale


@pytest.mark.parametrize("held", [Held(math.trunc, 2.5), Held(lambda v: v, 2.5), np.frompyfunc(lambda v: v, 1, 1)])
def test_objects_that_do_more_than_the_function_they_hold_are_refused(held):
    with pytest.raises(UnkeyableError, match="held"):
        function_key(lambda v: held(v))


@pytest.mark.parametrize("call", ["globals()['S']", "vars()", "locals()", "eval('S')", "exec('S')"])
def test_reads_that_no_key_sees_are_refused(call):
    with pytest.raises(UnkeyableError, match=r"f calls \w+\(\), and no key sees") as refused:
        function_key(make(f"S = 2\ndef f(v):\n    return {call}"))
    assert "parameter" in refused.value.hint


def test_a_foreign_decorator_right_below_ours_is_named():
    @np.errstate(all="ignore")
    def wanted(v):
        return v

    with pytest.raises(UnkeyableError, match=r"wanted is decorated by code of (numpy|contextlib)") as refused:
        function_key(wanted)
    assert "inside the function" in refused.value.hint


def test_what_code_asks_of_a_function_counts():
    text = "def g(v):\n    '''{doc}'''\n    return v\ndef f(v):\n    return g.__doc__{more}, v"
    keys = [function_key(make(text.format(doc=d, more=m))) for m in ("", ".upper()") for d in ("a", "a", "b")]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_an_overload_of_ones_own_function_is_refused():
    from numba.core.typing.templates import builtin_registry

    known = list(builtin_registry.globals)
    space = {"__name__": "job", "numba": numba}
    text = "def g(v): return v\n@numba.extending.overload(g)\ndef other(v): return lambda v: 2 * v\n"
    try:
        exec(text + "def f(v): return g(v)", space)
        for key in (function_key, machine_key):
            with pytest.raises(UnkeyableError, match="f calls global g, in whose place numba would compile other"):
                key(space["f"])
    finally:
        builtin_registry.globals[:] = known
