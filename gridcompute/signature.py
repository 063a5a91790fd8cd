"""Kernel signatures in NumPy's generalised-ufunc notation, with named core dimensions.

>>> Signature.parse("(time)->(),()")
Signature(inputs=(('time',),), outputs=((), ()))
>>> str(Signature.parse("(n) , (m) -> ()"))
'(n),(m)->()'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gridcompute.errors import SignatureError

Core = tuple[str, ...]

_TOKEN = re.compile(r"\s*(?:(?P<arrow>->)|(?P<mark>[(),])|(?P<name>[A-Za-z_][A-Za-z0-9_]*))")
_EXAMPLE = "write it like '(time)->(),()' or '(n),(m)->()' or '->()'"
MAX_LENGTH = 1000


@dataclass(frozen=True)
class Signature:
    """What a kernel takes and gives for one cell.

    Attributes:
        inputs: core dimensions of each input, slowest first; empty for a scalar.
        outputs: core dimensions of each output.
    """

    inputs: tuple[Core, ...]
    outputs: tuple[Core, ...]

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read a signature; blanks are free between its parts.

        Raises:
            SignatureError: the text isn't a signature; the message shows the position.
        """
        return _Parser(text).signature()

    def __str__(self) -> str:
        sides = (",".join("(" + ",".join(core) + ")" for core in side) for side in (self.inputs, self.outputs))
        return "->".join(sides)

    @property
    def input_dims(self) -> tuple[str, ...]:
        """Names of all core dimensions of the inputs, each once, in order of appearance."""
        return tuple(dict.fromkeys(name for core in self.inputs for name in core))

    @property
    def output_dims(self) -> tuple[str, ...]:
        """Names of all core dimensions of the outputs, each once, in order of appearance."""
        return tuple(dict.fromkeys(name for core in self.outputs for name in core))

    @property
    def new_dims(self) -> tuple[str, ...]:
        """Output dimensions that no input has: their lengths must be given."""
        return tuple(name for name in self.output_dims if name not in self.input_dims)


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise SignatureError(f"a signature is a text, not {type(text).__name__}", hint=_EXAMPLE)
        if len(text) > MAX_LENGTH:
            raise SignatureError(f"a signature of {len(text)} characters is longer than {MAX_LENGTH}", hint=_EXAMPLE)
        self.text = text
        self.tokens: list[tuple[str, int]] = []
        self.at = 0
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                start = position + len(text[position:]) - len(text[position:].lstrip())
                raise self.error(f"unexpected {text[start]!r}", start)
            token = match.group("arrow") or match.group("mark") or match.group("name")
            self.tokens.append((token, match.end() - len(token)))
            position = match.end()

    def error(self, what: str, position: int) -> SignatureError:
        pointer = " " * position + "^"
        shown = self.text.replace("\n", " ").replace("\t", " ")
        return SignatureError(
            f"signature {self.text!r}: {what} at position {position}\n    {shown}\n    {pointer}",
            hint=_EXAMPLE,
        )

    def peek(self) -> tuple[str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", len(self.text.rstrip()))

    def take(self, *expected: str) -> str:
        token, position = self.peek()
        if token not in expected:
            wanted = " or ".join(repr(one) for one in expected)
            raise self.error(
                f"expected {wanted}, found {token!r}" if token else f"expected {wanted}, found the end",
                position,
            )
        self.at += 1
        return token

    def signature(self) -> Signature:
        inputs = () if self.peek()[0] == "->" else self.side()
        self.take("->")
        outputs = self.side()
        token, position = self.peek()
        if token:
            raise self.error(f"unexpected {token!r} after the outputs", position)
        return Signature(inputs, outputs)

    def side(self) -> tuple[Core, ...]:
        cores = [self.core()]
        while self.peek()[0] == ",":
            self.take(",")
            cores.append(self.core())
        return tuple(cores)

    def core(self) -> Core:
        self.take("(")
        names: list[str] = []
        while self.peek()[0] != ")":
            if names:
                self.take(",")
            name, position = self.peek()
            if not (name.isidentifier() and name.isascii()):
                raise self.error("expected a dimension's name" + (f", found {name!r}" if name else ""), position)
            if name in names:
                raise self.error(f"dimension {name!r} stands twice in one argument", position)
            names.append(name)
            self.at += 1
        self.take(")")
        return tuple(names)
