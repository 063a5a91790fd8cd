from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridcompute import journal
from gridcompute.errors import ParameterError, RecordError, StoreError
from gridcompute.journal import Journal, read


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a run" / "journal.jsonl"


def test_round_trip(path):
    clock = Clock()
    with Journal.open(path, clock=clock) as log:
        log.append("start", recipe="abc", n=3, nested={"a": [1, None, True, "\u6e29\n\"x\""]})
        clock.now += 1.5
        log.append("commit", rows=np.int64(4), seconds=np.float32(0.5), at=np.array(7))
    assert read(path) == [
        {"kind": "start", "time": 1000.0, "recipe": "abc", "n": 3, "nested": {"a": [1, None, True, "\u6e29\n\"x\""]}},
        {"kind": "commit", "time": 1001.5, "rows": 4, "seconds": 0.5, "at": 7}]
    assert path.stat().st_mode & 0o777 == 0o600
    for line in path.read_text().splitlines():
        assert json.loads(line)["kind"]  # any tool reads it


def test_grows_over_openings(path):
    for n in range(3):
        with Journal.open(path) as log:
            assert log.torn == 0
            log.append("e", n=n)
    assert [e["n"] for e in read(path)] == [0, 1, 2]


def test_missing_is_empty(path):
    history = read(path)
    assert (history, history.torn, history.skipped) == ([], 0, 0)


def test_open_makes_old_files_private(path):
    path.parent.mkdir()
    path.touch(0o644)
    Journal.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


EVENTS = st.lists(st.dictionaries(st.text("abc", min_size=1), st.integers() | st.text() | st.booleans(), max_size=3),
                  min_size=1, max_size=5)


def written(tmp, events):
    path = Path(tmp) / "j"
    path.unlink(missing_ok=True)
    with Journal.open(path, clock=Clock()) as log:
        for event in events:
            log.append("e", **event)
    return path, [{"kind": "e", "time": 1000.0, **event} for event in events]


@given(EVENTS, st.data())
def test_torn_anywhere(tmp_path_factory, events, data):
    path, full = written(tmp_path_factory.getbasetemp(), events)
    raw = path.read_bytes()
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:cut])
    whole = raw[:cut].count(b"\n")
    torn = cut - (raw[:cut].rfind(b"\n") + 1)
    history = read(path)
    assert (history, history.torn, history.skipped) == (full[:whole], torn, 0)
    with Journal.open(path, clock=Clock()) as log:
        assert log.torn == torn
        log.append("more")
    history = read(path)
    assert (history, history.torn) == ([*full[:whole], {"kind": "more", "time": 1000.0}], 0)


@given(EVENTS, st.data())
def test_damaged_anywhere(tmp_path_factory, events, data):
    """A changed byte costs its own line (two, if it was or became a line's end), and no other is believed wrongly."""
    path, full = written(tmp_path_factory.getbasetemp(), events)
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    old, raw[at] = raw[at], data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    history = read(path)
    assert all(event in full for event in history)
    lost = len(full) - len(history)
    assert lost <= (2 if old == 10 else 1)
    assert bool(lost) == bool(history.skipped or history.torn) or old == raw[at]


@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(raw)
    assert list(read(path)) == []
    with Journal.open(path) as log:
        log.append("e")
    assert [e["kind"] for e in read(path)] == ["e"]


def test_hostile_lines(path):
    def line(body: bytes) -> bytes:
        return b'%s,"crc":"%08x"}\n' % (body[:-1], journal.zlib.crc32(body))

    path.parent.mkdir()
    deep = b'{"a":' * 50_000
    bad = [b'{"kind":"' + deep + b'"}', b'{"kind":5}', b"[1]", deep + b"}"]
    path.write_bytes(b"".join(map(line, bad)) + b"\n" + line(b'{"kind":"e","time":1}'))
    history = read(path)
    assert history[-1] == {"kind": "e", "time": 1}
    assert history.skipped >= 4


def test_what_no_event_can_hold(path):
    with Journal.open(path) as log:
        for fields in ({"x": math.nan}, {"x": object()}, {"x": b"1"}, {"crc": 1}, {"time": 1}, {"x": np.zeros(3)}):
            with pytest.raises(ParameterError):
                log.append("e", **fields)
        log.append("e")
    assert len(read(path)) == 1
    with pytest.raises(ParameterError, match="closed"):
        log.append("e")
    log.close()


def test_syncs_at_most_every_fifth_of_a_second(path, monkeypatch):
    clock, synced = Clock(), []
    real = os.fsync
    monkeypatch.setattr(journal.os, "fsync", lambda fd: (synced.append(clock.now), real(fd)))
    log = Journal.open(path, clock=clock)
    for _ in range(100):
        clock.now += 0.01
        log.append("e")
    assert 4 <= len(synced) <= 5
    clock.now -= 500  # set back
    log.append("e")
    assert synced[-1] == clock.now
    log.flush()
    count = len(synced)
    log.append("e")
    log.close()
    assert len(synced) == count + 1
    log.flush()


def test_full_disk_leaves_whole_lines(path, monkeypatch):
    log = Journal.open(path)
    log.append("first")
    real, left = os.write, [10]

    def write(fd, data):
        if not left[0]:
            raise OSError(28, "No space left on device")
        n = min(left[0], len(data))
        left[0] -= n
        return real(fd, data[:n])

    monkeypatch.setattr(journal.os, "write", write)
    with pytest.raises(StoreError, match="No space"):
        log.append("second", text="x" * 50)
    monkeypatch.undo()
    log.append("third")
    log.close()
    history = read(path)
    assert [e["kind"] for e in history] == ["first", "third"]
    assert (history.torn, history.skipped) == (0, 0)


def test_one_writer(path):
    with Journal.open(path), pytest.raises(RecordError, match="another process"):
        Journal.open(path)
    Journal.open(path).close()


def test_unwritable(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        Journal.open(tmp_path / "f" / "j")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    with pytest.raises(StoreError):
        Journal.open(tmp_path / "link")
    with pytest.raises(StoreError, match="can't be read"):
        read(tmp_path)


def test_threads_share_it(path):
    with Journal.open(path) as log:
        def write(n):
            for i in range(50):
                log.append("e", n=n, i=i)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    history = read(path)
    assert len(history) == 400
    assert history.skipped == 0
    for n in range(8):
        assert [e["i"] for e in history if e["n"] == n] == list(range(50))


_WRITER = """
import sys
from gridcompute.journal import Journal
log = Journal.open(sys.argv[1])
n = 0
while True:
    log.append("e", n=n, text="x" * 200)
    n += 1
    print(n, flush=True)
"""


def test_kill_loses_nothing_that_was_appended(path):
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(300):
        seen = int(child.stdout.readline())
    child.kill()
    child.communicate()
    history = read(path)
    assert [e["n"] for e in history] == list(range(len(history)))
    assert len(history) >= seen
    assert history.skipped == 0
    Journal.open(path).close()  # the lock went with the process
