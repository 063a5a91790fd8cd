"""What Ray does to a process that imports it, and what is undone."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("before", ["", "import ray"])
def test_errors_that_end_the_process_are_not_reported_to_ray_first(before: str) -> None:
    code = (
        f"import sys\nhook = sys.excepthook\n{before}\nfrom gridcompute.ray_session import _imported\n"
        "_imported()\nassert sys.excepthook is hook\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
