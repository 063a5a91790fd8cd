"""Where things lie, and what a run may use. Values come from arguments, then the environment, then defaults."""

from __future__ import annotations

import contextlib
import numbers
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridcompute.errors import ParameterError

WORK = ".gridcompute"
"""Default work store, in the current folder."""


def state_folder() -> Path:
    """The user's index of runs: `$GRIDCOMPUTE_STATE`, else in `$XDG_STATE_HOME` or `~/.local/state`."""
    given = os.environ.get("GRIDCOMPUTE_STATE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "gridcompute"


def private_folders(*folders: Path) -> None:
    """Make folders for this user alone, the outer ones first; what is there stays as it is.

    Raises:
        OSError: one can't be made.
    """
    for folder in folders:  # `parents` makes those above with the default mode
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def available_memory() -> int:
    """Bytes that processes here may still take: of the cgroup where it has a limit, else of the machine."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
                        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes")):
        try:
            bound = Path(limit).read_text().strip()
            if bound != "max":
                free = min(free, max(0, int(bound) - int(Path(used).read_text())))
        except (OSError, ValueError):
            continue
    return free


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_UNITS = {
    "": 1,
    "B": 1,
    "K": 2**10,
    "KB": 2**10,
    "M": 2**20,
    "MB": 2**20,
    "G": 2**30,
    "GB": 2**30,
    "T": 2**40,
    "TB": 2**40,
}


def parse_bytes(text: str | int) -> int:
    """A number of bytes, as in 4GB (powers of 1024).

    >>> parse_bytes("1.5GB")
    1610612736

    Raises:
        ParameterError: not such a number, or not above 0.
    """
    plain = str(text).strip().upper().replace("IB", "B")
    number = plain.rstrip("BKMGT")
    try:
        value = int(float(number) * _UNITS[plain[len(number):].strip()])
    except (ValueError, KeyError, OverflowError):
        raise ParameterError(f"{text!r} isn't a size in bytes", hint="write it as 500MB or 4GB") from None
    if value <= 0:
        raise ParameterError(f"a size of {text!r} bytes makes no sense", hint="write it as 500MB or 4GB")
    return value


def parse_quorum(value: Any) -> tuple[int, int]:
    """Equal results that a chunk needs, and results in all.

    >>> parse_quorum("2/3"), parse_quorum((3, 5)), parse_quorum([2, 2])
    ((2, 3), (3, 5), (2, 2))

    Raises:
        ParameterError: not two numbers, or not a majority: two different results could then have as many votes.
    """
    pair = value.replace(" of ", "/").split("/") if isinstance(value, str) else value
    try:
        if not isinstance(pair, list | tuple):  # a set or a mapping has no order that could be meant
            raise TypeError
        need, most = (int(text) if isinstance(text, str) else operator.index(text) for text in pair)
    except (TypeError, ValueError):
        raise ParameterError(f"quorum is {value!r:.100}", hint="two numbers, as 2/3 or (2, 3)") from None
    if not 1 < need <= most <= 2 * need - 1 or most > MOST_VOTES:
        raise ParameterError(f"quorum is {need} of {most}",
                             hint=f"2 or more equal results, of fewer than twice as many (at most {MOST_VOTES}): 2/3")
    return need, most


MOST_VOTES = 99
_FLAGS = ("quiet", "keep_intermediates", "verify_outputs")
_RIVALS = {"verify": "quorum", "quorum": "verify"}

ENVIRONMENT = ("store", "executor", "workers", "address", "certs", "allow_open", "memory", "quiet", "on_error",
               "keep_intermediates", "verify", "verify_tolerance", "verify_outputs", "quorum")
"""Settings that `GRIDCOMPUTE_STORE` and so on give where the caller doesn't."""


MOST_WORKERS = 2**20

OPEN_IN_WORDS = "everyone on this network may run code as me"
"""What `allow_open` must say for a cluster beyond loopback that has no token or no TLS."""


@dataclass(frozen=True)
class Settings:
    """What a run may use; none of it changes a result, but for what `on_error` says.

    Attributes:
        store: URL of the work store.
        store_options: its options; never written to a record or journal.
        executor: "ray" or "inline".
        workers: cores; 0 means all of this machine's, or of the cluster.
        threads: of each worker, which reads and decodes ahead with them; cores are divided by it.
        address: of a Ray cluster; empty for a local one.
        certs: folder with the cluster's token and certificates (`gridcompute cluster certs`).
        allow_open: `OPEN_IN_WORDS` to join a cluster beyond loopback that has no token or no TLS.
        memory: bytes that one worker may take at its peak; 0 means its share of what is free.
        deadline: seconds that a task may take.
        quiet: no progress bar.
        verify_inputs: hash the contents of inputs instead of trusting sizes and times.
        verify_outputs: hash what is found of an output that was written before instead of trusting sizes.
        dashboard: start Ray's dashboard with a local cluster.
        on_error: "skip" or "stop", for all kernels that weren't told what to do where they fail; else they stop.
        keep_intermediates: leave committed intermediate results in the work store when nothing needs them any more.
        verify: share of the chunks that are computed again on another worker and compared, 0 to 1.
        verify_tolerance: relative difference of floating point values up to which they count as equal; 0: same bits.
        quorum: equal results that each chunk needs, and results in all, as "2/3".
    """

    store: str = WORK
    store_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    executor: str = "ray"
    workers: int = 0
    threads: int = 1
    address: str = ""
    certs: str = ""
    allow_open: str = ""
    memory: int = 0
    deadline: float = 3600.0
    quiet: bool = False
    verify_inputs: bool = False
    verify_outputs: bool = False
    dashboard: bool = False
    on_error: str = ""
    keep_intermediates: bool = False
    verify: float = 0.0
    verify_tolerance: float = 0.0
    quorum: str = ""

    def __post_init__(self) -> None:
        if self.executor not in ("ray", "inline"):
            raise ParameterError(f"executor is {self.executor!r}", hint="one of ray, inline")
        if self.on_error not in ("", "stop", "skip"):
            raise ParameterError(f"on_error is {self.on_error!r:.100}", hint="one of stop, skip")
        if not self.store or "\0" in self.store:
            raise ParameterError(f"store is {self.store!r:.100}", hint="a folder, or a URL like s3://bucket/folder")
        if self.allow_open not in ("", OPEN_IN_WORDS):
            raise ParameterError(f"allow_open is {self.allow_open!r:.80}", hint=f'say "{OPEN_IN_WORDS}", or nothing')
        if not 0 <= self.workers <= MOST_WORKERS:
            raise ParameterError(f"workers is {self.workers}", hint="a number of cores, or 0 for all")
        if self.memory < 0:
            raise ParameterError(f"memory is {self.memory}", hint="write it as 500MB or 4GB, or 0 for a share")
        if self.threads < 1:
            raise ParameterError(f"threads is {self.threads}", hint="a number of threads per worker, 1 or more")
        if not 0 <= self.verify <= 1:
            raise ParameterError(f"verify is {self.verify}", hint="a share of the chunks, 0 to 1; 1 checks all")
        if not 0 <= self.verify_tolerance < 1:
            raise ParameterError(f"verify_tolerance is {self.verify_tolerance}", hint="a relative difference, as 1e-12")
        if self.verify_tolerance and not (self.verify or self.quorum):
            raise ParameterError("verify_tolerance is given, but nothing is compared", hint="give verify= or quorum=")
        if self.quorum and self.verify:
            raise ParameterError("verify and quorum are both given", hint="a quorum checks every chunk: give just one")
        if not self.deadline > 0:
            raise ParameterError(f"deadline is {self.deadline}", hint="seconds, above 0")

    @classmethod
    def of(cls, **options: Any) -> Settings:
        """Settings from arguments; what isn't given comes from the environment (see `ENVIRONMENT`).

        Raises:
            ParameterError: an unknown name or a wrong value.
        """
        unknown = [name for name in options if name not in cls.__dataclass_fields__]
        if unknown:
            raise ParameterError(
                f"a run has no option {unknown[0]!r}", hint=f"options: {', '.join(cls.__dataclass_fields__)}"
            )
        given = {name: value for name, value in options.items() if value is not None}
        for name in ENVIRONMENT:
            text = os.environ.get(f"GRIDCOMPUTE_{name.upper()}")
            if text and name not in given and given.get(_RIVALS.get(name, "")) is None:
                given[name] = text if name not in _FLAGS else text != "0"
        for name in ("store", "certs"):
            if isinstance(given.get(name), os.PathLike):
                given[name] = os.fspath(given[name])
        if given.get("quorum", "") != "":
            given["quorum"] = "{}/{}".format(*parse_quorum(given["quorum"]))
        for name in ("verify", "verify_tolerance"):
            try:
                given[name] = float(given.get(name, 0.0))
            except (TypeError, ValueError):
                raise ParameterError(f"{name} is {given[name]!r}", hint="a number, as 0.05") from None
        if isinstance(given.get("memory"), str):
            given["memory"] = parse_bytes(given["memory"])
        for name, hint in (("workers", "cores, or 0 for all"), ("threads", "threads"),
                           ("memory", "bytes, or a text as 500MB or 4GB")):
            value = given.get(name, cls.__dataclass_fields__[name].default)
            try:
                given[name] = int(value) if isinstance(value, str) else operator.index(value)
            except (ValueError, TypeError):
                raise ParameterError(f"{name} is {value!r}", hint=f"a whole number of {hint}") from None
        _require_types(given)
        return cls(**given)


_KINDS: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
    (str, "a text", ("store", "executor", "address", "certs")),
    (Mapping, "a mapping of names to values", ("store_options",)),
    (numbers.Real, "seconds, above 0", ("deadline",)),
)


def _require_types(given: Mapping[str, Any]) -> None:
    for kind, hint, names in _KINDS:
        for name in names:
            value = given.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise ParameterError(f"{name} is {value!r:.100}" if kind is not Mapping else f"{name} isn't a mapping",
                                     hint=hint)


@contextlib.contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Environment variables set (None: not set) for a while; processes that are started meanwhile inherit them."""
    before = {name: os.environ.get(name) for name in values}
    set_variables(values)
    try:
        yield
    finally:
        set_variables(before)


def set_variables(values: Mapping[str, str | None]) -> None:
    """Environment variables set from now on; None for one that isn't to be set."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
