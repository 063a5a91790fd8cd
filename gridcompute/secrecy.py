"""Secrets taken out of texts: what is shown, kept or reported goes through `redacted` first.

A secret is known by how it looks (a password within a URL, the signature of a presigned one, `secret=...`), and by its
value, where an option of a store or a variable of the environment is named like a secret.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

MARK = "***"
"""What stands in a secret's place."""

SHORTEST = 8
"""Characters of a value that is taken out wherever it stands; a shorter one may be a word like any other."""

_NAME = (r"(?:secret|passw(?:or)?d|passphrase|credential|signature|token|connection[_-]?string|authorization"
         r"|(?:access|account|api|private|shared|storage|subscription)[_-]?key)")
_NAMED = re.compile(_NAME + r"|(?:^|[_-])(?:key|sig|sas)$", re.IGNORECASE)
_NO_SECRET = re.compile(r"(?:path|file|dir|mode|url|uri|endpoint)$", re.IGNORECASE)
# Each repetition has a bound: an error's text may be megabytes, and looking must not take the square of that.
_LOOKS = (
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^/\s'\"?#]{1,2000}@"), rf"\1{MARK}@"),
    (re.compile(rf"([?&;](?:[\w.-]{{0,40}}{_NAME}[\w.-]{{0,40}}|sig|key|AWSAccessKeyId|GoogleAccessId)=)[^&;\s'\"<>)]+",
                re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(rf"({_NAME}['\"]?\s{{0,9}}[:=]\s{{0,9}}b?(['\"]))(?:(?!\2).){{1,2000}}(?=\2)", re.IGNORECASE),
     rf"\1{MARK}"),
    (re.compile(rf"({_NAME}=)[^\s'\"&;,)\]}}]+", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"\b(Bearer|Basic)\s{1,9}(?=\S{0,2000}[0-9+/=])[A-Za-z0-9._~+/=-]{12,}"), rf"\1 {MARK}"),
    (re.compile(r"-----BEGIN ([A-Z ]{0,30}PRIVATE KEY)-----.*?(?:-----END \1-----|$)", re.DOTALL), MARK),
)  # fmt: skip

_SIGN = re.compile(rf"://|{_NAME}|[?&;](?:sig|key|AWSA|Goog)|Bearer|Basic|PRIVATE KEY", re.IGNORECASE)
"""What each of these has in it, or most texts haven't."""

_known: set[str] = set()


def learn(options: Mapping[str, Any]) -> None:
    """Keep in mind the secrets among a store's options, at any depth: they are taken out of every text from now on."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            learn(value)
        elif isinstance(value, str) and len(value) >= SHORTEST and _is_secret(str(name)):
            _known.add(value)


def redacted(text: str) -> str:
    """A text without the secrets in it.

    >>> redacted("https://me:hidden@host/x?X-Amz-Signature=12ab&part=3")
    'https://***@host/x?X-Amz-Signature=***&part=3'
    >>> redacted("{'key': 'AK', 'secret': 'hidden'} beside s3://bucket/x@2.nc")
    "{'key': 'AK', 'secret': '***'} beside s3://bucket/x@2.nc"
    """
    return _without(text, _values())


def redacted_values(values: Any) -> Any:
    """What JSON can hold, with `redacted` texts; the keys of objects stay."""
    return _walked(values, _recent(int(time.monotonic()), len(_known)))


def _walked(values: Any, secrets: Sequence[str]) -> Any:
    if isinstance(values, str):
        return _without(values, secrets)
    if isinstance(values, Mapping):
        return {key: _walked(value, secrets) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [value if isinstance(value, int) else _walked(value, secrets) for value in values]
    return values


def _without(text: str, secrets: Sequence[str]) -> str:
    if _SIGN.search(text):
        for look, instead in _LOOKS:
            text = look.sub(instead, text)
    for value in secrets:
        if value in text:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", MARK, text)
    return text


@lru_cache(maxsize=1)
def _recent(second: int, known: int) -> list[str]:
    """`_values` of this second: a journal has a thousand events in one, and the environment hardly changes."""
    return _values()


def _values() -> list[str]:
    """Secrets that are known by their value, the longest first."""
    found = {value for name, value in os.environ.items() if _is_secret(name) and len(value) >= SHORTEST}
    return sorted(_known | found, key=len, reverse=True)


def clean(error: BaseException) -> BaseException | None:
    """An error as the cause of another: itself, or None where what it says, or its causes do, holds a secret."""
    link: BaseException | None = error
    while link is not None:
        if redacted(f"{link} {link!r}") != f"{link} {link!r}":
            return None
        link = link.__cause__ or link.__context__
    return error


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return _NAMED.search(name) is not None and _NO_SECRET.search(name) is None
