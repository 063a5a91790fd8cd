"""Check the relative links of the Markdown files that the documentation build does not see, README first.

Usage: python tools/check_links.py

A link must lead to a file of the repository, and its `#anchor`, if it has one, to a heading of that file.
Links to other sites are not followed. Exit code 1 and one line per dead link.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import unquote

LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"  # [text](target "title"), ![text](target)
    r"|<(?:img|a)\s[^>]*?\b(?:src|href)=\"([^\"]+)\""
)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SKIPPED = {".venv", ".venv-peers", "site", "demo", "build", "node_modules", "docs"}


def anchors(text: str) -> set[str]:
    """Return the anchors that a forge gives the headings of a Markdown text."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*\s*$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 1
        unique = slug
        while unique in found:
            unique, number = f"{slug}-{number}", number + 1
        found.add(unique)
    return found


def dead_links(page: Path, root: Path) -> list[str]:
    """Return a line for each dead relative link of `page`, a file below `root`."""
    text = page.read_text(encoding="utf-8")
    dead = []
    for groups in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        target = groups[0] or groups[1]
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or not file.is_relative_to(root.resolve()):
            dead.append(f"{page.relative_to(root)}: {target} does not exist in the repository")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            dead.append(f"{page.relative_to(root)}: {target} names no heading of {file.name}")
    return dead


def main() -> int:
    """Check every Markdown file of the repository outside docs/; return the exit code."""
    root = Path(__file__).resolve().parent.parent
    pages = [
        page
        for page in sorted(root.rglob("*.md"))
        if not any(part in SKIPPED or part.startswith(".") for part in page.relative_to(root).parts)
    ]
    dead = [line for page in pages for line in dead_links(page, root)]
    print("\n".join(dead) if dead else f"{len(pages)} Markdown files outside docs/: no dead links")
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
