"""Time travel: every position is the same however one gets there, and writes are found as a linear scan finds them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mini
import pytest
from tampering import flipped, payload_bits, with_payloads

from machine.errors import DivergenceError, ReplayError, TapeDamagedError, TapeError, UsageError
from recorder import session
from replayer import Timeline, snapshots, timeline
from traces import Checkpoint, Tape, TapeWriter, chunks, records, strip
from traces.records import PAGE_BYTES


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of two CPUs with many chunks and some checkpoints."""
    path = tmp_path_factory.mktemp("tapes") / "a.tape"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CHUNK_STEPS", 700)
        patch.setattr(session, "CHECKPOINT_STEPS", 900)
        mini.prepared(2).record(path, strategy="random-walk", seed=21)
    return path


@pytest.fixture(params=["full", "stripped"])
def travel(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Timeline]:
    """A timeline over the recording, with and without layer B, and with small intervals."""
    with pytest.MonkeyPatch.context() as patch, Tape(path) as full:
        patch.setattr(snapshots, "INTERVAL_STEPS", 64)
        patch.setattr(timeline, "WINDOW_STEPS", 512)
        if request.param == "full":
            yield Timeline(full)
            return
        strip(full, tmp_path / "bare.tape")
        with Tape(tmp_path / "bare.tape") as bare:
            yield Timeline(bare)


def whole_state(t: Timeline) -> tuple[object, ...]:
    """All that architecture knows, twice: as a hash and as registers and buffers."""
    cpus = range(t.machine.cpus)
    return (
        t.step,
        t.machine.state_hash(),
        [t.machine.registers(c) for c in cpus],
        [t.machine.store_buffer_entries(c) for c in cpus],
        [t.machine.tlb_entries(c) for c in cpus],
    )


def test_ends(travel: Timeline) -> None:
    assert travel.step == travel.first_step == 0
    assert travel.last_step == travel.tape.end_step
    assert travel.ready_step == travel.tape.header.ready_step
    assert travel.back() == 0
    travel.seek(travel.last_step)
    assert travel.tape.footer is not None
    assert travel.machine.state_hash() == travel.tape.footer.state_hash
    assert travel.forward() == 0
    assert travel.back(10) == 10
    assert travel.forward(100) == 10
    for step in (-1, travel.last_step + 1):
        with pytest.raises(UsageError, match="outside the tape"):
            travel.seek(step)


def test_every_way_leads_to_the_same_state(travel: Timeline) -> None:
    rng = random.Random(1)
    straight: dict[int, tuple[object, ...]] = {}
    targets = sorted(rng.sample(range(travel.last_step + 1), 150))
    for step in targets:
        travel.seek(step)
        straight[step] = whole_state(travel)
    for step in rng.sample(targets, len(targets)):
        travel.seek(step)
        assert whole_state(travel) == straight[step]


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_back_then_forward_is_the_identity(count: int, travel: Timeline) -> None:
    rng = random.Random(2)
    for step in rng.choices(range(1, travel.last_step + 1), k=count):
        travel.seek(step)
        before = whole_state(travel)
        assert travel.back() == 1
        assert travel.step == step - 1
        assert travel.forward() == 1
        assert whole_state(travel) == before


def test_walking_back_step_by_step(travel: Timeline) -> None:
    travel.seek(3000)
    forward = []
    for _ in range(300):
        forward.append(travel.machine.state_hash())
        travel.forward()
    for wanted in reversed(forward):
        travel.back()
        assert travel.machine.state_hash() == wanted


def test_snapshots_are_bounded(travel: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "GRID_MAX", 8)
    monkeypatch.setattr(snapshots, "NEAR_MAX", 5)
    rng = random.Random(3)
    for _ in range(200):
        travel.seek(rng.randrange(travel.last_step + 1))
        assert len(travel._snapshots._kept) <= 8 + 5
    assert travel._snapshots.interval_steps > 64
    travel.seek(0)
    assert travel.step == 0


def test_cpu_of_is_the_cpu_whose_events_happen(travel: Timeline) -> None:
    events = travel.events(0, travel.last_step)
    seen = set()
    for event in events.rows():
        # A start-up IPI is the one step that happens to another CPU.
        if event.name != "start":
            assert event.cpu == travel.cpu_of(event.step)
            seen.add(event.cpu)
    assert seen == {0, 1}
    for step in (-1, travel.last_step):
        with pytest.raises(ReplayError):
            travel.cpu_of(step)


def test_events_do_not_depend_on_layer_b(path: Path, travel: Timeline) -> None:
    with Tape(path) as full:
        taped = full.events[:]
    travel.seek(1234)
    before = whole_state(travel)
    assert travel.events(travel.ready_step, travel.last_step) == taped
    assert travel.events(2000, 2999) == taped.between(2000, 2999)
    assert len(travel.events(5, 4)) == 0
    # From before `ready` on they have to be made in either case.
    assert travel.events(travel.ready_step - 100, travel.ready_step + 100).between(
        travel.ready_step, travel.ready_step + 100
    ) == taped.between(travel.ready_step, travel.ready_step + 100)
    assert whole_state(travel) == before


def test_writes_are_those_of_a_linear_scan(travel: Timeline) -> None:
    events = travel.events(0, travel.last_step)
    words = sorted({e.phys & ~3 for e in events[events.is_write()].rows()})
    rng = random.Random(4)
    for phys in rng.sample(words, 25):
        scan = [e for e in events.rows() if is_visible_write(e.name, e.info) and overlaps(e.phys, e.size, phys, 4)]
        assert list(travel.writes(phys, 4, 0, travel.last_step).rows()) == scan
        # Backwards and forwards by single answers: the same, step by step.
        steps = sorted({e.step for e in scan})
        found, step = [], travel.last_step
        while (event := travel.last_write_before(phys, 4, step)) is not None:
            found.append(event.step)
            step = event.step
        assert found == steps[::-1]
        found, step = [], -1
        while (event := travel.next_write_after(phys, 4, step)) is not None:
            found.append(event.step)
            step = event.step
        assert found == steps


def is_visible_write(name: str, info: int) -> bool:
    return name in ("drain", "ad_update") or (name == "store" and bool(info & 8) and not info & 16)


def overlaps(a: int, a_size: int, b: int, b_size: int) -> bool:
    return a < b + b_size and b < a + max(a_size, 1)


def test_memory_changes_exactly_where_writes_say(travel: Timeline) -> None:
    events = travel.events(travel.ready_step, travel.last_step)
    busiest = max({e.phys for e in events[events.is_write()].rows()}, key=lambda p: len(events.writes(p, 4)))
    writes = set(travel.writes(busiest, 4, travel.ready_step, travel.last_step).step.tolist())
    assert len(writes) > 20
    travel.seek(travel.ready_step)
    before = travel.machine.read(busiest, 4)
    for step in range(travel.ready_step, travel.last_step):
        travel.forward()
        after = travel.machine.read(busiest, 4)
        if after != before:
            assert step in writes
        before = after


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("@3120", 3120), ("3120", 3120), ("3,120", 3120), ("@3,120", 3120), ("start", 0), ("+30", 1030), ("-30", 970),
        ("-1,000", 0), (" 12 ", 12),
    ],
)  # fmt: skip
def test_positions(text: str, wanted: int, travel: Timeline) -> None:
    travel.seek(1000)
    assert travel.position(text) == wanted


def test_named_positions(travel: Timeline) -> None:
    last = travel.last_step
    assert travel.position("end") == last == travel.position("100%")
    assert travel.position("ready") == travel.ready_step
    assert travel.position("0%") == 0
    assert abs(travel.position("50%") - last / 2) <= 1
    assert abs(travel.position("12.5%") - last / 8) <= 1
    travel.seek(77)
    for cpu, count in ((0, 1), (0, 500), (1, 100)):
        step = travel.position(f"cpu{cpu}#{count}")
        assert travel.step == 77
        travel.seek(step)
        assert travel.machine.registers(cpu)["retired"] == count
        travel.back()
        assert travel.machine.registers(cpu)["retired"] == count - 1
        travel.seek(77)


@pytest.mark.parametrize(
    "text",
    ["", "x", "@", "1,2", "12,34", "101%", "999999999", "-78", "+9999999", "cpu9#1", "cpu0#99999999", "cpu0", "1.5",
     "--3", "@-3", "50 %", "٣"],
)  # fmt: skip
def test_bad_positions(text: str, travel: Timeline) -> None:
    travel.seek(77)
    with pytest.raises(UsageError) as caught:
        travel.position(text)
    assert "\n" not in str(caught.value)
    assert travel.step == 77


def test_checkpoints_are_entered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_CHECKPOINT_GAIN_STEPS", 200)
    with Tape(path) as tape:
        plain, quick = Timeline(tape), Timeline(tape)
        monkeypatch.setattr(plain, "_enter", lambda _: None)
        assert len(tape.checkpoint_chunks) >= 2
        for step in (tape.end_step, 2500, tape.checkpoint_chunks[0].first_step, 100, tape.end_step - 5):
            plain.seek(step)
            quick.seek(step)
            assert whole_state(plain) == whole_state(quick)
        # The way to the end was not walked from the start.
        assert min(s for s in quick._snapshots._steps if s) >= tape.checkpoint_chunks[0].first_step - 2**16


def test_damaged_checkpoint_only_costs_time(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_CHECKPOINT_GAIN_STEPS", 200)
    with Tape(path) as tape:
        wanted = tape.footer.state_hash if tape.footer else 0
        targets = [c for c in tape.chunks if c.kind in (chunks.CHECKPOINT, chunks.PAGES)]
    for chunk in targets:
        with Tape(flipped(path, tmp_path / "bad.tape", payload_bits(chunk)[200])) as bad:
            travel = Timeline(bad)
            travel.seek(travel.last_step)
            assert travel.machine.state_hash() == wanted


def test_lying_checkpoint_is_a_divergence(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_CHECKPOINT_GAIN_STEPS", 200)
    with Tape(path) as tape:
        chunk = next(c for c in tape.chunks if c.kind == chunks.PAGES)
        payload = tape.payload(chunk)
        first, count = int.from_bytes(payload[:4], "little"), int.from_bytes(payload[4:8], "little")
        lie = payload[:8] + chunks.zstd_pack(bytes(range(256)) * (count * PAGE_BYTES // 256))
        assert first == 0
        with Tape(with_payloads(tape, tmp_path / "bad.tape", {chunk.offset: lie})) as bad:
            travel = Timeline(bad)
            travel.seek(100)
            before = whole_state(travel)
            for _ in range(2):
                with pytest.raises(DivergenceError, match="checkpoint"):
                    travel.seek(travel.last_step)
                assert whole_state(travel) == before


def with_missing_page(tape: Tape, path: Path) -> Path:
    """A copy whose last checkpoint names a page that the tape does not have."""
    chunk = tape.checkpoint_chunks[-1]
    checkpoint = tape.read_checkpoint(chunk)
    pages = checkpoint.pages.copy()
    pages[len(pages) // 2] = 0xFFFFF
    return with_payloads(tape, path, {chunk.offset: records.encode_checkpoint(replace(checkpoint, pages=pages))})


def test_checkpoint_with_missing_pages_only_costs_time(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "_CHECKPOINT_GAIN_STEPS", 200)
    with Tape(path) as tape, Tape(with_missing_page(tape, tmp_path / "bad.tape")) as bad:
        straight, travel = Timeline(tape), Timeline(bad)
        step = bad.checkpoint_chunks[-1].first_step
        for target in (step, 10, step, bad.end_step):
            straight.seek(target)
            travel.seek(target)
            assert whole_state(travel) == whole_state(straight)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TapeError("the file became shorter while it was read")])
def test_interrupted_checkpoint_leaves_the_machine_alone(
    error: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "_CHECKPOINT_GAIN_STEPS", 200)

    def torn(checkpoint: Checkpoint) -> Iterator[tuple[int, bytes]]:
        yield 16, bytes(PAGE_BYTES)
        raise error

    with Tape(path) as tape:
        straight, travel = Timeline(tape), Timeline(tape)
        straight.seek(tape.end_step)
        travel.seek(100)
        before = whole_state(travel)
        monkeypatch.setattr(tape, "checkpoint_pages", torn)
        if isinstance(error, KeyboardInterrupt):
            with pytest.raises(KeyboardInterrupt):
                travel.seek(tape.end_step)
            assert whole_state(travel) == before
            monkeypatch.undo()
        travel.seek(tape.end_step)
        assert whole_state(travel) == whole_state(straight)


def test_a_divergence_is_found_again(path: Path, tmp_path: Path) -> None:
    """The state behind a chunk is not the recorded one: no later way through it succeeds either."""
    with Tape(path) as tape:
        chunk = tape.choices_chunks[-3]
        choices = tape.read_choices(chunk)
        payload = records.encode_choices(choices.records, choices.state_hash ^ 1)
        with_payloads(tape, tmp_path / "bad.tape", {chunk.offset: payload})
    with Tape(tmp_path / "bad.tape") as bad:
        travel = Timeline(bad)
        for step in (chunk.end_step, chunk.end_step, chunk.end_step + 1, bad.end_step):
            with pytest.raises(DivergenceError):
                travel.seek(step)
            assert travel.step <= chunk.first_step
        assert max(travel._snapshots._kept) <= chunk.first_step
    with Tape(path) as tape:
        straight = Timeline(tape)
        straight.seek(travel.step)
        assert whole_state(travel) == whole_state(straight)


def test_damage_stops_only_who_comes_there(path: Path, tmp_path: Path) -> None:
    with Tape(path) as tape:
        chunk = tape.choices_chunks[3]
        events_chunk = tape.events_chunks[1]
        events = tape.read_events(events_chunk)[1]
    with Tape(flipped(path, tmp_path / "bad.tape", payload_bits(chunk)[99])) as bad:
        travel = Timeline(bad)
        travel.seek(chunk.first_step)
        with pytest.raises(TapeDamagedError):
            travel.forward()
        travel.seek(10)
        assert travel.step == 10
    with Tape(flipped(path, tmp_path / "bad.tape", payload_bits(events_chunk)[999])) as bad:
        assert Timeline(bad).events(events_chunk.first_step, events_chunk.end_step - 1) == events


def test_unfinished_tape_travels_as_far_as_it_goes(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    with Tape(path) as tape:
        cut = tape.events_chunks[2].offset + 5
        whole = Timeline(tape)
        (tmp_path / "cut.tape").write_bytes(data[:cut])
        with Tape(tmp_path / "cut.tape") as part:
            travel = Timeline(part)
            assert travel.last_step == [c for c in tape.choices_chunks if c.offset < cut][-1].end_step < whole.last_step
            travel.seek(travel.last_step)
            whole.seek(travel.last_step)
            assert whole_state(travel) == whole_state(whole)
            # Events that were cut off are made again.
            assert travel.events(0, travel.last_step - 1) == whole.events(0, travel.last_step - 1)


def test_empty_run(tmp_path: Path) -> None:
    """Interrupted right after the header: a tape of no steps."""
    prepared = mini.prepared(1)
    with TapeWriter(tmp_path / "a.tape") as writer:
        writer.begin(prepared.header("default", 0, whole=False), prepared.image)
    with Tape(tmp_path / "a.tape") as tape:
        travel = Timeline(tape)
        assert travel.last_step == 0
        assert len(travel.events(0, 100)) == 0
        assert travel.position("50%") == 0
        assert travel.last_write_before(0, 4, 0) is None
