"""Secrets appear in nothing that is shown, kept or logged: jobs with marked ones, and a search in all they leave."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures_s3 import S3, s3, s3_endpoint

from gridcompute.errors import MissingInputError
from gridcompute.secrecy import MARK, learn, redacted, redacted_values

pytestmark = pytest.mark.ray

__all__ = ["s3", "s3_endpoint"]


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hid:den@host/x", "s3://AKIA:hidden@bucket/x", "ftp://hidden@host",
        "https://host/x?X-Amz-Signature=hidden&a=1", "https://host/x?a=1&sig=hidden", "https://h/x?token=hidden#x",
        "https://host/x?X-Amz-Credential=hidden%2Fx&X-Amz-Security-Token=hidden", "url?AWSAccessKeyId=hidden",
        "{'key': 'a', 'secret': 'hidden'}", '{"password":"hidden"}', "token='hid den'", "AccountKey=hidden;Endpoint=x",
        "aws_secret_access_key = \"hidden\"", "client_secret=hidden", "Authorization: Bearer hidden0123456789",
        "{'headers': {'Authorization': 'Basic aGlkZGVuOmhpZGRlbg=='}}", "api_key=hidden, a=1",
        "-----BEGIN EC PRIVATE KEY-----\nhidden\n-----END EC PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    found = redacted(text)
    assert MARK in found
    assert not re.search(r"hid|\bden|aGlk", found), found
    assert redacted(found) == found, "twice is once"
    assert redacted_values({"a": [text, 1, None], "token": 5}) == {"a": [found, 1, None], "token": 5}


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b/c.nc", "the shard 4-5.tok has no column 'key'", "cell (1, 2), key=5", "a token of the cluster",
        "https://host/x?part=3&key2=7", "a/home/me@here/x.nc", "KeyError: 'time'", "the basic idea", "x::y", "",
        "no token is set here", "recipe 12ab, token 34cd",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["a-", "token", "token='", "://", "a", "Bearer a", "?a", "-----BEGIN PRIVATE KEY-----",
                                  "secret =  ", "a://a", "&token&"])  # fmt: skip
def test_long_texts_are_looked_through_in_time(part: str) -> None:
    began = time.monotonic()
    redacted(part * (200_000 // len(part)))
    assert time.monotonic() - began < 20


def test_values_of_options_and_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    learn({"key": "short", "secret": "quite-hidden-1", "client_kwargs": {"token": "quite-hidden-2"},
           "path": "/a/b/c/d/e", "endpoint_url": "http://127.0.0.1:9000"})
    monkeypatch.setenv("MY_PASSWORD", "quite+hidden(3)")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/some/where/token")
    said = "a quite-hidden-1 b quite-hidden-2 c quite+hidden(3) d /some/where/token e short f http://127.0.0.1:9000"
    assert redacted(said) == f"a {MARK} b {MARK} c {MARK} d /some/where/token e short f http://127.0.0.1:9000"
    assert "hidden" not in str(MissingInputError("no quite-hidden-1", hint="try quite-hidden-2"))


def test_a_run_with_a_secret_among_its_parameters_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gridcompute.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRIDCOMPUTE_STATE", str(tmp_path / "state"))
    (tmp_path / "job.py").write_text(
        "import gridcompute as grid\ngrid.run(grid.from_arrays({'a': [1.0]}, dims='x').sum(), executor='inline')\n")
    assert main(["run", "job.py", "https://me:hidden@host/x"]) == 0
    assert main(["resume", "last"]) == 2
    said = capsys.readouterr()
    assert "with a secret in its parameters" in said.err
    assert "hidden" not in said.out + said.err


class Served(http.server.BaseHTTPRequestHandler):
    """A table under one name, refusals under others; ranges as HTTP has them."""

    data = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(2000))

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        if name != "/t.csv":
            self.send_error(403 if name == "/forbidden.csv" else 500 if name == "/broken.csv" else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.data)

    do_HEAD = do_GET

    def log_message(self, *told: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


JOB = """
import io, json, sys, traceback
import numpy as np
import gridcompute as grid
from gridcompute.errors import GridError

given = json.load(sys.stdin)
options = {"executor": given["executor"], "workers": 1, "store": given["store"], "store_options": given["options"]}

def leaking(values):
    raise ValueError(f"cannot use {SECRET} nor {URL}")

SECRET, URL = given["secret"], given["url"]

@grid.task("()->()", dtypes=["f8"])
def failing(values):
    import io
    raise OSError("refused: " + io.StringIO(KEPT).getvalue())

KEPT = f"secret={given['secret']} at {given['url']}"

def attempt(name, step):
    try:
        print(name, repr(step()))
    except GridError as error:
        print(name, "failed", error)
        traceback.print_exc()
    except Exception as error:
        print(name, "UNEXPECTED", type(error).__name__, str(error).replace(given["secret"], "(it shows)"))

def table():
    lazy = grid.open_table(given["url"])
    print(grid.plan(lazy["b"].sum()).explain(), repr(lazy), lazy["b"])
    run = grid.run(lazy["b"].sum(), **options)
    print("sum", run[0].to_numpy(), run.summary())
    return run

def written():
    made = grid.from_arrays({"a": np.arange(100.0)}, dims="x")
    out = made.write(given["output"], storage_options=given["options"])
    print(grid.plan(out).explain(), repr(out))
    run = grid.run(out, **options)
    print("kept", run.summary(), run.record, run)
    return run

attempt("table", table)
attempt("written", written)
attempt("kernel", lambda: grid.run(grid.from_arrays({"a": np.arange(9.0)}, dims="x").map(failing), **options))
for name in ("forbidden", "broken", "none"):
    attempt(name, lambda: grid.open_table(given["url"].replace("/t.csv", f"/{name}.csv")))
attempt("reads", lambda: grid.open_sequences(given["url"].replace("/t.csv", "/forbidden.fq")))
attempt("dataset", lambda: grid.open_dataset(given["url"].replace("/t.csv", "/forbidden.nc")))
attempt("zarr", lambda: grid.open_zarr(given["url"].replace("/t.csv", "/forbidden.zarr")))
attempt("bucket", lambda: grid.run(grid.from_arrays({"a": np.arange(9.0)}, dims="x").write(
    "s3://no-such-bucket/x.zarr", storage_options=given["options"]), **options))
attempt("store", lambda: grid.run(grid.from_arrays({"a": np.arange(9.0)}, dims="x").sum() + 1, **{
    **options, "store": "s3://no-such-bucket/work"}))
attempt("option", lambda: grid.run(grid.from_arrays({"a": np.arange(9.0)}, dims="x").sum() + 2, **{
    **options, "store_options": {**given["options"], "no_such_option": given["secret"]}}))
"""

SECRET = "hiddenX7qLm29PzR4t"


def leaked(*folders: Path) -> list[str]:
    """Files below folders in which the secret stands."""
    return [str(path) for folder in folders for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("executor", ["inline", "ray"])
@pytest.mark.parametrize("form", ["signed", "user"])
def test_jobs_with_secrets_leave_none_behind(executor: str, form: str, s3: S3, web: str, tmp_path: Path) -> None:
    """The store is S3 with a secret in its options, the input a URL with one; successes and failures of each."""
    url = f"http://{web}/t.csv?X-Amz-Signature={SECRET}&a=1" if form == "signed" else f"http://me:{SECRET}@{web}/t.csv"
    given = {"executor": executor, "store": s3.url, "options": {**s3.options, "secret": SECRET}, "secret": SECRET,
             "url": url, "output": s3.url.replace("/work", "/out.zarr")}
    (tmp_path / "job.py").write_text(JOB)
    temporary = Path(tempfile.mkdtemp(prefix="gcs-", dir="/tmp"))  # a short name: Ray's sockets lie in it
    environment = {**os.environ, "TMPDIR": str(temporary), "GRIDCOMPUTE_STATE": str(tmp_path / "state"),
                   "GRIDCOMPUTE_CACHE": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    try:
        done = subprocess.run([sys.executable, "job.py"], cwd=tmp_path, input=json.dumps(given), text=True,
                              env=environment, capture_output=True, timeout=250, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said.replace(SECRET, "(secret)")[-3000:]
        assert "UNEXPECTED" not in said, said.replace(SECRET, "(secret)")
        assert [line for line in said.splitlines() if SECRET in line] == []
        assert "sum 2664667000" in said
        assert "kept {" in said
        logs = [path for path in temporary.rglob("*") if path.is_file()]
        assert (executor == "ray") == any(path.name.startswith("raylet") for path in logs)
        assert list(tmp_path.rglob("journal.jsonl"))
        assert leaked(tmp_path, temporary) == []
        stored = s3_contents(s3)
        assert any("run.json" in name or "shards" in name for name in stored)
        assert [name for name, data in stored.items() if SECRET.encode() in data] == []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def s3_contents(s3: S3) -> dict[str, bytes]:
    import s3fs

    files = s3fs.S3FileSystem(**s3.options)
    return {name: files.cat_file(name) for name in files.find(s3.url.removeprefix("s3://").partition("/")[0])}
