"""How commands show themselves: summaries whole, arguments without braces."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
    """One command.

    Attributes:
        parameters: names of a workload's own parameters, which its help lists before the options that all have.
    """

    parameters: frozenset[str] = frozenset()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """A list of the parameters, and one of the options."""
        if not self.parameters:
            return super().format_options(ctx, formatter)
        lists: dict[str, list[tuple[str, str]]] = {"Parameters": [], "Options": []}
        for one in self.get_params(ctx):
            if (record := one.get_help_record(ctx)) is not None:
                lists["Parameters" if one.name in self.parameters else "Options"].append(record)
        for title, records in lists.items():
            with formatter.section(title):
                formatter.write_dl(records)
        return None


class Group(_Shown, TyperGroup):
    """A command with commands below it."""


class Several(Group):
    """A group whose first words, up to the first option, may name several commands: together they are one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of all names that stand first."""
        first = leading(args)
        return super().resolve_command(ctx, [" ".join(first), *args[len(first):]] if len(first) > 1 else args)


def leading(words: Sequence[str]) -> Sequence[str]:
    """The words before the first option; none behind a script's path, where everything is the script's."""
    for count, word in enumerate(words):
        if word.startswith("-"):
            return words[:count]
        if word.endswith(".py") or "/" in word or os.sep in word:
            return words[:1]
    return words
