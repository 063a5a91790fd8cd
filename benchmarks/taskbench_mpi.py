"""Our MPI program (`taskbench.c`): compiled where there is an `mpicc`, started once, asked one graph at a time."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import taskbench_oracle as oracle
from benchmarks.peering import PeerError, end

SOURCE = Path(__file__).with_suffix("").with_name("taskbench.c")
COMPILE = ("mpicc", "-O3", "-march=native", "-ffp-contract=fast", "-o")


class MpiProgram:
    """The program on so many ranks.

    Raises:
        PeerError: it can't be compiled, or ended before it had answered.
    """

    def __init__(self, folder: str, ranks: int) -> None:
        self.folder, self.ranks, self.library = Path(folder), ranks, ""
        made = subprocess.run([*COMPILE, str(self.folder / "taskbench"), str(SOURCE)], capture_output=True, text=True,
                              check=False)  # fmt: skip
        if made.returncode:
            raise PeerError(f"mpicc can't compile {SOURCE.name}: {made.stderr.strip()[:500]}")
        # Unbound, as our threads are: on a machine that others use too, being bound to a busy core is worse.
        command = ["mpirun", "--bind-to", "none", "-np", str(ranks), str(self.folder / "taskbench")]
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.getuid() == 0 else {}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         env={**os.environ, **root})  # fmt: skip

    def ask(self, pattern: str, width: int, steps: int, iterations: int) -> dict[str, Any]:
        """A graph: `seconds` from barrier to the last rank's end, `tasks`, `wrong` inputs, the last row's `hashes`."""
        path = self.folder / f"expected-{pattern}-{width}"
        if not path.exists():
            table, (lead, _) = oracle.expected(pattern, width), oracle.cycle(pattern, width)
            head = np.array([table.shape[0], lead, table.shape[2] - 1], np.int64)
            path.write_bytes(head.tobytes() + table.tobytes())
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        radix = oracle.radix(pattern, width)
        try:
            stdin.write(f"{pattern} {width} {steps} {iterations} {radix} {oracle.SEED} {path}\n")
            stdin.flush()
            answer = json.loads(stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            raise PeerError(f"the MPI program ended in {pattern} of width {width} (its last words are above)")
        self.library = answer["library"]
        return dict(answer)

    def close(self) -> None:
        """Let it end."""
        end(self._process)
