"""A look at Ray's control store, so that a driver that lost it can say so.

Ray itself ends the driver's process with code 1 and no exception when the control store hasn't answered for
`RAY_gcs_rpc_server_reconnect_timeout_s` (60 s by default). Before that the run stops with an error of its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from gridcompute.errors import ClusterError

LOOK_SECONDS = 2.0
"""Time between two looks."""

RAY_GIVES_UP = "RAY_gcs_rpc_server_reconnect_timeout_s"
SHARE = 0.7
"""Of the time after which Ray ends the process."""


def answers(address: str) -> bool:
    """Whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


class ControlStore:
    """How long it hasn't answered.

    Args:
        address: of the control store.
        clock: seconds, any origin.
        ask: whether it answers.
    """

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic,
                 ask: Callable[[str], bool] = answers) -> None:
        self._address, self._clock, self._ask = address, clock, ask
        self._patience = float(os.environ.get(RAY_GIVES_UP, "60")) * SHARE
        self._seen = self._looked = clock()

    def check(self) -> None:
        """Look, if it is time to.

        Raises:
            ClusterError: it hasn't answered for too long.
        """
        now = self._clock()
        if now < self._looked + LOOK_SECONDS:
            return
        self._looked = now
        if self._ask(self._address):
            self._seen = now
        elif now - self._seen > self._patience:
            raise ClusterError(
                f"the control store of the Ray cluster at {self._address} hasn't answered for {now - self._seen:.0f} s",
                hint="start the cluster's head again, then resume the run: what was committed stays")
