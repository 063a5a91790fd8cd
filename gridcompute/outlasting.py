"""Steps of the driver, and of whoever reads a result, that outlast a failure which passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from gridcompute.retry import Policy
from gridcompute.store import transient, unanswered

T = TypeVar("T")


def outlast(step: Callable[[], T], policy: Policy | None = None, sleep: Callable[[float], None] = time.sleep) -> T:
    """What a step gives, which is tried again while its failure is one that passes.

    Raises:
        StoreError: it hasn't passed after all attempts that the policy has for it.
        Exception: any other failure of the step.
    """
    policy, attempt = policy or Policy(), 0
    while True:
        attempt += 1
        try:
            return step()
        except Exception as error:
            if not transient(error):
                raise
            decision = policy.decide("transient", attempt, 0)
            if decision.action == "stop":
                raise unanswered(error, f"after {attempt} attempts") from error
            sleep(decision.delay)
