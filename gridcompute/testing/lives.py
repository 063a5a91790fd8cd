"""One life of a job's driver: here, or in a process of its own that may be killed in it."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gridcompute import api
from gridcompute.errors import DeadlineError, GridError, RunError
from gridcompute.origins import Origin, within
from gridcompute.ray_executor import RayExecutor
from gridcompute.running import Run
from gridcompute.shipping import by_value
from gridcompute.testing.injecting import ChaosExecutor, DriverKilled, Marks
from gridcompute.testing.schedule import Schedule
from gridcompute.testing.virtual import HastyExecutor, VirtualExecutor

CANCEL_SECONDS = 30.0
"""Time that a job has to stop after it took too long."""


@dataclass(frozen=True)
class Life:
    """What a job is carried out with, once.

    Attributes:
        outputs: what is computed.
        options: of the run: store, deadline, memory.
        executor: "ray", "inline" or "simulated".
        workers: cores; 0 for all.
        address: of a Ray cluster; empty for a local one.
        limit: seconds after which it counts as hanging.
        schedule: what is injected; None for nothing.
        marks: folder where that is noted.
        dies_after: chunks after which the driver dies; 0: it doesn't.
        number: of the life.
    """

    outputs: Sequence[Any]
    options: Mapping[str, Any]
    executor: str = "ray"
    workers: int = 0
    address: str = ""
    limit: float = 600.0
    schedule: Schedule | None = None
    marks: Marks | None = None
    dies_after: int = 0
    number: int = 0
    tend: Callable[[], None] | None = field(default=None, compare=False)

    def live(self, die: Callable[[], None]) -> Run:
        """Carry it out in this process.

        Args:
            die: how the driver dies.

        Raises:
            DriverKilled: it was to die here, and did.
            GridError: why the job failed; DeadlineError where it hangs.
        """
        executor = self._executor(die)
        began = time.monotonic()
        with within(Origin({})):
            run = api.start(*self.outputs, executor=executor, name="chaos", quiet=True, **self.options)
        try:
            return run.wait(self.limit)
        except (TimeoutError, KeyboardInterrupt) as error:
            run.cancel()
            with contextlib.suppress(GridError, TimeoutError):
                run.wait(CANCEL_SECONDS)
            if isinstance(error, KeyboardInterrupt):
                raise
            raise DeadlineError(f"the job still ran after {time.monotonic() - began:.0f} s") from None
        except RunError as error:
            if isinstance(error.__cause__, DriverKilled):
                raise error.__cause__ from None
            raise
        finally:
            executor.close()

    def _executor(self, die: Callable[[], None]) -> Any:
        inner: Any
        if self.executor == "inline":
            inner = HastyExecutor(workers=self.workers or 2, shuffle=self.schedule.seed if self.schedule else None)
        elif self.executor == "simulated":
            seed = self.schedule.seed + 1000 * self.number if self.schedule else 0
            inner = VirtualExecutor(workers=self.workers or 4, seed=seed)
        else:
            from gridcompute.config import available_cores

            workers = self.workers if self.address else self.workers or available_cores()
            inner = RayExecutor(workers=workers, address=self.address)
        if self.schedule is None or self.marks is None:
            return inner
        return ChaosExecutor(inner, self.schedule, self.marks, self.dies_after, die, tend=self.tend)


def here(life: Life) -> Run:
    """A life in this process, in which the driver's death is an error that nobody catches."""
    def die() -> None:
        raise DriverKilled(f"after {life.dies_after} chunks")

    return life.live(die)


def apart(life: Life, poll: Callable[[], None]) -> bool:
    """A life in a process of its own, whose death is SIGKILL.

    Args:
        life: which.
        poll: called now and then.

    Returns:
        Whether it died; else it came to its end before.

    Raises:
        RunError: it ended otherwise.
    """
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen([sys.executable, "-m", "gridcompute.testing.lives"], stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert child.stdin is not None
    assert child.stderr is not None
    try:
        child.stdin.write(by_value(life))
        child.stdin.close()
        until = time.monotonic() + life.limit
        while child.poll() is None:
            if time.monotonic() > until:
                raise DeadlineError(f"the job still ran after {life.limit:.0f} s")
            poll()
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
        said = child.stderr.read().decode(errors="replace")
        child.stderr.close()
    if child.returncode not in (0, -signal.SIGKILL):
        raise RunError(f"a driver ended with code {child.returncode}", hint="\n".join(said.splitlines()[-5:]))
    return child.returncode != 0


def main() -> None:
    """A life that comes by standard input, from our own parent."""
    life: Life = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent's pipe
    life.live(partial(os.kill, os.getpid(), signal.SIGKILL))


if __name__ == "__main__":
    main()
