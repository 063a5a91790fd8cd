"""The retry policy: a pure table of what is done about each class of failure."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute.events import FailureKind
from gridcompute.retry import Decision, Policy

pytestmark = pytest.mark.faults

KINDS = get_args(FailureKind)


@pytest.mark.parametrize("kind", ["user", "divergence", "fatal"])
def test_no_second_attempt_where_nothing_would_change(kind: FailureKind) -> None:
    assert Policy().decide(kind, 1, 0) == Decision("stop")


@pytest.mark.parametrize(("kind", "action", "alone"), [
    ("transient", "retry", False), ("lost_worker", "retry", True), ("out_of_memory", "retry", True),
    ("hang", "retry", True), ("corrupt_shard", "recompute", False)])
def test_first_failure(kind: FailureKind, action: str, alone: bool) -> None:
    decision = Policy().decide(kind, 1, 0)
    assert (decision.action, decision.alone) == (action, alone)
    assert (decision.delay > 0) == (kind == "transient")


@given(st.sampled_from(KINDS), st.integers(1, 100), st.integers())
def test_bounded_and_repeatable(kind: FailureKind, attempt: int, seed: int) -> None:
    policy = Policy()
    decision = policy.decide(kind, attempt, seed)
    assert decision == policy.decide(kind, attempt, seed)
    assert 0 <= decision.delay <= policy.longest
    assert (decision.action == "stop") == (attempt >= policy.attempts.get(kind, 1))


@given(st.integers(1, 4), st.integers())
def test_backoff_doubles_with_jitter(attempt: int, seed: int) -> None:
    span = 0.2 * 2 ** (attempt - 1)
    assert span / 2 <= Policy().decide("transient", attempt, seed).delay <= span


def test_chunks_spread() -> None:
    assert len({Policy().decide("transient", 1, seed).delay for seed in range(50)}) == 50


def test_own_policy() -> None:
    policy = Policy(attempts={"transient": 2}, base=4.0, longest=3.0)
    assert policy.decide("lost_worker", 1, 0).action == "stop"
    assert 1.5 <= policy.decide("transient", 1, 0).delay <= 3.0
