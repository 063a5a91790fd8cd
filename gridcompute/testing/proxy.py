"""An HTTP proxy before a store, that fails as a script says: faults as they are on the wire, not as an exception.

It listens on loopback and passes requests on as they come, the Host header too, so that signatures stay right.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

HttpFaultKind = Literal["timeout", "403", "404", "500", "503", "slow", "partial", "reset before", "reset after"]
ERRORS = {"403": "AccessDenied", "404": "NoSuchBucket", "500": "InternalError", "503": "SlowDown"}
TRANSIENT: tuple[HttpFaultKind, ...] = ("timeout", "500", "503", "slow", "partial", "reset before", "reset after")
TRICKLE_SECONDS, TRICKLE_PIECES = 0.05, 8
ALWAYS = 10**9


@dataclass(frozen=True)
class HttpFault:
    """What goes wrong with some requests.

    Attributes:
        kind: "timeout" (no answer), an HTTP status (nothing is done), "slow" (the answer comes in pieces), "partial"
            (the answer's body is cut short), "reset before" (the connection is reset, nothing is done), "reset after"
            (it is done, but the connection is reset).
        first: of the requests that fit, the first that fails, counted from 0.
        times: how many fail in a row.
        methods: that fit, empty for all.
        path: part of the URL's path that fits.
    """

    kind: HttpFaultKind
    first: int = 0
    times: int = 1
    methods: tuple[str, ...] = ()
    path: str = ""

    def fits(self, method: str, path: str) -> bool:
        """Whether a request is among those that are counted."""
        return (not self.methods or method in self.methods) and self.path in path


def seeded_http_faults(seed: int, rate: float, requests: int = 1000,
                       kinds: Sequence[HttpFaultKind] = TRANSIENT) -> tuple[HttpFault, ...]:
    """A script in which each of the first requests fails with a probability of `rate`."""
    draw = random.Random(seed)
    return tuple(HttpFault(draw.choice(list(kinds)), at) for at in range(requests) if draw.random() < rate)


class FaultProxy:
    """The proxy, for as long as the `with` block lasts.

    Args:
        upstream: URL of the store's server.
        script: the faults; the first that fits a request and is due is the one.
        hold: seconds that a request without an answer is kept waiting, at most.

    Attributes:
        endpoint: the proxy's URL.
        injected: the faults so far, with method and path.
        requests: methods and paths of all requests.
    """

    def __init__(self, upstream: str, script: Sequence[HttpFault] = (), hold: float = 120.0) -> None:
        self.upstream, self.script, self.hold = urlsplit(upstream), tuple(script), hold
        self.injected: list[tuple[HttpFault, str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self._counts = [0] * len(self.script)
        self._lock, self._closing = threading.Lock(), threading.Event()
        proxy = self

        class Request(_Request):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Request)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def set(self, *script: HttpFault) -> None:
        """Another script, from now on; requests are counted from 0 again."""
        with self._lock:
            self.script, self._counts = script, [0] * len(script)

    def due(self, method: str, path: str) -> HttpFault | None:
        """Count a request; the fault that it meets."""
        with self._lock:
            self.requests.append((method, path))
            found = None
            for number, fault in enumerate(self.script):
                if fault.fits(method, path):
                    at = self._counts[number]
                    self._counts[number] = at + 1
                    if found is None and fault.first <= at < fault.first + fault.times:
                        found = fault
            if found is not None:
                self.injected.append((found, method, path))
            return found

    def wait(self) -> None:
        """Keep a request waiting."""
        self._closing.wait(self.hold)

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        """Close only: a shutdown before would end the connection in good order where it is to be reset."""
        self.close_request(request)


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FaultProxy

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the proxy's own lists tell more."""

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.owner.due(self.command, self.path)
        kind = fault.kind if fault is not None else ""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if kind == "timeout":
                self.owner.wait()
                self.close_connection = True
            elif kind == "reset before":
                self._reset()
            elif kind in ERRORS:
                self._refuse(int(kind), ERRORS[kind])
            else:
                self._answer(kind, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - the standard library's names

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _answer(self, kind: str, body: bytes) -> None:
        upstream = self.owner.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=self.owner.hold)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if kind == "reset after":
            self._reset()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        if answer.status not in (204, 304):
            self.send_header("Content-Length", length)
        self.end_headers()
        self._send(kind, data)

    def _send(self, kind: str, data: bytes) -> None:
        if kind == "partial":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif kind == "slow":
            step = max(1, -(-len(data) // TRICKLE_PIECES))
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                time.sleep(TRICKLE_SECONDS)
        else:
            self.wfile.write(data)

    def _reset(self) -> None:
        """The close that follows is a reset, not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
