"""Whether a cluster can be joined, found out before Ray tries: Ray's own answers are vague and take half a minute.

The cluster's control store speaks gRPC. One call of it is made by hand, first without the token and only then with it,
so that a token never goes to anything but a Ray that asks for one. gRPC over HTTP/2 (RFC 9113) needs a dozen lines as
long as nothing is compressed, and its Python package isn't among Ray's dependencies.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from gridcompute import certificates
from gridcompute.config import OPEN_IN_WORDS
from gridcompute.errors import ClusterError, ParameterError

SECONDS = 4.0
"""In which a cluster must answer."""

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS", "RAY_TLS_SERVER_CERT",
             "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
"""Ray's, about who may join."""

T = TypeVar("T")
_CALL = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_STATUS = re.compile(rb"\x0bgrpc-status(?:\x01([0-9])|\x02([0-9]{2}))")
_UNAUTHENTICATED = 16
_MOST_BYTES = 65536
_REFUSED_ALERTS = ("ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE", "ALERT_BAD_CERTIFICATE", "ALERT_DECRYPT_ERROR")
_EXPIRED, _HOST_MISMATCH, _IP_MISMATCH = 10, 62, 64
"""OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR)."""


@dataclass(frozen=True)
class _Answer:
    """What came back.

    Attributes:
        status: gRPC's; None where none came.
        loopback: whether the other side is on this machine.
        said: its first bytes.
        silent: whether it kept the connection and said nothing.
    """

    status: int | None
    loopback: bool
    said: bytes = b""
    silent: bool = False


def joining(address: str, *, certs: str = "", allow_open: str = "",
            environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Make sure within 5 s that a cluster can be joined, and is closed.

    Args:
        address: host and port of the head, as `ray start` names it.
        certs: folder with the cluster's token and certificates (see `certificates`); else Ray's own variables count.
        allow_open: `OPEN_IN_WORDS` to join one beyond loopback without a token or without TLS.
        environment: by default this process's.

    Returns:
        Ray's variables about who may join, with which it gets in; None for one that must not be set.

    Raises:
        ClusterError: it can't be joined, or is open; which of the many causes it is, and what to do.
        ParameterError: an address that isn't one.
    """
    host, port = _place(address)
    given = dict(os.environ if environment is None else environment)
    if certs:
        given = {**given, **certificates.found(certs).environment()}
        given.pop("RAY_AUTH_TOKEN", None)
    tls = _tls(given)
    return within(SECONDS + 0.5, lambda: _Attempt(address, host, port, tls).joined(given, allow_open == OPEN_IN_WORDS),
                  f"the Ray cluster at {address} can't be reached: no answer within {SECONDS:g} s")


def within(seconds: float, step: Callable[[], T], late: str) -> T:
    """Do a step in a thread that is given up after so many seconds, with the text `late` as a ClusterError."""
    done: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            done.append(step())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="gridcompute connects", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not done:
        raise ClusterError(late, hint="check the address, and that the cluster runs")
    return done[0]


def _place(address: str) -> tuple[str, int]:
    _, at, place = address.rpartition("@")
    if at:  # the user's part may hold a password, so it isn't shown
        raise ParameterError(f"{place!r:.100} is given with a user, which no Ray cluster has",
                             hint="leave out what stands before @; --certs names the folder with the token")
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ParameterError(f"{address!r:.100} is no address of a Ray cluster",
                             hint="give host and port of its head, such as 10.0.0.1:6379")
    return host.strip("[]"), int(port)


def _tls(given: Mapping[str, str]) -> ssl.SSLContext | None:
    """How to speak TLS as Ray's variables say; None where they don't ask for it."""
    if given.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return None
    end = certificates.checked(given)
    if end - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=certificates.SOON):
        warnings.warn(f"the cluster's certificates expire on {end:%Y-%m-%d}; make new ones in time", stacklevel=2)
    try:
        made = ssl.create_default_context(cafile=given["RAY_TLS_CA_CERT"])
        made.load_cert_chain(given["RAY_TLS_SERVER_CERT"], given["RAY_TLS_SERVER_KEY"])
    except (OSError, ssl.SSLError) as error:
        raise ClusterError(f"the certificates of {given['RAY_TLS_SERVER_CERT']} can't be used: {error}",
                           hint="copy all files of the folder that gridcompute cluster certs made") from error
    made.set_alpn_protocols(["h2"])
    return made


def _token(given: Mapping[str, str]) -> tuple[str, str]:
    """The token that Ray would find, and where; both empty where there is none."""
    if given.get("RAY_AUTH_MODE", "token").lower() != "token":
        return "", ""
    if given.get("RAY_AUTH_TOKEN"):
        return given["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN"
    named = given.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if not named and not path.exists():
        return "", ""
    certificates.require_private(path)
    text = path.read_text(errors="replace").strip()
    if not text or not text.isascii() or not text.isprintable():
        raise ClusterError(f"{path} holds no token", hint="copy the cluster's token file")
    return text, str(path)


@dataclass(frozen=True)
class _Attempt:
    """One way to a cluster."""

    address: str
    host: str
    port: int
    tls: ssl.SSLContext | None

    def joined(self, given: Mapping[str, str], allow_open: bool) -> dict[str, str | None]:
        """Ask without a token, judge, ask with it."""
        until = time.monotonic() + SECONDS
        first = self.ask("", until)
        if first.status is None:
            self._no_ray(first, until)
        elif first.status not in (0, _UNAUTHENTICATED):
            self._fail(f"a gRPC server that isn't Ray answers (status {first.status})",
                       "the address is the one that ray start --head prints")
        is_open = first.status == 0
        if not first.loopback and not allow_open:
            self._require_closed(is_open)
        if not is_open:
            self._require_admission(given, until)
        return {**{name: given.get(name) for name in VARIABLES}, "RAY_AUTH_MODE": "disabled" if is_open else "token"}

    def _require_closed(self, is_open: bool) -> None:
        lacks = "has no token" if is_open else "has no TLS: its token and all data can be read on the way"
        if is_open or self.tls is None:
            raise ClusterError(
                f"the Ray cluster at {self.address} is beyond loopback and {lacks}" + (
                    ": everyone who reaches it can run code as its user" if is_open else ""),
                hint="gridcompute cluster certs makes a token and certificates; to join it all the same, say "
                f'GRIDCOMPUTE_ALLOW_OPEN="{OPEN_IN_WORDS}"')

    def _require_admission(self, given: Mapping[str, str], until: float) -> None:
        token, source = _token(given)
        if not token:
            off = given.get("RAY_AUTH_MODE", "token").lower() != "token"
            why = f"RAY_AUTH_MODE is {given['RAY_AUTH_MODE']} here" if off else "none is set here"
            self._fail(f"it wants a token, and {why}",
                       "--certs FOLDER, or RAY_AUTH_TOKEN_PATH with the path of the cluster's token file")
        second = self.ask(token, until)
        if second.status == _UNAUTHENTICATED:
            self._fail(f"it refuses the token of {source}: that of another cluster",
                       "take the token file of this cluster: --certs FOLDER, or RAY_AUTH_TOKEN_PATH")
        if second.status != 0:
            self._no_ray(second, until)

    def ask(self, token: str, until: float) -> _Answer:
        """Make the call once; what goes wrong below gRPC is an error of ours."""
        try:
            raw = socket.create_connection((self.host, self.port), timeout=_left(until))
        except socket.gaierror as error:
            self._fail(f"no host {self.host}: {error.strerror}", "check the address")
        except TimeoutError:
            self._fail(f"nobody answers within {SECONDS:g} s", "check the address, and firewalls on the way")
        except OSError as error:
            self._fail(f"{error.strerror or error}", "check the address, and that the cluster runs")
        with contextlib.closing(raw):
            loopback = _is_loopback(raw.getpeername()[0])
            try:
                if self.tls is None:
                    return _call(raw, self.host, token, until, loopback)
                raw.settimeout(_left(until))
                with self.tls.wrap_socket(raw, server_hostname=self.host) as secured:
                    return _call(secured, self.host, token, until, loopback)
            except ssl.SSLCertVerificationError as error:
                self._untrusted(error)
            except ssl.SSLError as error:
                if any(alert in (error.reason or "") for alert in _REFUSED_ALERTS):
                    self._refused_certificate()
                return self._plainly(until, loopback)
            except TimeoutError:
                return _Answer(None, loopback, silent=True)
            except OSError:  # reset, or closed during the handshake
                return _Answer(None, loopback) if self.tls is None else self._plainly(until, loopback)

    def _plainly(self, until: float, loopback: bool) -> _Answer:
        """The answer of what doesn't speak TLS; a Ray among them is refused."""
        found = _Attempt(self.address, self.host, self.port, None).ask("", until)
        if found.status is not None:
            self._fail("it speaks no TLS, and this side has certificates",
                       "start it with the variables that gridcompute cluster certs prints; or leave --certs, "
                       "GRIDCOMPUTE_CERTS and RAY_USE_TLS out")
        return found if found.said or found.silent else _Answer(None, loopback)

    def _no_ray(self, answer: _Answer, until: float) -> NoReturn:
        if _is_web(answer.said):
            self._fail("an HTTP server answers there, not Ray",
                       "give the port of the head (6379 unless ray start --port says otherwise), not the dashboard's")
        if answer.silent:
            self._fail(f"what listens there says nothing within {SECONDS:g} s: no Ray, or one that hangs",
                       "check the port, and the head's logs")
        if self.tls is None and _speaks_tls(self.host, self.port, until):
            self._fail("it wants TLS, and this side has no certificates",
                       "--certs FOLDER with the cluster's certificates, or GRIDCOMPUTE_CERTS")
        if self.tls is not None and not answer.said:
            self._refused_certificate()
        self._fail("what listens there isn't Ray", "the address is the one that ray start --head prints")

    def _refused_certificate(self) -> NoReturn:
        self._fail("it refuses this side's certificate: of another authority, or expired",
                   "take the certificates of this cluster: --certs FOLDER")

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> NoReturn:
        if error.verify_code == _EXPIRED:
            self._fail("its certificate has expired",
                       "make new ones with gridcompute cluster certs --replace, copy them to each node, start it again")
        if error.verify_code in (_HOST_MISMATCH, _IP_MISMATCH):
            self._fail(f"its certificate wasn't made for {self.host}",
                       "make one with gridcompute cluster certs --host for each node's address")
        self._fail(f"its certificate isn't of the authority that is known here ({error.verify_message})",
                   "take the certificates of this cluster: --certs FOLDER; if they are, someone else answers there")

    def _fail(self, what: str, hint: str) -> NoReturn:
        raise ClusterError(f"the Ray cluster at {self.address} can't be reached: {what}", hint=hint)


def _left(until: float) -> float:
    return max(0.05, until - time.monotonic())


def _is_web(said: bytes) -> bool:
    return said.lstrip()[:9].lower().startswith((b"http/", b"<!doctype", b"<html"))


def _is_loopback(peer: str) -> bool:
    return peer.startswith(("127.", "::ffff:127.")) or peer == "::1"


def _call(connection: Any, host: str, token: str, until: float, loopback: bool) -> _Answer:
    """One gRPC call with an empty message, up to the status that ends it."""
    said = b""
    try:
        connection.settimeout(_left(until))
        connection.sendall(_request(host, token))
        while len(said) < _MOST_BYTES and time.monotonic() < until:
            connection.settimeout(_left(until))
            data = connection.recv(4096)
            said += data
            found = _STATUS.search(said)
            if found is not None:
                return _Answer(int(found[1] or found[2]), loopback, said)
            if not data or _is_web(said):
                return _Answer(None, loopback, said)
    except TimeoutError:
        return _Answer(None, loopback, said, silent=not said)
    except ConnectionError:
        pass
    return _Answer(None, loopback, said)


def _request(host: str, token: str) -> bytes:
    """Preface, settings, headers and an empty message on stream 1; header fields literal and without Huffman's code."""
    headers = {":method": "POST", ":scheme": "http", ":path": _CALL, ":authority": host, "te": "trailers",
               "content-type": "application/grpc", **({"authorization": f"Bearer {token}"} if token else {})}
    block = b"".join(b"\x10" + _text(name) + _text(value) for name, value in headers.items())
    return b"".join((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", _frame(4, 0, 0, b""), _frame(1, 4, 1, block),
                     _frame(0, 1, 1, bytes(5))))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    """A length (RFC 7541, 5.1, of 7 bits) and as many bytes."""
    raw, rest = value.encode(), b""
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    left = len(raw) - 127
    while left >= 128:
        rest += bytes((left % 128 + 128,))
        left //= 128
    return b"\x7f" + rest + bytes((left,)) + raw


def _speaks_tls(host: str, port: int, until: float) -> bool:
    """Whether a server shakes hands; nothing is sent, so it needn't be the right one."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    anyone.set_alpn_protocols(["h2"])
    try:
        with (socket.create_connection((host, port), timeout=_left(until)) as raw,
              anyone.wrap_socket(raw, server_hostname=host)):
            return True
    except OSError:
        return False
