"""Recording: the same seed gives the same tape, whatever happens gives a good tape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mini
import pytest

from machine import Machine
from machine.errors import DivergenceError, ImageError, TapeError, UsageError
from recorder import Default, Prepared, RandomWalk, Replay, prepare, session, strategy
from recorder.record import prepare_image
from recorder.schedule import plan
from recorder.strategies.replay import drop_steps
from replayer import replay, verify
from traces import Tape, strip
from traces.schema import KINDS, Op, step_counts

CPUS = pytest.mark.parametrize("cpus", [1, 2, 4])


@CPUS
@pytest.mark.parametrize("name", ["default", "random-walk"])
def test_same_seed_same_tape(cpus: int, name: str, tmp_path: Path) -> None:
    prepared = mini.prepared.__wrapped__(cpus)
    first, second, other = (tmp_path / n for n in ("a.tape", "b.tape", "c.tape"))
    summary = prepared.record(first, strategy=name, seed=5)
    prepared.record(other, strategy="random-walk", seed=6)
    again = prepared.record(second, strategy=name, seed=5)
    assert first.read_bytes() == second.read_bytes()
    assert summary.state_hash == again.state_hash
    assert other.read_bytes() != first.read_bytes()
    # Nor does it matter that the machine was used before.
    fresh = mini.prepared.__wrapped__(cpus)
    fresh.record(second, strategy=name, seed=5)
    assert first.read_bytes() == second.read_bytes()


def test_a_run_that_stopped_halfway_leaves_nothing_behind(tmp_path: Path) -> None:
    prepared = mini.prepared.__wrapped__(4)
    prepared.record(tmp_path / "a.tape")
    limit = prepared.step_max
    for step_max in range(2000, 5000, 500):
        prepared.step_max = step_max
        assert prepared.record(tmp_path / "b.tape").stop == "steps"
        prepared.step_max = limit
        prepared.record(tmp_path / "b.tape")
        assert (tmp_path / "a.tape").read_bytes() == (tmp_path / "b.tape").read_bytes()


@CPUS
def test_summary_and_tape_agree(cpus: int, tmp_path: Path) -> None:
    summary = mini.prepared(cpus).record(tmp_path / "a.tape")
    assert summary.outcome == "ended"
    assert summary.console == "ahello"
    assert summary.size_bytes == (tmp_path / "a.tape").stat().st_size
    with Tape(tmp_path / "a.tape") as tape:
        tape.check()
        assert tape.footer is not None
        assert (tape.footer.stop, tape.footer.exit_status) == ("exit", 0)
        assert tape.footer.steps == summary.steps == tape.end_step
        assert tape.header.ready_step == summary.ready_step > 1000
        events = tape.events[:]
        assert len(events) == summary.events == tape.footer.events
        assert int(events.step[0]) >= summary.ready_step
        assert int(events.kind[-1]) == KINDS["exit"]
        assert set(events.cpu.tolist()) == set(range(cpus))


def test_random_walk_uses_all_its_means(tmp_path: Path) -> None:
    ops: set[int] = set()
    consoles, outcomes = set(), set()
    for seed in range(12):
        summary = mini.prepared(2).record(tmp_path / "a.tape", strategy="random-walk", seed=seed)
        consoles.add(summary.console)
        outcomes.add(summary.outcome)
        with Tape(tmp_path / "a.tape") as tape:
            for choices in tape.choices(summary.ready_step):
                ops |= set(choices.records["op"].tolist())
    assert ops == {Op.RUN, Op.DRAIN, Op.IRQ, Op.CHOICE, Op.EVICT}
    assert consoles == {"ahello", "bhello", "chello"}
    assert outcomes == {"ended", "failed"}  # the race is lost in some schedules, not in all


def test_whole(tmp_path: Path) -> None:
    prepared = mini.prepared(2)
    for name, whole in (("a", False), ("b", True)):
        prepared.record(tmp_path / name, strategy="random-walk", seed=3, whole=whole)
    with Tape(tmp_path / "a") as part, Tape(tmp_path / "b") as whole_tape:
        assert whole_tape.events_range == (0, whole_tape.end_step)
        ready = part.header.ready_step
        assert whole_tape.events[ready:] == part.events[:]
        assert len(whole_tape.events[:ready]) > 300
        assert [c.records.tobytes() for c in whole_tape.choices()] == [c.records.tobytes() for c in part.choices()]
        assert whole_tape.footer is not None
        assert part.footer is not None
        assert whole_tape.footer.state_hash == part.footer.state_hash
        assert whole_tape.footer.console_sha256 == part.footer.console_sha256
        assert replay(whole_tape).steps == whole_tape.end_step


def test_whole_goes_on_where_the_default_schedule_stood(tmp_path: Path) -> None:
    """`ready` comes on cpu1 while cpu0 could run as well: whose turn it is then is no part of the state."""
    prepared = mini.prepared(2, ready_cpu=1)
    for name in ("default", "random-walk"):
        part = prepared.record(tmp_path / "a", strategy=name, seed=3)
        whole = prepared.record(tmp_path / "b", strategy=name, seed=3, whole=True)
        assert (whole.steps, whole.state_hash, whole.console) == (part.steps, part.state_hash, part.console)
        with Tape(tmp_path / "a") as a, Tape(tmp_path / "b") as b:
            assert [c.records.tobytes() for c in a.choices()] == [c.records.tobytes() for c in b.choices()]
            assert verify(b).ok


@CPUS
def test_whole_tapes_verify(cpus: int, tmp_path: Path) -> None:
    mini.prepared(cpus).record(tmp_path / "a.tape", strategy="random-walk", seed=3, whole=True)
    with Tape(tmp_path / "a.tape") as tape:
        assert verify(tape).ok


def test_without_layer_b(tmp_path: Path) -> None:
    prepared = mini.prepared(2)
    prepared.record(tmp_path / "full", strategy="random-walk", seed=3)
    prepared.record(tmp_path / "bare", strategy="random-walk", seed=3, layer_b=False)
    with Tape(tmp_path / "full") as full, Tape(tmp_path / "bare") as bare:
        strip(full, tmp_path / "stripped")
        with Tape(tmp_path / "stripped") as stripped:
            assert stripped.footer is not None
            assert bare.footer is not None
            assert stripped.footer.state_hash == bare.footer.state_hash
        assert verify(bare).ok


def test_replay_strategy_gives_the_tape_again(tmp_path: Path) -> None:
    prepared = mini.prepared(4)
    prepared.record(tmp_path / "a", strategy="random-walk", seed=9)
    with Tape(tmp_path / "a") as tape:
        prepared.record(tmp_path / "b", strategy=Replay(tape), seed=9)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("command_line", "stop"), [("hello", "exit"), ("I", "idle"), ("S", "shutdown")])
@pytest.mark.parametrize("name", ["default", "random-walk"])
def test_every_ending_is_recorded_and_recorded_again(name: str, command_line: str, stop: str, tmp_path: Path) -> None:
    prepared = mini.prepared.__wrapped__(1, command_line)
    summary = prepared.record(tmp_path / "a", strategy=name, seed=9)
    assert summary.stop == stop
    assert summary.outcome == ("ended" if stop == "exit" else "failed")
    again = (tmp_path / "a").read_bytes()
    with Tape(tmp_path / "a") as tape:
        assert prepared.record(tmp_path / "b", strategy=Replay(tape), seed=9).stop == stop
        assert (tmp_path / "b").read_bytes() == again
        # The limit may fall on the very step that ends the run.
        prepared.step_max = summary.steps
        assert prepared.record(tmp_path / "b", strategy=name, seed=9).stop == stop
        assert prepared.record(tmp_path / "b", strategy=Replay(tape), seed=9).stop == stop
        prepared.step_max -= 1
        assert prepared.record(tmp_path / "b", strategy=name, seed=9).stop == "steps"
    with Tape(tmp_path / "b") as tape:
        assert verify(tape).ok
        limited = (tmp_path / "b").read_bytes()
        prepared.record(tmp_path / "c", strategy=Replay(tape), seed=9)
    assert (tmp_path / "c").read_bytes() == limited


def test_replay_strategy_notices_another_run(tmp_path: Path) -> None:
    mini.prepared(2).record(tmp_path / "a", strategy="random-walk", seed=9)
    # With an empty command line there is nothing to print, so the guest exits before the tape's choices are made.
    with Tape(tmp_path / "a") as tape, pytest.raises(DivergenceError, match="cannot be followed") as caught:
        mini.prepared(2, "").record(tmp_path / "b", strategy=Replay(tape))
    assert caught.value.step > mini.prepared(2).ready_step


def test_drop_steps() -> None:
    records = plan((Op.RUN, 0, 10), (Op.IRQ, 0, 32), (Op.DRAIN, 1, 3))
    for count in range(15):
        rest = drop_steps(records, count)
        assert int(step_counts(rest).sum()) == 14 - count
    assert drop_steps(records, 4)["arg"].tolist() == [6, 32, 3]
    assert drop_steps(records, 11)["arg"].tolist() == [3]


def test_step_limit(tmp_path: Path) -> None:
    prepared = prepare_small_limit()
    summary = prepared.record(tmp_path / "a.tape", strategy="random-walk", seed=1)
    assert (summary.stop, summary.outcome, summary.steps) == ("steps", "inconclusive", 2500)
    assert summary.exit_status is None
    with Tape(tmp_path / "a.tape") as tape:
        assert verify(tape).ok
        assert not tape.unfinished


def prepare_small_limit() -> Prepared:
    return prepare_image(
        Machine(cpus=1, ram_bytes=8 << 20), mini.image(), "", scenario="mini", variant="", configuration="",
        step_max=2500,
    )  # fmt: skip


def test_never_ready() -> None:
    with pytest.raises(ImageError, match=r"does not get ready: it stops at step 100 \(steps\)"):
        prepare_image(
            Machine(ram_bytes=8 << 20), mini.image(), "", scenario="mini", variant="", configuration="", step_max=100
        )


def test_ctrl_c_finishes_the_tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CHUNK_STEPS", 4096)

    def interrupt(step: int, _: int) -> None:
        if step > 20_000:
            signal.raise_signal(signal.SIGINT)  # to this thread: another might be slow to take it

    summary = mini.prepared(2, "L").record(tmp_path / "a.tape", strategy="random-walk", seed=1, progress=interrupt)
    assert (summary.stop, summary.outcome) == ("interrupted", "inconclusive")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Tape(tmp_path / "a.tape") as tape:
        assert not tape.unfinished
        assert tape.end_step == summary.steps > 20_000
        assert verify(tape).ok
        again = mini.prepared(2, "L").record(tmp_path / "b.tape", strategy=Replay(tape), seed=1)
    assert again.stop == "interrupted"
    assert (tmp_path / "a.tape").read_bytes() == (tmp_path / "b.tape").read_bytes()


def test_full_disk_leaves_a_good_tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CHUNK_STEPS", 4096)
    room = 100_000
    write = os.write

    def short_write(fd: int, data: memoryview) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        count = write(fd, data[:room])
        room -= count
        return count

    prepared = mini.prepared(2, "L")
    monkeypatch.setattr(os, "write", short_write)
    with pytest.raises(TapeError, match="No space left on device"):
        prepared.record(tmp_path / "a.tape", strategy="random-walk", seed=1)
    monkeypatch.undo()
    with Tape(tmp_path / "a.tape") as tape:
        assert tape.unfinished
        assert tape.end_step > prepared.ready_step
        assert verify(tape).ok
    # The machine is as good as before.
    assert prepared.record(tmp_path / "b.tape").outcome == "ended"


CHILD = """
import sys
sys.path.insert(0, {folder!r})
import mini
prepared = mini.prepared(2, "L")
print("ready", flush=True)
seed = 0
while True:
    prepared.record({path!r}, strategy="random-walk", seed=seed)
    seed += 1
"""


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_kill_9(count: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    unfinished = 0
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for attempt in range(count):
        code = CHILD.format(folder=str(Path(__file__).parent), path=str(path))
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            while not path.exists() and child.poll() is None:
                time.sleep(0.001)
            time.sleep(0.01 + 0.013 * (attempt % 10))
            child.kill()
        try:
            with Tape(path) as tape:
                tape.check()
                unfinished += tape.unfinished
                result = replay(tape)
                assert result.steps == tape.end_step
        except TapeError as error:
            # Killed between truncating the old tape and writing the new one's image.
            assert "cut before" in str(error) or "is empty" in str(error)  # noqa: PT017
    assert unfinished > 0 or count < 20


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown strategy 'nonsense'; there are default, .*random-walk"):
        strategy("nonsense")
    for seed in (-1, 1 << 64):
        with pytest.raises(UsageError, match="seed"):
            mini.prepared(1).record(tmp_path / "a.tape", seed=seed)
    assert not (tmp_path / "a.tape").exists()
    for names in (("nope", None, None), ("wrong-zone", "nope", None), ("wrong-zone", None, "nope")):
        with pytest.raises(UsageError, match="nope"):
            prepare(*names)
    with pytest.raises(TapeError, match="cannot write"):
        mini.prepared(1).record(tmp_path / "missing" / "a.tape")
    assert isinstance(strategy("default"), Default)
    assert isinstance(strategy("random-walk"), RandomWalk)
