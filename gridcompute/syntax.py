"""What a function's code says and reads, without formatting: the text that keys are made of.

Two forms. The normalised syntax tree, when the source at hand is the one that was compiled (a file may have
been edited since, or a notebook's cell forgotten); else the instructions of the code object. Neither holds
comments, positions, docstrings or annotations.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import types
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

Code = types.CodeType


def code_text(func: types.FunctionType) -> str:
    """The function's own code in normal form; not its defaults, nor what it calls."""
    node = _source_node(func.__code__)
    return "ast " + _dump(_Normalise().top(node)) if node is not None else "code " + instructions(func.__code__)


def instructions(code: Code) -> str:
    """A code object's instructions in normal form, with those of the functions defined in it."""
    constants = [instructions(one) for one in code.co_consts if isinstance(one, Code)]
    lines = [f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags & 0x2F}"]
    for step in dis.get_instructions(code):
        value = step.argval
        if isinstance(value, Code):
            value = "code"
        elif step.opcode in dis.hasconst:
            value = _constant(value)
        lines.append(f"{step.opname} {step.arg if step.opcode not in dis.hasconst else ''} {value}")
    return "\n".join([*lines, code.co_exceptiontable.hex(), *constants])


def _constant(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(_constant(one) for one in value) + ")"
    if isinstance(value, frozenset):
        return "{" + ",".join(sorted(_constant(one) for one in value)) + "}"
    return f"{type(value).__name__}:{value!r}"


def reads(code: Code) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What the code reads from outside: ("global" | "closure" | "import", name, attributes taken of it)."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("EXTENDED_ARG", "CACHE")]
    for at, step in enumerate(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield "global", step.argval, _attributes(steps, at)
        elif step.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
            if step.argval in code.co_freevars:
                yield "closure", step.argval, _attributes(steps, at)
        elif step.opname == "IMPORT_NAME":
            names = tuple(one.argval for one in steps[at + 1 :] if one.opname == "IMPORT_FROM")
            after = steps[at + 1].opname if at + 1 < len(steps) else ""
            yield "import", step.argval, names[: _run(steps, at + 1)] if after == "IMPORT_FROM" else ()
    for one in code.co_consts:
        if isinstance(one, Code):
            # A nested function's free variable may be a local of the outer one: those from outside count.
            yield from (found for found in reads(one) if found[0] != "closure" or found[1] in code.co_freevars)


def _attributes(steps: list[dis.Instruction], at: int) -> tuple[str, ...]:
    names = []
    for step in steps[at + 1 :]:
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            break
        names.append(step.argval)
    return tuple(names)


def _run(steps: list[dis.Instruction], start: int) -> int:
    """Number of names that one `from x import a, b` binds: IMPORT_FROM and a store, repeated."""
    count = 0
    while start + 2 * count < len(steps) and steps[start + 2 * count].opname == "IMPORT_FROM":
        count += 1
    return count


def _source_node(code: Code) -> ast.AST | None:
    """The syntax tree that the code was compiled from, or None if there is none that gives the same code."""
    try:
        linecache.checkcache(code.co_filename)
        lines = linecache.getlines(code.co_filename)
        # An empty file name in the cache, a magic of a notebook: no source.
        found = _functions("".join(lines), code.co_filename) if lines else {}
    except (SyntaxError, ValueError, RecursionError, OSError, MemoryError):
        return None
    wanted = instructions(code)
    nodes = [
        node for node, other in found.get((code.co_firstlineno, code.co_name), ()) if instructions(other) == wanted
    ]
    return nodes[0] if nodes else None


@lru_cache(maxsize=64)
def _functions(source: str, filename: str) -> dict[tuple[int, str], list[tuple[ast.AST, Code]]]:
    """A source's functions by first line and name, each with its code, where that tells them apart."""
    tree = ast.parse(source, filename)
    codes: dict[tuple[int, str], list[Code]] = {}
    _collect(compile(source, filename, "exec", dont_inherit=True), codes)
    nodes: dict[tuple[int, str], list[ast.AST]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            nodes.setdefault((first, node.name), []).append(node)
        elif isinstance(node, ast.Lambda):
            nodes.setdefault((node.lineno, "<lambda>"), []).append(node)
    return {
        key: list(zip(found, codes[key], strict=True))
        for key, found in nodes.items()
        if len(found) == 1 and len(codes.get(key, ())) == 1
    }


def _collect(code: Code, into: dict[tuple[int, str], list[Code]]) -> None:
    for one in code.co_consts:
        if isinstance(one, Code):
            into.setdefault((one.co_firstlineno, one.co_name), []).append(one)
            _collect(one, into)


class _Normalise(ast.NodeTransformer):
    """Drop what can't change values: docstrings, annotations; of the outermost its name and decorators."""

    def top(self, node: ast.AST) -> ast.AST:
        copied = ast.parse(ast.unparse(node)).body[0]
        if isinstance(copied, (ast.FunctionDef, ast.AsyncFunctionDef)):
            copied.name = ""
            copied.decorator_list = []
            # The values of defaults are in the function; the expressions would say the same twice.
            copied.args.defaults = [ast.Constant(None) for _ in copied.args.defaults]
            copied.args.kw_defaults = [None if one is None else ast.Constant(None) for one in copied.args.kw_defaults]
        result: ast.AST = self.visit(copied)
        return result

    def _function(self, node: Any) -> Any:
        node.returns = None
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        if hasattr(node, "type_params"):
            node.type_params = []
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return self._function(node)

    def visit_arg(self, node: ast.arg) -> Any:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        self.generic_visit(node)
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=node.value)


def _dump(node: object) -> str:
    """Like ast.dump, but the same on every Python version: empty fields and contexts are left out."""
    if isinstance(node, ast.AST):
        fields = ",".join(
            f"{name}={_dump(value)}"
            for name, value in ast.iter_fields(node)
            if (value is not None and value != [] and name not in ("ctx", "kind", "type_comment"))
            or (isinstance(node, ast.Constant) and name == "value")
        )
        return f"{type(node).__name__}({fields})"
    if isinstance(node, list):
        return "[" + ",".join(_dump(one) for one in node) + "]"
    return _constant(node)


def label(func: Any) -> str:
    """A function's name for people, the same however its module is run: "file.qualname" or "qualname"."""
    code = getattr(func, "__code__", None)
    name = getattr(func, "__qualname__", type(func).__name__).replace("<locals>.", "")
    if code is None:
        return f"{getattr(func, '__module__', '')}.{name}".lstrip(".")
    path = Path(code.co_filename)
    # Notebook cells have made-up file names that change with each execution.
    if code.co_filename.startswith("<") or path.parent.name.startswith("ipykernel_"):
        return name
    return f"{path.parent.name if path.stem == '__init__' else path.stem}.{name}"


def source_file(obj: Any) -> str:
    """The file that a function's or class's code came from, or an empty text."""
    # A class is asked by its methods: one of __main__ would be taken for the program that was started.
    inside = vars(obj).values() if isinstance(obj, type) else [obj]
    for one in inside:
        if isinstance(one, types.FunctionType):
            return one.__code__.co_filename
    try:
        return inspect.getfile(obj)
    except (TypeError, OSError):
        return ""
