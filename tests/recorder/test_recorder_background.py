"""Recording with the second thread: the tape is the same, and what goes wrong there ends the recording."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import mini
import pytest

from machine.errors import TapeError
from replayer.verify import verify
from traces import Tape, TapeWriter
from traces.columns import Tap


@pytest.mark.parametrize("whole", [False, True])
def test_the_tape_does_not_depend_on_the_second_thread(whole: bool, tmp_path: Path) -> None:
    prepared = mini.prepared(2, "L")
    alone, other = tmp_path / "alone.tape", tmp_path / "other.tape"
    for seed in range(3):
        first = prepared.record(alone, strategy="random-walk", seed=seed, whole=whole, background=False)
        second = prepared.record(other, strategy="random-walk", seed=seed, whole=whole)
        assert alone.read_bytes() == other.read_bytes()
        assert first.size_bytes == second.size_bytes == other.stat().st_size
        assert first.events > 0


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    mini.prepared(1).record(tmp_path / "a.tape")
    with pytest.raises(TapeError, match="cannot write /dev/full"):
        mini.prepared(1).record("/dev/full")
    assert threading.active_count() == before


@pytest.mark.parametrize("room", [4000, 40_000, 60_000])
def test_a_disk_that_becomes_full_ends_the_recording(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = mini.prepared(2, "L")
    path, whole = tmp_path / "a.tape", tmp_path / "whole.tape"
    prepared.record(whole, strategy="random-walk", seed=1, whole=True)
    size_bytes = whole.stat().st_size
    write = os.write
    left = min(room, size_bytes - 100)

    def short_write(fd: int, data: memoryview) -> int:
        nonlocal left
        if left == 0:
            raise OSError(28, "No space left on device")
        count = write(fd, data[:left])
        left -= count
        return count

    monkeypatch.setattr(os, "write", short_write)
    with pytest.raises(TapeError, match="No space left on device; it holds the run up to step") as caught:
        prepared.record(path, strategy="random-walk", seed=1, whole=True)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert whole.read_bytes().startswith(path.read_bytes())
    if path.stat().st_size < size_bytes / 10:
        return  # Not even the image is there.
    with Tape(path) as tape:
        assert tape.unfinished
        assert f"up to step {tape.end_step} " in str(caught.value)
        assert verify(tape).ok


def test_an_error_that_meets_a_full_tap_leaves_the_machine_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error's traceback keeps the events that were being given away; the next recording does not mind."""
    prepared = mini.prepared(2, "L")
    whole = tmp_path / "whole.tape"
    prepared.record(whole, whole=True)
    tap = TapeWriter.tap

    def no_write(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    def late_tap(self: TapeWriter, rows: Tap, end_step: int, state_hash: int) -> None:
        monkeypatch.setattr(os, "write", no_write)
        self._do(lambda: self._write(b"x"))
        assert self._background is not None
        self._background._jobs.join()
        tap(self, rows, end_step, state_hash)
        raise AssertionError("the error comes in the call")

    monkeypatch.setattr(TapeWriter, "tap", late_tap)
    with pytest.raises(TapeError, match="No space left on device") as caught:
        prepared.record(tmp_path / "a.tape", whole=True)
    monkeypatch.undo()
    frames = [entry.frame.f_locals for entry in caught.traceback]
    assert any(locals_.get("rows") is not None for locals_ in frames)
    prepared.record(tmp_path / "again.tape", whole=True)
    assert (tmp_path / "again.tape").read_bytes() == whole.read_bytes()
