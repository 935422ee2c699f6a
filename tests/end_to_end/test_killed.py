"""Recordings that are killed, run out of room, or may not write: what was there stays, and one line says so."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from racetape.cli import main
from replayer import replay
from traces import Tape

RECORD = [sys.executable, "-m", "racetape", "record", "thp-pressure", "-o"]


def killed(path: Path, delay_seconds: float) -> bool:
    """Record, kill -9 so long after the tape has begun; whether that came in time."""
    path.unlink(missing_ok=True)
    process = subprocess.Popen([*RECORD, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (path.exists() and path.stat().st_size > 100_000):
        time.sleep(0.002)
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("count", [pytest.param(2, id="sample"), pytest.param(100, id="all", marks=pytest.mark.soak)])
def test_kill_9_in_the_middle(count: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole.tape"
    started = time.monotonic()
    assert main(["record", "thp-pressure", "-o", str(whole)]) == 0
    seconds = time.monotonic() - started
    data = whole.read_bytes()
    rng = random.Random(count)
    path = tmp_path / "killed.tape"
    done = 0
    for _ in range(20 * count):
        if not killed(path, rng.uniform(0, seconds / 2)) or path.stat().st_size == len(data):
            continue  # too late: the tape was finished
        done += 1
        size = path.stat().st_size
        with Tape(path) as tape:
            assert tape.unfinished
            tape.check()
            end = tape.chunks[-1].end_offset
            assert path.read_bytes()[:end] == data[:end], "what was written is what is written without a kill"
            assert size - end < 1 << 20, "at most the last chunk is torn"
            if tape.end_step:
                result = replay(tape)
                assert (result.steps, result.unfinished) == (tape.end_step, True)
        if done == count:
            break
    assert done == count


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """A limit that the system enforces: writing fails with EFBIG in the middle of a chunk."""
    path = tmp_path / "a.tape"
    limit = 1_500_000  # above the length of the image, which is held in memory as a file
    process = subprocess.run(
        [*RECORD, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert "File too large; it holds the run up to step" in process.stderr
    with Tape(path) as tape:
        assert tape.unfinished
        assert limit - 200_000 < path.stat().st_size <= limit
        tape.check()
        assert f"up to step {tape.end_step} " in process.stderr


def test_where_nothing_may_be_written(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "wrong-zone-small", "-o", "/proc/no.tape"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("racetape: cannot write /proc/no.tape: ")
    assert err.count("\n") == 1
