"""The proxy that breaks requests: which of them, by its script, and how."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator

import pytest

from gridcompute.testing.proxy import TRANSIENT, FaultProxy, HttpFault, seeded_http_faults

BODY = b"0123456789" * 100


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with FaultProxy(f"http://127.0.0.1:{server.server_port}", hold=20.0) as found:
        yield found
    server.shutdown()
    server.server_close()


def asked(proxy: FaultProxy, path: str = "/a", timeout: float = 30.0) -> tuple[int, bytes, str | None]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("X-Host")
    finally:
        connection.close()


def test_what_is_not_in_the_script_passes_unchanged(proxy: FaultProxy) -> None:
    """Host too, which a signature covers."""
    assert asked(proxy) == (200, BODY, proxy.endpoint.removeprefix("http://"))
    assert proxy.requests == [("GET", "/a")]


def test_a_fault_counts_the_requests_that_fit(proxy: FaultProxy) -> None:
    proxy.set(HttpFault("503", first=1, times=2, path="/b"), HttpFault("403", methods=("PUT",)))
    assert [asked(proxy, path)[0] for path in ("/b", "/a", "/b", "/b", "/b")] == [200, 200, 503, 503, 200]
    assert [(fault.kind, path) for fault, _, path in proxy.injected] == [("503", "/b")] * 2


def test_what_breaks_on_the_wire(proxy: FaultProxy) -> None:
    for kind in ("reset before", "reset after"):
        proxy.set(HttpFault(kind))
        with pytest.raises(ConnectionResetError):
            asked(proxy)
    proxy.set(HttpFault("partial"))
    with pytest.raises(http.client.IncompleteRead):
        asked(proxy)
    proxy.set(HttpFault("slow"))
    assert asked(proxy)[1] == BODY
    proxy.set(HttpFault("timeout"))
    with pytest.raises(TimeoutError):
        asked(proxy, timeout=0.5)


def test_a_seed_makes_the_same_storm() -> None:
    script = seeded_http_faults(seed=3, rate=0.1)
    assert script == seeded_http_faults(seed=3, rate=0.1) != seeded_http_faults(seed=4, rate=0.1)
    assert 50 < len(script) < 150
    assert {fault.kind for fault in script} == set(TRANSIENT)
