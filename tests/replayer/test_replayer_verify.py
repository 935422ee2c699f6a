"""Replay gives the same hashes, and whatever is changed is found."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

import mini
import numpy as np
import pytest
from tampering import flipped, payload_bits, with_payloads, without

from machine import Machine
from machine.errors import DivergenceError, TapeDamagedError, TapeError
from recorder import session
from replayer import replay, verify
from replayer.compare import first_difference
from replayer.cursor import Cursor, boot, step_ends
from replayer.damage import compare_choices, compare_images
from traces import Choices, Event, Events, Tape, TapeWriter, chunks, records, strip
from traces.columns import encode_events
from traces.schema import HOLD, KINDS, RECORD, Op, step_counts

CHILD = """
import sys
from replayer import replay, verify
from traces import Tape
for path in sys.argv[1:]:
    with Tape(path) as tape:
        assert verify(tape).ok
        result = replay(tape)
        print(f"{result.state_hash:x} {result.memory_hash:x} {result.steps} {result.console!r}")
"""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of at most 1,500 steps, and checkpoints, so that short tapes have many."""
    monkeypatch.setattr(session, "CHUNK_STEPS", 1500)
    monkeypatch.setattr(session, "CHECKPOINT_STEPS", 1000)


@pytest.fixture
def recorded(tmp_path: Path, small_chunks: None) -> Iterator[Tape]:
    """A recording of two CPUs under a random walk."""
    mini.prepared(2).record(tmp_path / "a.tape", strategy="random-walk", seed=11)
    with Tape(tmp_path / "a.tape") as tape:
        yield tape


@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("count", [20, pytest.param(334, marks=pytest.mark.soak)])
def test_pairs(cpus: int, count: int, tmp_path: Path) -> None:
    hashes = set()
    for seed in range(count):
        summary = mini.prepared(cpus).record(tmp_path / "a.tape", strategy="random-walk", seed=seed)
        with Tape(tmp_path / "a.tape") as tape:
            result = replay(tape)
        assert (result.state_hash, result.memory_hash) == (summary.state_hash, summary.memory_hash)
        assert (result.steps, result.stop, result.exit_status) == (summary.steps, summary.stop, summary.exit_status)
        assert result.console == summary.console
        hashes.add(result.state_hash)
    assert len(hashes) > 5


def test_stripped_tapes_replay_in_another_process(tmp_path: Path, small_chunks: None) -> None:
    paths, wanted = [], []
    for cpus in (1, 2, 4):
        path = tmp_path / f"{cpus}.tape"
        s = mini.prepared(cpus).record(tmp_path / "full.tape", strategy="random-walk", seed=cpus)
        with Tape(tmp_path / "full.tape") as tape:
            strip(tape, path)
        paths.append(str(path))
        wanted.append(f"{s.state_hash:x} {s.memory_hash:x} {s.steps} {s.console!r}")
    # Another hash seed, another directory: nothing of the host may matter.
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == wanted


def test_verify_compares_everything(recorded: Tape) -> None:
    report = verify(recorded)
    assert report.ok
    assert report.first_step is None
    assert recorded.footer is not None
    assert report.steps == recorded.end_step
    assert report.events == recorded.footer.events
    assert report.hashes == len(recorded.choices_chunks) > 3
    assert report.checkpoints == len(recorded.checkpoint_chunks) > 0


def test_unfinished_tapes_verify_as_far_as_they_go(recorded: Tape, tmp_path: Path) -> None:
    data = recorded.path.read_bytes()
    for chunk in recorded.chunks[2:]:
        for cut in (chunk.end_offset, chunk.end_offset + 30):
            (tmp_path / "cut.tape").write_bytes(data[:cut])
            with Tape(tmp_path / "cut.tape") as tape:
                report = verify(tape)
                assert report.ok
                assert report.unfinished or cut >= len(data)
                assert report.steps == tape.end_step == replay(tape).steps
    (tmp_path / "cut.tape").write_bytes(data[: recorded.chunks[1].offset + 99])
    with Tape(tmp_path / "cut.tape") as tape, pytest.raises(TapeError, match="guest image"):
        verify(tape)


@pytest.mark.parametrize("layer_b", [True, False])
@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.soak)])
def test_flipped_bit_in_the_choices(layer_b: bool, count: int, recorded: Tape, tmp_path: Path) -> None:
    path = recorded.path
    if not layer_b:
        strip(recorded, tmp_path / "b.tape")
        path = tmp_path / "b.tape"
    rng = random.Random(5)
    with Tape(path) as good:
        for _ in range(count):
            chunk = rng.choice(good.choices_chunks)
            with Tape(flipped(path, tmp_path / "bad.tape", rng.choice(payload_bits(chunk)))) as tape:
                report = verify(tape)
                assert not report.ok
                assert [d.offset for d in report.damage] == [chunk.offset]
                assert report.repaired
                assert report.first_step == first_wrong_step(good, tape, chunk)
                with pytest.raises(TapeDamagedError):
                    replay(tape)


def first_wrong_step(good: Tape, bad: Tape, chunk: chunks.Chunk) -> int:
    """By brute force: the first step for which the two tapes do not make the same choice."""
    try:
        damaged = bad.read_choices(chunk, lenient=True).records
    except TapeDamagedError:
        return chunk.first_step
    pairs = zip_longest(per_step(good.read_choices(chunk).records), per_step(damaged))
    # If none differs, only the stored hash is wrong, or how it was compressed: the chunk as a whole is named.
    return chunk.first_step + next((i for i, (a, b) in enumerate(pairs) if a != b), 0)


def per_step(records: np.ndarray) -> Iterator[tuple[int, ...]]:
    for row in records:
        one = row.copy()
        many = one["op"] in (Op.RUN, Op.DRAIN)
        count = int(row["arg"]) if many else 1
        if many:
            one["arg"] = 1
        for _ in range(min(count, 100_000)):
            yield tuple(one.tolist())


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.soak)])
def test_flipped_bit_in_the_image(count: int, recorded: Tape, tmp_path: Path) -> None:
    chunk = next(c for c in recorded.chunks if c.kind == chunks.IMAGE)
    rng = random.Random(6)
    differing = 0
    for _ in range(count):
        bit = rng.choice(payload_bits(chunk))
        with Tape(flipped(recorded.path, tmp_path / "bad.tape", bit)) as tape:
            report = verify(tape)
            assert not report.ok
            assert report.damage[0].offset == chunk.offset
            assert report.repaired
            assert report.first_step is not None
            differing += report.divergence is not None
    assert differing > 0


def test_wrong_code_byte_is_named_exactly(recorded: Tape, tmp_path: Path) -> None:
    image = recorded.image()
    # The tracepoint `round` gets another identifier: the very step that first executes it differs, and no other before.
    at = image.index(bytes.fromhex("04005452"))
    wrong = bytearray(image)
    wrong[at] ^= 0x08
    trace = recorded.events[:]
    first = int(trace.step[(trace.kind == KINDS["trace"]) & (trace.phys == 4)][0])
    found = compare_images(recorded, boot(recorded), boot(recorded, bytes(wrong)))
    assert found is not None
    assert found.step == first
    assert "trace" in found.expected
    # In a tape with good checksums the header's hash of the image gives it away, and then the first state hash.
    chunk = recorded.chunks[1]
    path = with_payloads(recorded, tmp_path / "bad.tape", {chunk.offset: chunks.zstd_pack(bytes(wrong))})
    with Tape(path) as tape:
        report = verify(tape)
        assert [d.offset for d in report.damage] == [chunk.offset]
        assert report.divergence is not None
        assert report.divergence.step == 0


def test_changed_choices_with_good_checksums(recorded: Tape, tmp_path: Path) -> None:
    """Someone edits the choices and makes all checksums fit: only replay can tell."""
    rng = random.Random(7)
    named = 0
    for attempt in range(30):
        chunk = rng.choice(recorded.choices_chunks[1:])
        choices = recorded.read_choices(chunk)
        rows = choices.records.copy()
        at = rng.randrange(len(rows))
        if attempt % 2:
            rows["cpu"][at] ^= 1
        elif rows["op"][at] == Op.RUN:
            rows["flags"][at] ^= HOLD
        else:
            rows["arg"][at] ^= 1
        edited_step = chunk.first_step + int(step_counts(choices.records[:at]).sum())
        payload = records.encode_choices(rows, choices.state_hash)
        with Tape(with_payloads(recorded, tmp_path / "bad.tape", {chunk.offset: payload})) as tape:
            report = verify(tape)
            if report.damage:
                # No machine can make such choices, which is seen without one.
                assert report.damage[0].step == chunk.first_step
                continue
            strip(tape, tmp_path / "bare.tape")
        if report.ok:
            # The edit changed nothing that matters, e.g. HOLD on instructions without stores.
            continue
        named += 1
        assert report.divergence is not None
        assert report.divergence.step >= edited_step
        assert report.divergence.step < recorded.end_step
        assert "\n" not in str(report.divergence)
        with Tape(tmp_path / "bare.tape") as bare:
            bare_report = verify(bare)
            assert bare_report.divergence is not None
            with pytest.raises(DivergenceError):
                replay(bare)
    assert named > 10


def test_changed_events_are_named(recorded: Tape, tmp_path: Path) -> None:
    chunk = recorded.events_chunks[1]
    state_hash, events = recorded.read_events(chunk)
    at = len(events) // 2
    value = events.value.copy()
    value[at] ^= np.uint64(1)
    wrong = Events(*(value if c is events.value else c for c in events.columns()))
    with Tape(with_payloads(recorded, tmp_path / "bad.tape", {chunk.offset: encode_events(wrong, state_hash)})) as tape:
        report = verify(tape)
        assert report.first_step == int(events.step[at])
        assert report.divergence is not None
        assert report.divergence.cpu == int(events.cpu[at])
        replay(tape)  # layer A is good


def test_damaged_layer_b_is_reported_but_harmless(recorded: Tape, tmp_path: Path) -> None:
    for chunk in (*recorded.events_chunks, *recorded.checkpoint_chunks):
        bit = payload_bits(chunk)[300]
        with Tape(flipped(recorded.path, tmp_path / "bad.tape", bit)) as tape:
            report = verify(tape)
            assert not report.ok
            assert report.divergence is None
            assert [d.offset for d in report.damage] == [chunk.offset]
            assert report.steps == tape.end_step
            replay(tape)


def test_checkpoint_with_missing_pages_is_damage(recorded: Tape, tmp_path: Path) -> None:
    chunk = recorded.checkpoint_chunks[0]
    checkpoint = recorded.read_checkpoint(chunk)
    for pages in (checkpoint.pages + np.uint32(0xFFFFF), np.append(checkpoint.pages[1:], np.uint32(0xFFFFFFFF))):
        payload = records.encode_checkpoint(replace(checkpoint, pages=pages))
        with Tape(with_payloads(recorded, tmp_path / "bad.tape", {chunk.offset: payload})) as tape:
            with pytest.raises(TapeDamagedError, match="pages of it are missing"):
                tape.check()
            report = verify(tape)
            assert [d.offset for d in report.damage] == [chunk.offset]
            assert report.damage[0].step == chunk.first_step
            assert report.divergence is None
            assert report.steps == tape.end_step
            replay(tape)


def test_wrong_footer_is_found(recorded: Tape, tmp_path: Path) -> None:
    assert recorded.footer is not None
    for change in (
        {"state_hash": 1}, {"memory_hash": 1}, {"exit_status": 5}, {"console_sha256": sha256(b"x").digest()},
        {"stop": "idle", "exit_status": None}, {"stop": "shutdown"}, {"stop": "steps"}, {"stop": "interrupted"},
        {"events": 7}, {"events": recorded.footer.events + 1},
    ):  # fmt: skip
        payload = records.encode_footer(replace(recorded.footer, **change))  # type: ignore[arg-type]
        with Tape(with_payloads(recorded, tmp_path / "bad.tape", {recorded.chunks[-1].offset: payload})) as tape:
            assert verify(tape).divergence is not None
            with pytest.raises(DivergenceError):
                replay(tape)


@pytest.mark.parametrize("command_line", ["hello", "I", "S"])
def test_wrong_stop_is_found(command_line: str, tmp_path: Path) -> None:
    prepared = mini.prepared.__wrapped__(1, command_line)
    stop = prepared.record(tmp_path / "end", seed=1).stop
    prepared.step_max = prepared.ready_step + 200
    assert prepared.record(tmp_path / "open", seed=1).stop == "steps"
    for name, fitting in (("end", {stop}), ("open", {"steps", "interrupted", "livelock", "freed"})):
        with Tape(tmp_path / name) as good:
            assert good.footer is not None
            for other in records.STOPS:
                payload = records.encode_footer(replace(good.footer, stop=other))
                with Tape(with_payloads(good, tmp_path / "bad.tape", {good.chunks[-1].offset: payload})) as tape:
                    assert verify(tape).ok == (other in fitting)
                    if other not in fitting:
                        with pytest.raises(DivergenceError, match=f"recorded stop {other}"):
                            replay(tape)


def test_missing_events_are_found(recorded: Tape, tmp_path: Path) -> None:
    """The last events chunk is gone, checksums fit; without any there is nothing to count."""
    last = recorded.events_chunks[-1]
    with TapeWriter(tmp_path / "bad.tape") as writer:
        for chunk in recorded.chunks:
            if chunk is not last and chunk.offset != last.end_offset:  # nor is its index
                writer.raw(chunk.kind, recorded.payload(chunk), chunk.first_step, chunk.end_step)
        writer.end()
    with Tape(tmp_path / "bad.tape") as tape:
        assert not verify(tape).ok
        with pytest.raises(DivergenceError, match="number of events"):
            replay(tape)
    with Tape(without(recorded, tmp_path / "bare.tape", chunks.EVENTS)) as tape:
        assert verify(tape).ok


def test_tape_without_checkpoints_verifies(recorded: Tape, tmp_path: Path) -> None:
    with Tape(without(recorded, tmp_path / "b.tape", chunks.CHECKPOINT)) as tape:
        report = verify(tape)
        assert report.ok
        assert report.checkpoints == 0


def test_no_damaged_choices_are_too_much_for_the_machine(recorded: Tape) -> None:
    """Counts that wrap around, no steps at all, too few of them: followed as they stand, until they do not apply."""
    chunk = recorded.choices_chunks[-2]
    assert chunk.first_step >= recorded.header.ready_step
    machine = boot(recorded)
    follow_by_tens(Cursor(recorded), machine, chunk.first_step)
    here = machine.snapshot()
    choices = recorded.read_choices(chunk)
    ran = choices.records["op"] == Op.RUN
    for arg in (0, 1, (1 << 63) + 5, (1 << 64) - 1, (1 << 64) - 100):
        rows = choices.records.copy()
        rows["arg"][ran] = arg
        for damaged in (rows, rows[:2], rows[:0]):
            cursor = Cursor(recorded, {chunk.offset: replace(choices, records=damaged)})
            ends = step_ends(damaged)
            assert not len(ends) or bool((ends[1:] >= ends[:-1]).all())
            for step in range(chunk.first_step, chunk.end_step, 7):
                place = cursor.place(step)
                assert place.index <= len(damaged)
                assert place.done == 0 or place.done < int(place.record["arg"])
            machine.restore(here)
            with pytest.raises(DivergenceError):
                follow_by_tens(cursor, machine, chunk.end_step)


def follow_by_tens(cursor: Cursor, machine: Machine, end_step: int) -> None:
    while machine.step < end_step:
        cursor.follow(machine, min(machine.step + 10, end_step))


def test_compare_choices() -> None:
    def choices(*rows: tuple[int, int, int, int]) -> Choices:
        table = np.array([(op, cpu, flags, 0, arg) for op, cpu, flags, arg in rows], RECORD)
        return Choices(100, 200, 0, table)

    base = choices((Op.RUN, 0, 0, 10), (Op.IRQ, 0, 0, 32), (Op.RUN, 1, 0, 5))
    for other, step in [
        (base, None),
        (choices((Op.RUN, 0, 0, 9), (Op.IRQ, 0, 0, 32), (Op.RUN, 1, 0, 5)), 109),
        (choices((Op.RUN, 0, 0, 12), (Op.IRQ, 0, 0, 32), (Op.RUN, 1, 0, 5)), 110),
        (choices((Op.RUN, 1, 0, 10), (Op.IRQ, 0, 0, 32), (Op.RUN, 1, 0, 5)), 100),
        (choices((Op.RUN, 0, 0, 10), (Op.IRQ, 0, 0, 33), (Op.RUN, 1, 0, 5)), 110),
        (choices((Op.RUN, 0, 0, 10), (Op.IRQ, 0, 0, 32), (Op.RUN, 1, HOLD, 5)), 111),
        (choices((Op.RUN, 0, 0, 10), (Op.IRQ, 0, 0, 32)), 111),
        (choices((Op.RUN, 0, 0, 10), (Op.IRQ, 0, 0, 32), (Op.RUN, 1, 0, 5), (Op.DRAIN, 1, 0, 1)), 116),
    ]:
        found = compare_choices(base, other)
        assert (found.step if found else None) == step


def test_first_difference() -> None:
    def events(*rows: tuple[int, int]) -> Events:
        return Events.from_rows([Event(step, 1, 2, 3, value, 1, 0, 4, 0) for step, value in rows])

    base = events((5, 1), (7, 2), (9, 3))
    assert first_difference(base, base) is None
    assert first_difference(base, base[:2], complete=False) is None
    for other, step in [
        (base[:2], 9),
        (events((5, 1), (7, 2), (9, 3), (11, 4)), 11),
        (events((5, 1), (7, 8), (9, 3)), 7),
        (events((5, 1), (6, 2), (9, 3)), 6),
        (events((5, 1), (8, 2), (9, 3)), 7),
    ]:
        found = first_difference(base, other)
        assert found is not None
        assert found.step == step
