"""Joining a cluster: whatever is wrong is named within 5 s, and a cluster that is open isn't joined."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_heads import head

from gridcompute import certificates
from gridcompute.attaching import SECONDS, joining
from gridcompute.config import OPEN_IN_WORDS, Settings
from gridcompute.errors import ClusterError, GridError, ParameterError
from gridcompute.ray_session import token_file

pytestmark = pytest.mark.ray

HERE = "127.0.0.1"
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RAY_", "GRIDCOMPUTE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


def refused(address: str, says: str, **options: Any) -> str:
    """What joining an address is refused with, in time: `SECONDS` at most, the rest is for a busy machine."""
    began = time.monotonic()
    with pytest.raises(ClusterError, match=says) as caught:
        joining(address, **options)
    assert time.monotonic() - began < SECONDS + 30
    assert caught.value.hint
    return str(caught.value)


@contextlib.contextmanager
def listening(serve: Callable[[Any], None], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that does one thing with each connection."""
    with socket.create_server((HERE, 0)) as server:
        kept = []

        def accept() -> None:
            while True:
                try:
                    raw, _ = server.accept()
                    kept.append(context.wrap_socket(raw, server_side=True) if context else raw)
                except ssl.SSLError:
                    continue
                except OSError:
                    return
                threading.Thread(target=serve, args=(kept[-1],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"{HERE}:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)  # wakes `accept`
            for one in kept:
                one.close()


def silent(connection: Any) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass


def garbage(connection: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(bytes(range(256)) * 64)


def trickle(connection: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b"\0")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for this machine."""
    return certificates.made(tmp_path_factory.mktemp("certs") / "ours", ["127.0.0.4"]).folder


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def given(request: pytest.FixtureRequest, certs: Path) -> dict[str, Any]:
    return {"certs": str(certs)} if request.param else {"environment": {"RAY_AUTH_TOKEN": "a" * 64}}


def test_nobody_listens(given: dict[str, Any]) -> None:
    with socket.socket() as closed:
        closed.bind((HERE, 0))
        refused(f"{HERE}:{closed.getsockname()[1]}", "Connection refused", **given)
    refused("no-such-host.invalid:6379", "no host no-such-host|no answer", **given)


def test_nobody_answers(given: dict[str, Any]) -> None:
    with socket.socket() as full:  # a queue that is full drops what comes
        full.bind((HERE, 0))
        full.listen(0)
        address = full.getsockname()
        with contextlib.ExitStack() as kept:
            for _ in range(4):
                one = kept.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(address)
            refused(f"{HERE}:{address[1]}", f"within {SECONDS:g} s", **given)


@pytest.mark.parametrize(("serve", "says"), [(silent, "says nothing"), (garbage, "isn't Ray"), (trickle, "isn't Ray")])
def test_what_listens_is_no_ray(serve: Callable[[Any], None], says: str, given: dict[str, Any]) -> None:
    with listening(serve) as address:
        refused(address, says, **given)


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *told: Any) -> None:
        pass


def test_a_web_server_is_no_ray(given: dict[str, Any]) -> None:
    with http.server.ThreadingHTTPServer((HERE, 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = refused(f"{HERE}:{server.server_port}", "an HTTP server answers", **given)
        assert "dashboard" in told
        server.shutdown()


def served_by(folder: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "server.crt", folder / "server.key")
    made.set_alpn_protocols(["h2"])
    return made


def test_certificates_of_servers_are_judged(certs: Path, tmp_path: Path) -> None:
    other = certificates.made(tmp_path / "other", ["127.0.0.4"]).folder
    with listening(silent, served_by(other)) as address:
        assert "someone else answers" in refused(address, "isn't of the authority", certs=str(certs))
    with listening(silent, served_by(certs)) as address:
        refused(address, "says nothing", certs=str(certs))
    shutil.copytree(certs, tmp_path / "old")
    for name in ("server.crt", "server.key"):
        (tmp_path / "old" / name).unlink()
    issued(certs, tmp_path / "old", PAST, "127.0.0.1")
    with listening(silent, served_by(tmp_path / "old")) as address:
        refused(address, "has expired", certs=str(certs))
    issued(certs, tmp_path / "old", None, "10.0.0.1")
    with listening(silent, served_by(tmp_path / "old")) as address:
        refused(address, "wasn't made for 127.0.0.1", certs=str(certs))


def issued(authority: Path, folder: Path, begin: datetime.datetime | None, host: str) -> None:
    """A server's certificate by an authority, valid for a day, for one host."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    ca = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    by = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    begin = begin or datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "a node")])
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(ca.subject).public_key(key.public_key())
            .serial_number(7).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False)
            .sign(by, hashes.SHA256()))  # type: ignore[arg-type]
    (folder / "server.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    (folder / "server.key").chmod(0o600)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:x", "head:99999", "ray://head:10001", "[::1]"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ParameterError, match="no address of a Ray cluster"):
        joining(address)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(ParameterError, match="given with a user") as caught:
        joining("user:hidden@127.0.0.1:6379")
    assert "hidden" not in str(caught.value)


def test_words_must_be_said_in_full() -> None:
    assert Settings.of(allow_open=OPEN_IN_WORDS).allow_open
    for words in ("yes", "1", OPEN_IN_WORDS[:-1]):
        with pytest.raises(ParameterError, match="allow_open"):
            Settings.of(allow_open=words)


# --- certificates ---


def test_made_certificates_are_private_and_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "certs"
    made = certificates.made(folder, ["node1.example.org", "10.0.0.1", "::1"], days=30)
    assert sorted(one.name for one in folder.iterdir()) == sorted(certificates.FILES)
    assert {one.stat().st_mode & 0o777 for one in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert 29 < (made.ends - datetime.datetime.now(datetime.UTC)) / datetime.timedelta(days=1) < 31
    assert certificates.found(folder) == made
    before = (folder / "server.key").read_bytes()
    with pytest.raises(GridError, match="already"):
        certificates.made(folder, ["10.0.0.1"])
    assert (folder / "server.key").read_bytes() == before
    certificates.made(folder, ["10.0.0.1"], replace=True)
    assert (folder / "server.key").read_bytes() != before


def test_a_link_in_the_place_of_a_key_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "certs").mkdir(mode=0o700)
    (tmp_path / "certs/server.key").symlink_to(tmp_path / "mine")
    with pytest.raises(GridError, match="already"):
        certificates.made(tmp_path / "certs", ["10.0.0.1"])
    certificates.made(tmp_path / "certs", ["10.0.0.1"], replace=True)
    assert (tmp_path / "mine").read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "certs")
    with pytest.raises(ClusterError, match="belongs to another user, or is no folder"):
        certificates.made(tmp_path / "link", ["10.0.0.1"], replace=True)


@pytest.mark.parametrize("hosts", [[], ["a b"], ["-a"], ["x" * 300], [""], ["a/b"], ["*"], ["10.0.0.0/8"]], ids=repr)
def test_hosts_that_cannot_be_are_refused(hosts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ParameterError):
        certificates.made(tmp_path / "certs", hosts)
    assert not (tmp_path / "certs").exists()


def test_certificates_that_cannot_serve_are_named(tmp_path: Path) -> None:
    old = certificates.made(tmp_path / "old", ["10.0.0.1"], days=30, now=PAST).folder
    refused("10.0.0.1:6379", "expired on 2020-01-31", certs=str(old))
    open_to_all = certificates.made(tmp_path / "open", ["10.0.0.1"]).folder
    (open_to_all / "server.key").chmod(0o644)
    refused("10.0.0.1:6379", "others can read .*server.key", certs=str(open_to_all))
    (open_to_all / "server.key").chmod(0o600)
    (open_to_all / "token").chmod(0o640)
    refused("10.0.0.1:6379", "others can read .*token", certs=str(open_to_all))
    (open_to_all / "token").unlink()
    refused("10.0.0.1:6379", "token can't be read", certs=str(open_to_all))
    (open_to_all / "ca.crt").write_text("nothing")
    refused("10.0.0.1:6379", "no certificate|token", certs=str(open_to_all))
    refused("10.0.0.1:6379", "no file", certs=str(tmp_path / "none"))
    refused("10.0.0.1:6379", "RAY_TLS_SERVER_CERT isn't set", environment={"RAY_USE_TLS": "1"})


def test_certificates_that_end_soon_are_warned_of(tmp_path: Path) -> None:
    from gridcompute.doctor import _cluster

    soon = certificates.made(tmp_path / "soon", ["10.0.0.1"], days=3).folder
    with pytest.warns(UserWarning, match="expire on"), pytest.raises(ClusterError), listening(silent) as address:
        joining(address, certs=str(soon))
    assert _cluster(Settings.of(certs=str(soon))).verdict == "warning"
    assert _cluster(Settings.of(certs=str(certificates.made(tmp_path / "new", ["10.0.0.1"]).folder))).verdict == "ok"


def test_the_command_makes_them_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gridcompute.cli import main

    words = ["cluster", "certs", str(tmp_path / "certs"), "--host", "10.0.0.1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for name, value in certificates.found(tmp_path / "certs").environment().items():
        assert f"export {name}={value}" in said
    assert "ray start --head --node-ip-address" in said
    assert (tmp_path / "certs/token").read_text() not in said
    assert main(words) == 1
    assert "--replace" in capsys.readouterr().err
    assert main([*words, "--replace", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["environment"] == certificates.found(tmp_path / "certs").environment()
    assert main(["cluster", "certs", str(tmp_path / "none")]) == 2


# --- Ray itself ---


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("token") / "token"
    path.touch(mode=0o600)
    path.write_text("0123456789abcdef" * 4)
    return path


@pytest.fixture(scope="module")
def closed(token: Path) -> Iterator[str]:
    with head("127.0.0.2", {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}) as address:
        yield address


@pytest.fixture(scope="module")
def secured(certs: Path) -> Iterator[str]:
    with head("127.0.0.4", certificates.found(certs).environment()) as address:
        yield address


def test_tokens_of_a_cluster(closed: str, token: Path, tmp_path: Path, certs: Path) -> None:
    right = {"RAY_AUTH_TOKEN_PATH": str(token)}
    assert joining(closed, environment=right)["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert joining(closed, environment={"RAY_AUTH_TOKEN": token.read_text()})["RAY_AUTH_MODE"] == "token"
    told = refused(closed, "refuses the token of RAY_AUTH_TOKEN", environment={"RAY_AUTH_TOKEN": "f" * 64})
    assert "f" * 64 not in told
    refused(closed, "refuses the token", environment={"RAY_AUTH_TOKEN": "g" * 1000})
    refused(closed, "wants a token, and none is set", environment={})
    refused(closed, "RAY_AUTH_MODE is disabled here", environment={**right, "RAY_AUTH_MODE": "disabled"})
    refused(closed, "can't be read", environment={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})
    (tmp_path / "empty").touch(mode=0o600)
    refused(closed, "holds no token", environment={"RAY_AUTH_TOKEN_PATH": str(tmp_path / "empty")})
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(token.read_text())
    (tmp_path / ".ray/auth_token").chmod(0o644)
    refused(closed, "others can read .*auth_token", environment={})
    refused(closed, "speaks no TLS", certs=str(certs))


def test_certificates_of_a_cluster(secured: str, certs: Path, tmp_path: Path, token: Path) -> None:
    assert joining(secured, certs=str(certs))["RAY_USE_TLS"] == "1"
    assert joining(secured, environment=certificates.found(certs).environment())["RAY_USE_TLS"] == "1"
    refused(secured, "wants TLS, and this side has no certificates", environment={"RAY_AUTH_TOKEN": "a" * 64})
    other = certificates.made(tmp_path / "other", ["127.0.0.4"]).folder
    refused(secured, "isn't of the authority", certs=str(other))
    shutil.copy(certs / "ca.crt", other)
    refused(secured, "refuses this side's certificate", certs=str(other))
    shutil.copytree(certs, tmp_path / "same")
    (tmp_path / "same/token").write_text("e" * 64)
    refused(secured, "refuses the token", certs=str(tmp_path / "same"))


JOB = """
import numpy as np
import gridcompute as grid

@grid.task("()->()", dtypes=["f8"])
def seen(values):
    import json
    import os
    with open(f"{FOLDER}/environment-{os.getpid()}", "w") as file:
        json.dump(dict(os.environ), file)
    return values

FOLDER = __file__.rpartition("/")[0]
run = grid.run(grid.from_arrays({"a": np.arange(8.0)}).map(seen).sum(), quiet=True, workers=1)
print("sum", run[0].to_numpy())
"""


def job(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "job.py").write_text(JOB)
    return subprocess.run([sys.executable, "job.py"], cwd=folder, env={**os.environ, **variables}, text=True,
                          capture_output=True, timeout=200, check=False)


def environments(folder: Path) -> list[dict[str, str]]:
    found = [json.loads(path.read_text()) for path in folder.glob("environment-*")]
    for path in folder.glob("environment-*"):
        path.unlink()
    assert found
    return found


def test_a_job_runs_on_a_secured_cluster(secured: str, certs: Path, tmp_path: Path) -> None:
    done = job(tmp_path, GRIDCOMPUTE_ADDRESS=secured, GRIDCOMPUTE_CERTS=str(certs), RAY_AUTH_TOKEN="9" * 64)
    assert "sum 28.0" in done.stdout, done.stderr
    for found in environments(tmp_path):
        assert "9" * 64 not in repr(found)
        assert found["RAY_AUTH_TOKEN_PATH"] == str(certs / "token")


def test_a_task_sees_no_token_but_its_own_clusters(tmp_path: Path, certs: Path) -> None:
    """With another cluster's variables set, a local Ray has a token of its own and tasks see none of the others."""
    others = {**certificates.found(certs).environment(), "RAY_AUTH_TOKEN": "9" * 64, "GRIDCOMPUTE_CERTS": str(certs),
              "RAY_ADDRESS": "10.99.99.99:6379"}
    done = job(tmp_path, **others)
    assert "sum 28.0" in done.stdout, done.stderr
    for found in environments(tmp_path):
        assert "9" * 64 not in repr(found)
        assert str(certs) not in repr(found)
        assert "10.99.99.99" not in repr(found)
        assert found["RAY_AUTH_TOKEN_PATH"].startswith(str(tmp_path / "state/tokens"))
    assert not list((tmp_path / "state/tokens").iterdir())


def test_each_ray_of_this_machine_has_a_token_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "state/tokens").mkdir(parents=True, mode=0o700)
    left = tmp_path / "state/tokens" / f"{socket.gethostname()}_999999999_1"
    left.write_text("of a process that was killed")
    code = "from gridcompute.ray_session import token_file\nprint(token_file().read_text())"
    tokens = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
              for _ in range(2)}
    assert len(tokens | {token_file().read_text()}) == 3
    assert list((tmp_path / "state/tokens").iterdir()) == [token_file()]
    token_file().chmod(0o644)
    with pytest.raises(ClusterError, match="others can read"):
        token_file()


BEYOND = """
import json, os, sys
from ray_heads import head
from gridcompute import certificates
from gridcompute.attaching import joining
from gridcompute.config import OPEN_IN_WORDS
from gridcompute.errors import ClusterError

folder, HOST = sys.argv[1], "10.77.0.1"
certs = certificates.made(os.path.join(folder, "certs"), [HOST]).environment()
plain = {name: certs[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
tls = {**certs, "RAY_AUTH_MODE": "disabled"}
told = {}

def ask(name, address, variables, words=""):
    try:
        told[name] = joining(address, environment=variables, allow_open=words)["RAY_AUTH_MODE"]
    except ClusterError as error:
        told[name] = str(error)

with head(HOST, {"RAY_AUTH_MODE": "disabled"}) as address:
    ask("open", address, {})
    ask("open, in words", address, {}, OPEN_IN_WORDS)
with head(HOST, plain) as address:
    ask("token", address, plain)
    ask("token, in words", address, plain, OPEN_IN_WORDS)
with head(HOST, tls) as address:
    ask("tls", address, tls)
with head(HOST, certs) as address:
    ask("both", address, certs)
print(json.dumps(told))
"""


def test_beyond_loopback_a_cluster_has_token_and_tls(tmp_path: Path) -> None:
    """In a network namespace of its own, where an address beyond loopback reaches nobody else."""
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    ready = "ip link set lo up && ip address add 10.77.0.1/32 dev lo"
    tried = subprocess.run([*unshare, "sh", "-c", ready], capture_output=True, text=True, check=False) if (
        shutil.which("unshare") and shutil.which("ip")) else None
    if tried is None or tried.returncode:
        pytest.skip(f"no network namespace: {tried.stderr.strip() if tried else 'unshare or ip is missing'}")
    (tmp_path / "beyond.py").write_text(BEYOND)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([*unshare, "sh", "-c", f'{ready} && exec "$0" beyond.py .', sys.executable], cwd=tmp_path,
                          env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "beyond loopback and has no token: everyone" in told["open"]
    assert OPEN_IN_WORDS in told["open"]
    assert told["open, in words"] == "disabled"
    assert "beyond loopback and has no TLS" in told["token"]
    assert told["token, in words"] == "token"
    assert "has no token" in told["tls"]
    assert told["both"] == "token"
