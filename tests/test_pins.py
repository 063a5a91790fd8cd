"""What a clone installs: the pins are complete, agree with each other, and the wheel holds what it should."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILES = ("runtime", "dev", "peers")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(text: str) -> dict[str, tuple[Requirement, int]]:
    """Return name -> (pin, number of hashes) of a requirements file."""
    found: dict[str, tuple[Requirement, int]] = {}
    for entry in re.sub(r"\\\n", " ", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)).split("\n"):
        if entry.strip():
            line, *hashes = entry.split("--hash=sha256:")
            pin = Requirement(line)
            assert pin.name not in found, f"{pin.name} is pinned twice"
            found[canonicalize_name(pin.name)] = (pin, len(hashes))
    return found


def pinned(name: str) -> dict[str, tuple[Requirement, int]]:
    """Return the pins of requirements/NAME.txt."""
    return pins((ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8"))


def wanted(name: str) -> list[Requirement]:
    """Return what a requirements file was resolved from."""
    direct = [] if name == "peers" else PROJECT["project"]["dependencies"]
    if name != "runtime":
        lines = (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
        direct = [*direct, *(line.partition("#")[0].strip() for line in lines)]
    return [Requirement(line) for line in direct if line]


@pytest.mark.parametrize("name", FILES)
def test_every_pin_is_exact_and_hashed(name: str) -> None:
    for pin, hashes in pinned(name).values():
        assert [spec.operator for spec in pin.specifier] == ["=="], pin
        assert hashes > 0, f"{pin} has no hash"
        assert pin.url is None


@pytest.mark.parametrize("name", FILES)
def test_what_is_asked_for_is_pinned(name: str) -> None:
    have = pinned(name)
    for requirement in wanted(name):
        assert canonicalize_name(requirement.name) in have, f"{requirement}: run `make pins`"
        pin = have[canonicalize_name(requirement.name)][0]
        version = next(iter(pin.specifier)).version
        assert requirement.specifier.contains(version), f"{pin} is not {requirement}: run `make pins`"


@pytest.mark.parametrize("name", FILES)
def test_no_option_and_no_address_in_a_requirements_file(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    options = {word for word in re.findall(r"(?<!\S)--?[a-z-]+", text) if word not in ("--hash", "-c", "-r")}
    assert options == set()
    assert "://" not in text


def test_the_files_agree() -> None:
    runtime, dev, peers = (pinned(name) for name in FILES)
    assert set(runtime) <= set(dev)
    for name in set(dev).intersection({**runtime, **peers}):
        versions = {str(group[name][0].specifier) for group in (runtime, dev, peers) if name in group}
        assert len(versions) == 1, f"{name}: {versions}"


def test_a_pin_without_a_hash_or_pinned_twice_is_noticed() -> None:
    hashed = "a==1 ; os_name == 'posix' \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n    # via b\n"
    found = pins(hashed + "b==2\n")
    assert {name: count for name, (_, count) in found.items()} == {"a": 2, "b": 0}
    with pytest.raises(AssertionError, match="twice"):
        pins("a==1\na==2\n")


def test_the_wheel_holds_both_packages_and_nothing_else(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    for name in ("gridcompute", "workloads", "tests", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry_points = b"".join(wheel.read(name) for name in wheel.namelist() if "entry_points" in name)
    expected = {"gridcompute/py.typed", "gridcompute_workloads/py.typed"}
    for package, folder in (("gridcompute", "gridcompute"), ("gridcompute_workloads", "workloads")):
        for file in (tmp_path / folder).rglob("*.py"):
            expected.add(f"{package}/{file.relative_to(tmp_path / folder).as_posix()}")
    assert names == expected
    assert b"gridcompute = gridcompute.cli:main" in entry_points
    assert b"climate.trend = gridcompute_workloads.climate.trend:trend" in entry_points
