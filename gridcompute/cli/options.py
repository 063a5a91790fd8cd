"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Work store: a folder or a URL such as s3://bucket/folder.", show_default=False),
]
Address = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Ray cluster to run on; by default a local Ray.", show_default=False),
]
Certs = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Token and certificates of that cluster.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help='A run: its name, the beginning of it, or "last".')]

COMMON: dict[str, Any] = {
    "workers": Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cores to use; by default all.", show_default=False)
    ],
    "address": Address,
    "certs": Certs,
    "allow_open": Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Join a cluster that isn't closed; see the docs.", show_default=False),
    ],
    "executor": Annotated[
        str | None, typer.Option(metavar="NAME", help="ray, or inline: in this process.", show_default=False)
    ],
    "store": Store,
    "memory": Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory a worker may take, such as 4GB.", show_default=False)
    ],
    "on_error": Annotated[
        str | None,
        typer.Option(metavar="stop|skip", help="At a cell that fails: stop, or skip and list it.", show_default=False),
    ],
    "keep_intermediates": Annotated[
        bool, typer.Option("--keep-intermediates", help="Leave intermediate results in the work store.")
    ],
    "verify_outputs": Annotated[
        bool, typer.Option("--verify-outputs", help="Hash what is there of an output, instead of trusting sizes.")
    ],
    "verify": Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the chunks to compute again and compare.", show_default=False),
    ],
    "quorum": Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Equal results that each chunk needs, of at most N.", show_default=False),
    ],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors.")],
    "json": AsJson,
}
"""Options of all that runs, by name."""


def common_parameters(names: tuple[str, ...] = tuple(COMMON)) -> list[inspect.Parameter]:
    """The common options as parameters of a command's function."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=COMMON[name],
            default=False if name in ("keep_intermediates", "verify_outputs", "quiet", "json") else None,
        )
        for name in names
    ]


def split(values: dict[str, Any], outer: dict[str, Any] | None) -> tuple[dict[str, Any], bool, bool]:
    """A run's options out of a command's values (those given before the workload count where none follow it).

    Returns:
        The options that were given; whether to be quiet; whether JSON is wanted.

    Raises:
        ParameterError: a value that no run can have, whether this command has a use for it or not.
    """
    from gridcompute.config import Settings

    found = {}
    for name in COMMON:
        value = values.pop(name, None)
        before = (outer or {}).get(name)
        found[name] = value if value not in (None, False) else before
    as_json, quiet = bool(found.pop("json")), bool(found.pop("quiet"))
    options = {name: value for name, value in found.items() if value is not None}
    Settings.of(**options)
    if quiet or as_json:
        options["quiet"] = True
    return options, quiet, as_json


def behind(verb: str, path: str, arguments: Sequence[str]) -> str:
    """A note on options of a run that stand behind a script, so that they are the script's, which has none of the name.

    Empty where there are none.
    """
    given = {word.partition("=")[0] for word in arguments}
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # no such file, no name of one
        return ""  # whoever runs it says so
    options = {name: "--" + name.replace("_", "-") for name in COMMON}
    found = [option for name, option in options.items()
             if option in given and name not in text and option[2:] not in text]
    if not found:
        return ""
    return (f"note: {', '.join(found)} went to the script as its own; for the run write gridcompute {verb} {found[0]} "
            f"... {path}")
