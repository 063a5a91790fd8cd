"""The driver's look at Ray's control store."""

from __future__ import annotations

import socket

import pytest

from gridcompute.errors import ClusterError
from gridcompute.ray_watch import RAY_GIVES_UP, ControlStore, answers

pytestmark = [pytest.mark.ray, pytest.mark.faults]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_gives_up_before_ray_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_GIVES_UP, "60")
    clock, there, asked = Clock(), [True], list[float]()

    def ask(address: str) -> bool:
        assert address == "head:6379"
        asked.append(clock.now)
        return there[0]

    watched = ControlStore("head:6379", clock, ask)
    for second in range(20):
        clock.now = 100.0 + second / 4
        watched.check()
    assert len(asked) == 2, "every 2 s, however often it is asked"
    there[0] = False
    clock.now += 30
    watched.check()
    there[0] = True
    clock.now += 5
    watched.check()
    there[0] = False
    clock.now += 40
    watched.check()
    clock.now += 3
    with pytest.raises(ClusterError, match="at head:6379 hasn't answered for 43 s") as caught:
        watched.check()
    assert "resume the run" in caught.value.hint


def test_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert answers(address)
    assert not answers(address)
