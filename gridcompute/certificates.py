"""What closes a cluster: a token, and certificates of its own authority, as files that only their owner can read.

Ray asks both sides of a connection for a certificate of one authority, and takes one certificate per process, as a
server and as a client: so one certificate, made for the addresses of all nodes, serves the nodes and the driver.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridcompute.errors import ClusterError, OutputExistsError, ParameterError

FILES = ("ca.crt", "ca.key", "server.crt", "server.key", "token")
"""Of a folder of certificates. The nodes need all but ca.key, with which further certificates could be made."""

ALWAYS = ("localhost", "127.0.0.1")
"""Hosts that a certificate is made for beside those that were named."""

DAYS = 365
SOON = 14
"""Days before a certificate's end in which it is warned of."""

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62}\.?)+", re.ASCII)


@dataclass(frozen=True)
class Certificates:
    """A folder with a cluster's token and certificates; see `made` and `found`.

    Attributes:
        folder: where `FILES` lie.
        ends: when the server's certificate, or that of its authority, ceases to be valid.
    """

    folder: Path
    ends: datetime.datetime

    def environment(self) -> dict[str, str]:
        """What Ray reads, on each node and in the driver."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(self.folder / "server.crt"),
            "RAY_TLS_SERVER_KEY": str(self.folder / "server.key"),
            "RAY_TLS_CA_CERT": str(self.folder / "ca.crt"),
        }


def made(folder: str | os.PathLike[str], hosts: Sequence[str], *, days: int = DAYS, replace: bool = False,
         now: datetime.datetime | None = None) -> Certificates:
    """Make an authority, one certificate and key for hosts, and a token: files 0600 in a folder 0700.

    Args:
        folder: made if it isn't there.
        hosts: names and addresses of all nodes, as Ray knows them (`ray start --node-ip-address`).
        days: for which they are valid, from an hour before now (clocks differ).
        replace: write over those that lie there; every node then needs the new ones.
        now: the time; by default the clock's.

    Raises:
        ParameterError: no host, or one that can't be; days below 1.
        OutputExistsError: some are there already.
        ClusterError: the folder can't be written, or belongs to someone else.
    """
    if not hosts:
        raise ParameterError("no host is named", hint="--host with the address of each node, once for each")
    if not 1 <= days <= 36500:
        raise ParameterError(f"days is {days}", hint="for how long they are valid: 1 or more")
    names = [_named(host) for host in dict.fromkeys((*hosts, *ALWAYS))]
    where = Path(os.path.abspath(os.path.expanduser(folder)))
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_ours(where)
        there = [name for name in FILES if os.path.lexists(where / name)]
        if there and not replace:
            raise OutputExistsError(f"{where} has {', '.join(there)} already",
                                    hint="take another folder, or --replace; nodes with the old ones then stay out")
        where.chmod(0o700)
        begin = (now or datetime.datetime.now(datetime.UTC)) - datetime.timedelta(hours=1)
        for name, content in _contents(names, begin, begin + datetime.timedelta(days=days, hours=1)).items():
            _write(where / name, content)
    except OSError as error:
        raise ClusterError(f"no certificates can be kept in {where}: {error.strerror}",
                           hint="choose a folder of yours") from error
    return Certificates(where, _end(where / "ca.crt", where / "server.crt"))


def found(folder: str | os.PathLike[str], now: datetime.datetime | None = None) -> Certificates:
    """The certificates and the token of a folder, checked.

    Raises:
        ClusterError: some are missing, can be read by others, or have expired.
    """
    where = Path(os.path.abspath(os.path.expanduser(folder)))
    values = Certificates(where, datetime.datetime.max).environment()
    return Certificates(where, checked(values, now))


def checked(environment: Mapping[str, str], now: datetime.datetime | None = None) -> datetime.datetime:
    """When the certificates that Ray's variables name cease to be valid.

    Raises:
        ClusterError: some are missing, can't be read, or have expired; others can read the key or the token.
    """
    paths = {name: environment.get(name, "") for name in ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY",
                                                          "RAY_TLS_CA_CERT")}
    for name, path in paths.items():
        if not path:
            raise ClusterError(f"TLS is asked for, but {name} isn't set", hint="--certs FOLDER sets all that is needed")
        if not os.path.isfile(path):
            raise ClusterError(f"no file {path}, which TLS needs",
                               hint="gridcompute cluster certs makes certificates; copy those of the cluster here")
    require_private(paths["RAY_TLS_SERVER_KEY"])
    if environment.get("RAY_AUTH_TOKEN_PATH"):
        require_private(environment["RAY_AUTH_TOKEN_PATH"])
    end = _end(Path(paths["RAY_TLS_CA_CERT"]), Path(paths["RAY_TLS_SERVER_CERT"]))
    if end <= (now or datetime.datetime.now(datetime.UTC)):
        raise ClusterError(
            f"the certificates in {os.path.dirname(paths['RAY_TLS_SERVER_CERT'])} expired on {end:%Y-%m-%d}",
            hint="make new ones with gridcompute cluster certs --replace, copy them to each node and start Ray again")
    return end


def require_private(path: str | os.PathLike[str]) -> None:
    """Refuse a secret that others can read.

    Raises:
        ClusterError: they can, or it isn't there.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ClusterError(f"{os.fspath(path)} can't be read: {error.strerror}", hint="check the path") from error
    if status.st_mode & 0o077:
        raise ClusterError(f"others can read {os.fspath(path)} (mode {status.st_mode & 0o777:o})",
                           hint=f"chmod 600 {os.fspath(path)}")


def _named(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise ParameterError(f"{host!r:.100} is no host", hint="give a name such as node1.example.org, or an address")
    return x509.DNSName(host)


def _require_ours(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ClusterError(f"{folder} belongs to another user, or is no folder", hint="choose a folder of yours")


def _contents(names: Sequence[Any], begin: datetime.datetime, end: datetime.datetime) -> dict[str, bytes]:
    """What the files are to hold."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def subject(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def signed(text: str, key: Any, *extensions: tuple[Any, bool]) -> bytes:
        builder = (x509.CertificateBuilder().subject_name(subject(text)).issuer_name(subject(authority))
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(begin).not_valid_after(end))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def private(key: Any) -> bytes:
        plain: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                         serialization.NoEncryption())
        return plain

    authority = f"gridcompute cluster {secrets.token_hex(4)}"
    own, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                           "encipher_only", "decipher_only"), False)
    named = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    ca = signed(authority, own, (x509.BasicConstraints(ca=True, path_length=0), True), (named, False),
                (x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), True))
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)
    certificate = signed("gridcompute node", server, (x509.BasicConstraints(ca=False, path_length=None), True),
                         (x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), True),
                         (x509.ExtendedKeyUsage(both), False), (x509.SubjectAlternativeName(names), False), (by, False))
    return {"ca.crt": ca, "ca.key": private(own), "server.crt": certificate, "server.key": private(server),
            "token": secrets.token_hex(32).encode()}


def _write(path: Path, content: bytes) -> None:
    """Write a private file at once; one that is there is replaced, never written through."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _end(*paths: Path) -> datetime.datetime:
    """When the first of some certificates ceases to be valid."""
    from cryptography import x509

    ends = []
    for path in paths:
        try:
            ends += [one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes())]
        except (OSError, ValueError) as error:
            raise ClusterError(f"{path} is no certificate that can be read: {error}",
                               hint="gridcompute cluster certs makes certificates") from error
    return min(ends)
