"""One job on several systems: `python -m benchmarks.recovery_jobs SYSTEM FOLDER TASKS ITERATIONS`.

Of each task a line goes to a file of its process, so that whoever watches knows how often each was done and by whom;
its result goes to the disk as the system's documentation says. Imports stand in the functions, as each process has one
system.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

WORKERS = 2


@lru_cache
def _compiled() -> Any:
    import numba

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
    def steps(start: int, iterations: int) -> int:
        x = start * 2654435761 + 1
        for _ in range(iterations):
            x = (x * 1103515245 + 12345) % 2147483648
        return x

    return steps


def value(task: int, iterations: int) -> int:
    """What a task computes: so many steps of a generator, which no compiler shortens."""
    return int(_compiled()(task, iterations))


def work(folder: str, iterations: int, task: int) -> int:
    """One task, and the line that says that it was done."""
    found = value(task, iterations)
    log = os.open(f"{folder}/log/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, f"{task}\n".encode())
    os.close(log)
    return found


def saved(folder: str, iterations: int, task: int) -> int:
    """One task whose result is a file, put in place at once."""
    found = work(folder, iterations, task)
    path = f"{folder}/out/{task}"
    Path(f"{path}.{os.getpid()}").write_text(str(found))
    os.replace(f"{path}.{os.getpid()}", path)
    return found


def ours(folder: str, tasks: int, iterations: int) -> None:
    """A task over one cell each; results are shards of the work store, read back at the end."""
    import gridcompute as grid

    def step(cell: Any) -> Any:
        import numpy as np

        from benchmarks.recovery_jobs import work

        return np.array([work(folder, iterations, int(one)) for one in cell.reshape(-1)], np.int64)

    kernel = grid.task("->()", dtypes=["i8"], names=("x",), parallel=tasks)(step)
    done = grid.run(grid.space(n=tasks).map(kernel), workers=WORKERS, store=f"{folder}/work", quiet=True)
    for task, found in enumerate(done["x"].to_numpy()):
        Path(f"{folder}/out/{task}").write_text(str(int(found)))


def distributed(folder: str, tasks: int, iterations: int) -> None:
    """A future each, on two worker processes; a task that loses its worker may do so three times."""
    dask = import_module("distributed")
    with dask.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster, \
            dask.Client(cluster) as client:
        futures = [client.submit(saved, folder, iterations, task, pure=False) for task in range(tasks)]
        client.gather(futures)


def ray_data(folder: str, tasks: int, iterations: int) -> None:
    """A block each, written as Parquet; with the checkpoints of rows that its documentation offers."""
    ray: Any = import_module("ray")
    data: Any = import_module("ray.data")
    config: Any = import_module("ray.data.checkpoint")
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = config.CheckpointConfig(id_column="id", checkpoint_path=f"{folder}/checkpoint")

    def one(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "x": work(folder, iterations, int(row["id"]))}

    data.read_parquet(f"{folder}/input").map(one).write_parquet(f"{folder}/parquet")


def parsl(folder: str, tasks: int, iterations: int) -> None:
    """An app each, on two workers of the high-throughput executor; checkpointed at each task's end."""
    module: Any = import_module("parsl")
    executors, providers = import_module("parsl.executors"), import_module("parsl.providers")
    memoizer = import_module("parsl.dataflow.memoization").BasicMemoizer(checkpoint_mode="task_exit")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it starts its own scripts
    two = executors.HighThroughputExecutor(label="two", max_workers_per_node=WORKERS, cores_per_worker=1,
                                           encrypted=False, address="127.0.0.1",
                                           provider=providers.LocalProvider(max_blocks=1))
    # Checkpoints of earlier runs are found in the run directory.
    module.load(module.Config(executors=[two], strategy="none", run_dir=f"{folder}/runinfo", memoizer=memoizer,
                              initialize_logging=False))
    app = module.python_app(saved, cache=True)
    futures = [app(folder, iterations, task) for task in range(tasks)]
    errors = [future.exception() for future in futures]
    module.dfk().cleanup()
    if failed := [error for error in errors if error is not None]:
        raise SystemExit(f"{len(failed)} tasks failed: {failed[0]!r}")


SYSTEMS = {"ours": ours, "distributed": distributed, "ray": ray_data, "parsl": parsl}

if __name__ == "__main__":
    from benchmarks import recovery_jobs  # by its name, which is how workers find its functions

    recovery_jobs.SYSTEMS[sys.argv[1]](sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
