"""What Ray does to a process that imports it, and what is undone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gridcompute import ray_session, reaper
from gridcompute.errors import ClusterError

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("before", ["", "import ray"])
def test_errors_that_end_the_process_are_not_reported_to_ray_first(before: str) -> None:
    code = (
        f"import sys\nhook = sys.excepthook\n{before}\nfrom gridcompute.ray_session import _imported\n"
        "_imported()\nassert sys.excepthook is hook\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_process_connected_to_one_ray_does_not_compute_on_it_in_place_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = SimpleNamespace(gcs_address="127.0.0.1:6379")
    ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: own)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_session, "_joined", {})
    assert ray_session.connect(workers=1, address="head:6379") is ray, "the caller's own connection is taken as it is"
    for asked, place in (("", "a local Ray"), ("first:6379", "the Ray cluster at first:6379")):
        monkeypatch.setattr(ray_session, "_joined", {own.gcs_address: asked})
        for same in ("", asked, own.gcs_address):
            assert ray_session.connect(workers=1, address=same) is ray
        with pytest.raises(ClusterError, match=f"connected to {place}, not to other:6379"):
            ray_session.connect(workers=1, address="other:6379")


def test_the_address_auto_is_what_ray_finds_and_local_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert ray_session._found("auto") == "127.0.0.1:1"
    assert ray_session._found("local") == ray_session._found("") == ""
    monkeypatch.setenv("RAY_ADDRESS", "no address")
    with pytest.raises(ClusterError, match="no Ray cluster is found"):
        ray_session._found("auto")


def test_a_local_ray_ends_with_its_process_and_needs_no_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path))
    code = (
        "import json, psutil\nfrom gridcompute import reaper\nfrom gridcompute.ray_session import connect\n"
        "reaper.watch = lambda pids: None\n"  # which would end them after its grace
        "ray = connect(workers=2)\nassert ray.get(ray.remote(lambda: 7).remote()) == 7\n"
        "family = psutil.Process().children(recursive=True)\n"
        "print(json.dumps([[one.pid, one.name(), reaper.start_time(one.pid)] for one in family]))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not told.stderr
    family = [(pid, name, since) for pid, name, since in json.loads(told.stdout) if since is not None]
    assert {"raylet", "gcs_server"} <= {name for _, name, _ in family}
    until = time.monotonic() + 60
    left = family
    while left and time.monotonic() < until:
        left = [one for one in left if reaper.start_time(one[0]) == one[2]]
        time.sleep(0.05)
    assert left == []
