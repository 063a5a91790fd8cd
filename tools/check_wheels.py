"""Check that every pin of a requirements file has a wheel for the given Python versions on 64-bit Linux.

Usage: python tools/check_wheels.py requirements/dev.txt 3.12 3.13

Asks the package index by uv where it is installed (seconds), else by pip (half a minute per version).
Nothing is downloaded but metadata, and nothing is installed. Exit code 1 when a pin has no wheel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement


def read_pins(path: Path) -> list[Requirement]:
    """Return the pins of a requirements file, without their hashes.

    Raises ValueError for a line that is not of the form `name==version [; marker]`.
    """
    pins = []
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.removesuffix("\\").strip()
        if not line or line.startswith(("#", "--hash=")):
            continue
        requirement = Requirement(line)
        if [spec.operator for spec in requirement.specifier] != ["=="]:
            raise ValueError(f"{path}: {line!r} is not pinned to one version with ==")
        pins.append(requirement)
    return pins


def split_by_marker(pins: list[Requirement], python: str) -> tuple[list[str], list[str]]:
    """Return (wanted, left out) as `name==version`, by the markers of CPython `python` on x86-64 Linux."""
    environment: Environment = default_environment()
    environment.update(
        python_version=python,
        python_full_version=f"{python}.0",
        implementation_name="cpython",
        platform_python_implementation="CPython",
        platform_machine="x86_64",
        platform_system="Linux",
        os_name="posix",
        sys_platform="linux",
    )
    wanted, left_out = [], []
    for pin in pins:
        applies = pin.marker is None or pin.marker.evaluate(dict(environment))
        (wanted if applies else left_out).append(f"{pin.name}{pin.specifier}")
    return wanted, left_out


def index_query(pins: Path, python: str) -> list[str]:
    """Return the command that fails if one of the pins in a file has no wheel for `python`."""
    if shutil.which("uv"):
        return [
            *("uv", "pip", "compile", str(pins), "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python-version", python, "--python-platform", "x86_64-manylinux_2_28"),
            *("--output-file", str(pins.with_suffix(".out"))),
        ]
    return [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--dry-run", "--no-deps"),
        *("--only-binary=:all:", "--python-version", python, "--target", str(pins.parent / "target")),
        *("-r", str(pins)),
    ]


def main(arguments: list[str]) -> int:
    """Check the file named first against the Python versions that follow; return the exit code."""
    if len(arguments) < 2:
        print(__doc__)
        return 2
    pins, failed = read_pins(Path(arguments[0])), False
    elsewhere = set(split_by_marker(pins, "3.11")[1])
    for python in arguments[1:]:
        wanted, left_out = split_by_marker(pins, python)
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "pins.in"
            listed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
            done = subprocess.run(index_query(listed, python), capture_output=True, text=True, check=False)
        missing = done.returncode != 0
        failed |= missing
        print(f"Python {python}: {len(wanted)} pins, {'NOT all' if missing else 'all'} have wheels")
        if missing:
            print(done.stderr.strip())
        for pin in sorted(set(left_out) - elsewhere):
            print(f"  not installed on {python}, by its marker: {pin}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
