"""How commands show themselves: summaries whole, arguments without braces."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _Shown:
    """What both kinds of commands have in common; the methods are those of typer's classes."""

    help: str | None

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first sentence, however long: a list of commands breaks its lines."""
        first = " ".join((self.help or "").split("\n\n", 1)[0].split())
        return first.split(". ", 1)[0].removesuffix(".") + "." if first else ""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of a usage line; typer puts braces around arguments that must be given."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]  # type: ignore[misc]


class Command(_Shown, TyperCommand):
    """One command."""


class Group(_Shown, TyperGroup):
    """A command with commands below it."""
