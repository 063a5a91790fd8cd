"""A worker process that leaves in good order: Ray ends it once the answer of its task is out, and starts another.

Ray ends a process that has done a function's `max_calls`, and gives it nothing more to do before. The function is
declared with a number that is never reached, and a process that is to leave counts itself up to it. Any other end would
lose a task that is sent at the same moment.
"""

from __future__ import annotations

from typing import Any

CALLS = 2**40
"""Of which the next one is a process's last; no other function has this number."""


def leave(worker: Any) -> bool:
    """Have this process end after the task in work.

    Args:
        worker: Ray's own object of a process.

    Returns:
        Whether it will; a Ray that counts in another way leaves all as it is.
    """
    calls = getattr(worker, "function_actor_manager", None)
    counts, known = getattr(calls, "_num_task_executions", None), getattr(calls, "_function_execution_info", None)
    if not isinstance(counts, dict) or not isinstance(known, dict):
        return False
    ours = [key for key, info in known.items() if getattr(info, "max_calls", 0) == CALLS and key in counts]
    for key in ours:
        counts[key] = CALLS - 1
    return bool(ours)
