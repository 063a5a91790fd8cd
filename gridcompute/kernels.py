"""Kernels: a pure function over one cell, with its signature and everything that enters its key.

    @kernel("(time)->(),()", names=("tau", "slope"))
    def trend(series): ...

A kernel's arguments are one per input of the signature, then parameters (given by keyword when it is mapped),
then any of `cell`, `step`, `rng`, `valid`, in this order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gridcompute.declared import check_function, check_parameter, dtypes_of, mapping_of, texts_of
from gridcompute.errors import ParameterError, SignatureError, UsageError
from gridcompute.keys import digest, function_parts, machine_key
from gridcompute.signature import Signature
from gridcompute.status import counted

Mode = Literal["cell", "batch", "python"]
Function = Callable[..., Any]

SPECIALS = ("cell", "step", "rng", "valid")
"""Arguments that the framework supplies, in the order in which they end a kernel's arguments."""

FLAGS = frozenset({"contract", "reassoc"})
"""Ways in which a kernel may depart from strict IEEE arithmetic, if it asks."""

_eager: list[Function] = []


def install_eager(call: Function) -> None:
    """Say what runs a kernel that is called on arrays; `gridcompute.compiled` does so when it is imported."""
    _eager[:] = [call]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A pure function over one cell (or a chunk), hashable by its key; pickled with cloudpickle.

    Attributes:
        name: the function's name.
        func: the plain Python function.
        signature: core dimensions of inputs and outputs.
        sizes: length of each new output dimension; not to be changed.
        names: one name per output.
        dtypes: element type per output where declared, else None (inferred).
        mode: "cell" (compiled, a cell a call), "batch" (compiled, a chunk a call), "python" (a chunk a call).
        parallel: chunks that small data is cut into, where there are cells enough; None for the default.
        flags: subset of `FLAGS`.
        tools: pairs of tool and version that a task depends on, sorted.
    """

    name: str
    func: Function
    signature: Signature
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    dtypes: tuple[np.dtype[Any], ...] | None = None
    mode: Mode = "cell"
    parallel: int | None = None
    flags: frozenset[str] = frozenset()
    tools: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def parts(self) -> dict[str, str]:
        """What the key is made of, by name; two kernels' parts are compared to explain a recomputation.

        Raises:
            UnkeyableError: the function reaches a value that can't enter a key.
        """
        declared: dict[str, object] = {
            "signature": str(self.signature),
            "sizes": dict(self.sizes),
            "dtypes": self.dtypes,
            "mode": self.mode,
            "flags": self.flags,
            "tools": self.tools,
        }
        return {**function_parts(self.func), **{name: digest(value) for name, value in declared.items()}}

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits that change with anything that may change the kernel's values.

        Taken when it is first asked for: globals and closures count as they are then.
        """
        self.loaded  # noqa: B018 - of the same moment
        return digest(self.parts)

    @cached_property
    def code(self) -> str:
        """Digest of what the compiled code depends on: all of the key but the lengths of new output dimensions."""
        self.key  # noqa: B018 - of the same moment
        return digest({name: part for name, part in self.parts.items() if name != "sizes"})

    @cached_property
    def loaded(self) -> str:
        """Hash of the code that was loaded when the key was taken; another process's must be the same."""
        return machine_key(self.func)

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Which of `SPECIALS` the function takes."""
        return tuple(name for name in self.arguments if name in SPECIALS)

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """Names of all of the function's arguments."""
        return tuple(inspect.signature(self.func).parameters)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments between the inputs and the specials."""
        rest = self.arguments[len(self.signature.inputs) :]
        return tuple(name for name in rest if name not in SPECIALS)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Default values of parameters, where they have one."""
        found = inspect.signature(self.func).parameters
        return {
            name: found[name].default for name in self.parameters if found[name].default is not inspect.Parameter.empty
        }

    def bind(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters in the function's order, defaults filled in.

        Raises:
            ParameterError: one is missing, unknown, or of a type that a kernel can't take.
        """
        unknown = [name for name in params if name not in self.parameters]
        if unknown:
            has = ", ".join(self.parameters) or "none"
            raise ParameterError(f"kernel {self.name} has no parameter {unknown[0]!r}", hint=f"its parameters: {has}")
        missing = [name for name in self.parameters if name not in params and name not in self.defaults]
        if missing:
            raise ParameterError(
                f"kernel {self.name} needs the parameter {missing[0]!r}",
                hint=f"give it by keyword: {missing[0]}=...",
            )
        bound = {name: params.get(name, self.defaults.get(name)) for name in self.parameters}
        if self.mode != "python":
            for name, value in bound.items():
                check_parameter(self.name, name, value)
        return bound

    def __call__(self, *arrays: Any, seed: int = 0, step: int = 0, **params: Any) -> Any:
        """Run at once on NumPy arrays; loop dimensions broadcast as in a NumPy gufunc.

        Args:
            arrays: one per input, with its core dimensions last, in the signature's order; masked arrays
                carry nulls; variable-length cells as a `Ragged` or a list of bytes or one-dimensional arrays.
            seed: seed of `rng`, for kernels that draw.
            step: number of the step, for kernels that ask for it.
            params: the kernel's parameters.

        Returns:
            One array of loop shape + core shape per output, as a tuple where there are several.

        Raises:
            UsageError: the arrays don't fit the signature.
            KernelError: the function raised; names the cell.
        """
        if not _eager:
            raise UsageError(
                f"kernel {self.name} can't run: only gridcompute.kernels is imported",
                hint="import gridcompute",
            )
        return _eager[0](self, arrays, params, seed=seed, step=step)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kernel) and (self.key, self.names, self.parallel) == (
            other.key,
            other.names,
            other.parallel,
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<kernel {self.name} {self.signature}>"

    def __getstate__(self) -> dict[str, Any]:
        # The key is taken where the source is at hand; it travels with the function.
        self.key, self.loaded  # noqa: B018
        return dict(self.__dict__)


def kernel(
    signature: str,
    *,
    sizes: Mapping[str, int] | None = None,
    names: Iterable[str] | None = None,
    dtypes: Iterable[Any] | None = None,
    batch: bool = False,
    parallel: int | None = None,
    flags: Iterable[str] = (),
) -> Callable[[Function], Kernel]:
    """Make a kernel of a function that numba can compile.

    Args:
        signature: NumPy's gufunc notation: "(time)->(),()", "(n),(m)->()", "->()".
        sizes: length of each output dimension that no input has.
        names: one per output; the function's name by default (with _0, _1 ... where there are several).
        dtypes: element type per output; inferred where not given.
        batch: call the function once a chunk: cells are the first axis of every input and output.
        parallel: chunks to cut small data into, in place of 256: more where a cell takes long, fewer where it is quick.
        flags: "contract", "reassoc": let the compiler depart from strict IEEE arithmetic.

    Raises:
        SignatureError: the function's arguments don't match the signature.
        ParameterError: an option has a wrong value.
    """
    if not isinstance(signature, str):
        raise SignatureError("@grid.kernel takes a signature", hint='write it like @grid.kernel("(time)->()")')

    def decorate(func: Function) -> Kernel:
        return _make(func, signature, sizes, names, dtypes, "batch" if batch else "cell", parallel, flags, {})

    return decorate


def task(
    signature: str,
    *,
    dtypes: Iterable[Any],
    sizes: Mapping[str, int] | None = None,
    names: Iterable[str] | None = None,
    parallel: int | None = None,
    tools: Mapping[str, str] | None = None,
) -> Callable[[Function], Kernel]:
    """Make a kernel of any Python function; it is called once a chunk, not compiled.

    Inputs are NumPy arrays with cells as the first axis, variable-length ones pyarrow arrays (large_binary
    for uint8, else large_list); outputs too.

    Args:
        signature: as for `kernel`.
        dtypes: element type per output (nothing can be inferred here).
        sizes: as for `kernel`.
        names: as for `kernel`.
        parallel: as for `kernel`.
        tools: versions of programs and libraries that the function calls and gridcompute can't see; they
            enter the key, so a new version means new results.
    """

    def decorate(func: Function) -> Kernel:
        return _make(func, signature, sizes, names, dtypes, "python", parallel, (), tools or {})

    return decorate


def _make(
    func: Any,
    signature: str,
    sizes: Mapping[str, int] | None,
    names: Iterable[str] | None,
    dtypes: Iterable[Any] | None,
    mode: Mode,
    parallel: int | None,
    flags: Iterable[str],
    tools: Mapping[str, str],
) -> Kernel:
    if isinstance(func, Kernel):
        raise UsageError(f"{func!r} is a kernel already")
    if hasattr(func, "py_func"):  # numba's own decorator below ours
        if getattr(func, "targetoptions", {}).get("fastmath"):
            raise ParameterError(
                f"kernel {func.__name__}: fastmath isn't taken from numba's decorator",
                hint="leave njit away and say flags={'contract', 'reassoc'}",
            )
        func = func.py_func
    check_function(func)
    parsed = Signature.parse(signature)
    count = len(parsed.outputs)
    name = func.__name__ if func.__name__.isidentifier() else "lambda"
    if names is None:
        names = (name,) if count == 1 else tuple(f"{name}_{i}" for i in range(count))
    return Kernel(
        name,
        func,
        parsed,
        dict(mapping_of(name, "sizes", sizes)),
        texts_of(name, "names", names),
        None if dtypes is None else dtypes_of(name, dtypes),
        mode,
        parallel,
        frozenset(texts_of(name, "flags", flags)),
        tuple(sorted((str(k), str(v)) for k, v in mapping_of(name, "tools", tools).items())),
    )


def _check(kernel: Kernel) -> None:
    where = f"kernel {kernel.name} with signature {str(kernel.signature)!r}"
    _check_arguments(kernel, where)
    new, count = kernel.signature.new_dims, len(kernel.signature.outputs)
    for dim in new:
        # An explode kernel's new dimension has no size: it differs from cell to cell.
        size = kernel.sizes.get(dim, 0)
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0:
            raise ParameterError(f"{where}: sizes[{dim!r}] is {kernel.sizes[dim]!r}, not a length")
    for dim in kernel.sizes:
        if dim not in new:
            why = "an input has it" if dim in kernel.signature.input_dims else "no output has it"
            raise SignatureError(f"{where}: sizes names {dim!r}, but {why}")
    for dim in runs(kernel):
        if kernel.mode == "cell" or any(dim in core and core != (dim,) for core in kernel.signature.outputs):
            raise SignatureError(
                f"{where}: the new output dimension {dim!r} has no length",
                hint=f"add sizes={{{dim!r}: ...}}; a kernel of chunks (batch=True) may give runs of any length along a "
                "dimension of their own",
            )
    if len(kernel.names) != count or len(set(kernel.names)) != count:
        raise SignatureError(
            f"{where} has {counted(count, 'output')}, but names are {kernel.names}",
            hint="give one different name per output",
        )
    if kernel.mode != "python" and np.dtype(np.float16) in (kernel.dtypes or ()):
        raise ParameterError(f"{where}: compiled code can't make float16", hint="declare float32, convert it later")
    if kernel.dtypes is not None and len(kernel.dtypes) != count:
        raise SignatureError(f"{where} has {counted(count, 'output')}, but {counted(len(kernel.dtypes), 'dtype')}")
    unknown = kernel.flags - FLAGS
    if unknown:
        raise ParameterError(f"{where}: unknown flag {min(unknown)!r}", hint=f"known are {', '.join(sorted(FLAGS))}")
    if kernel.parallel is not None and (not isinstance(kernel.parallel, int) or kernel.parallel < 1):
        raise ParameterError(f"{where}: parallel is {kernel.parallel!r}, not a number of 1 or more")


def explodes(kernel: Kernel) -> bool:
    """Whether a kernel gives a number of rows a cell: all outputs have one same new dimension, unsized."""
    outputs = set(kernel.signature.outputs)
    new = kernel.signature.new_dims
    return len(outputs) == 1 and len(new) == 1 and outputs == {new} and new[0] not in kernel.sizes


def runs(kernel: Kernel) -> tuple[str, ...]:
    """New output dimensions without a size along which each cell has a length of its own; none where rows are given."""
    return () if explodes(kernel) else tuple(dim for dim in kernel.signature.new_dims if dim not in kernel.sizes)


def _check_arguments(kernel: Kernel, where: str) -> None:
    found = inspect.signature(kernel.func).parameters
    for name, one in found.items():
        if one.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise SignatureError(
                f"{where}: the argument {name!r} is {one.kind.description}",
                hint="a kernel has plain named arguments only",
            )
    inputs = len(kernel.signature.inputs)
    names = tuple(found)
    if len(names) < inputs:
        raise SignatureError(f"{where} has {inputs} inputs, but the function takes {len(names)} arguments {names}")
    early = [name for name in names[:inputs] if name in SPECIALS]
    if early:
        raise SignatureError(
            f"{where} has {inputs} inputs, but argument {names.index(early[0]) + 1} is {early[0]!r}, "
            "which the framework supplies",
            hint="give each input an argument; cell, step, rng and valid come last",
        )
    specials = [name for name in names if name in SPECIALS]
    wanted = [name for name in SPECIALS if name in specials]
    if list(names[len(names) - len(specials) :]) != wanted:
        raise SignatureError(
            f"{where}: {', '.join(specials)} must be the last arguments, in the order {', '.join(wanted)}"
        )
    if taken := [name for name in ("seed", "name", "names", "on_error") if name in names[inputs:]]:
        raise SignatureError(f"{where}: a parameter can't be called {taken[0]!r}, as map's own", hint="rename it")
