"""Indexes: what they say is what plain numpy finds in the events, and answers are the same without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tapes import some_events, write_small

from machine.errors import TapeDamagedError, UsageError
from traces import Event, Events, Range, Tape, TapeWriter, _codec
from traces.chunks import INDEX, FormatError, zstd_pack
from traces.columns import tap_of
from traces.index import ISSUED, NEGATIVE, READ, WRITTEN, ChunkIndex, decode_index, index_tap
from traces.schema import DEVICE, DRAINED, KINDS


def index_of(events: Events) -> ChunkIndex:
    payload = index_tap(tap_of(events))
    assert payload is not None
    return decode_index(payload)


def random_events(count: int, seed: int, *, pages: int = 40) -> Events:
    """Events of all kinds, sizes and alignments, with runs and strays, on so many pages."""
    rng = np.random.default_rng(seed)
    step = np.sort(rng.integers(0, 4 * count, count, dtype=np.uint64))
    phys = rng.integers(0, pages * 4096, count, dtype=np.uint64)
    run = rng.random(count) < 0.5
    phys[run] = (np.arange(count, dtype=np.uint64) * np.uint64(4) % np.uint64(pages * 4096))[run]
    kinds = np.array(sorted(KINDS.values()), np.uint8)
    common = np.array([KINDS[k] for k in ("load", "store", "drain", "walk", "ad_update", "trace")], np.uint8)
    kind = np.where(rng.random(count) < 0.9, rng.choice(common, count), rng.choice(kinds, count))
    return Events(
        step,
        np.uint64(0xC0001000) + rng.integers(0, 300, count, dtype=np.uint64),
        phys + np.uint64(0xC0000000),
        phys,
        rng.integers(0, 1 << 64, count, dtype=np.uint64) >> rng.integers(0, 64, count, dtype=np.uint64),
        kind,
        rng.integers(0, 2, count, dtype=np.uint8),
        rng.choice(np.array([1, 2, 4, 8], np.uint8), count),
        rng.choice(np.array([0, DRAINED, DEVICE, DRAINED | DEVICE], np.uint8), count),
    )


def expected_words(events: Events) -> dict[int, tuple[int, int]]:
    """word -> (flags, row of the last visible write or 0), by the words of docs/tape-format.md."""
    found: dict[int, tuple[int, int]] = {}
    for number, e in enumerate(events.rows()):
        device = bool(e.info & DEVICE)
        flags, size = 0, e.size
        if e.name == "walk" or (e.name == "load" and not device):
            flags = READ
        elif e.name == "ad_update":
            flags, size = WRITTEN, max(4, size)
        elif e.name == "drain" or (e.name == "store" and e.info & DRAINED):
            flags = 0 if device else WRITTEN
            signs = 1 << (8 * size - 1) | (1 << 31 if size == 8 else 0)
            if flags and (e.value & signs or e.phys % size):
                flags |= NEGATIVE
        elif e.name == "store" and not device:
            flags = ISSUED
        for word in range(e.phys // 8, (e.phys + size - 1) // 8 + 1) if flags else ():
            old, row = found.get(word, (0, 0))
            found[word] = (old | flags, number if flags & WRITTEN else row)
    return found


@pytest.mark.parametrize(("count", "seed", "pages"), [(1, 1, 1), (3000, 2, 1), (5000, 3, 40), (4000, 4, 3000)])
def test_index_says_what_the_events_say(count: int, seed: int, pages: int) -> None:
    events = random_events(count, seed, pages=pages)
    index = index_of(events)
    expected = expected_words(events)
    words = {int(w["word"]): (int(w["flags"]), int(w["row"])) for w in index.words}
    assert words == expected
    assert list(words) == sorted(words)
    assert index.pcs.tolist() == np.unique(events.pc).tolist()
    assert index.kinds == {int(k): int((events.kind == k).sum()) for k in np.unique(events.kind)}
    traces = events[events.kind == KINDS["trace"]]
    for identifier in np.unique(traces.phys)[:50].tolist():
        of = traces[traces.phys == identifier]
        assert index.operands(identifier, 0).tolist() == np.unique(of.value).tolist()
        assert index.operands(identifier, 1).tolist() == np.unique(of.addr).tolist()
    rng = np.random.default_rng(seed)
    for _ in range(200):
        phys, size = int(rng.integers(0, pages * 4096)), int(rng.integers(1, 5000))
        inside = [expected[w] for w in range(phys // 8, (phys + size - 1) // 8 + 1) if w in expected]
        flags = 0
        for each, _ in inside:
            flags |= each
        rows = [row for each, row in inside if each & WRITTEN]
        assert index.find(phys, size) == (flags, max(rows, default=-1))


def test_addresses_at_the_end_of_all() -> None:
    last = (1 << 64) - 1
    events = Events.from_rows([Event(1, last, last, last, last, KINDS["store"], 0, 8, DRAINED)])
    index = index_of(events)
    assert index.pcs.tolist() == [last]
    assert {int(w["word"]) for w in index.words} == {last // 8, last // 8 + 1}


def test_no_index_for_events_all_over_the_place() -> None:
    count = 60_000
    events = random_events(count, 5)
    scattered = Events(*events.columns()[:3], np.arange(count, dtype=np.uint64) << np.uint64(12), *events.columns()[4:])  # type: ignore[arg-type]
    assert index_tap(tap_of(scattered)) is None


def test_damaged_index_is_noticed() -> None:
    body = index_of(random_events(300, 6)).body
    rng = np.random.default_rng(6)
    for _ in range(3000):
        damaged = bytearray(body)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
        if rng.random() < 0.3:
            del damaged[rng.integers(0, len(damaged)) :]
        index = ChunkIndex(bytes(damaged))
        try:
            assert len(index.words) <= 512 * len(damaged)
            index.find(0x3000, 0x4000)
        except FormatError:
            continue
    with pytest.raises(ValueError, match="no index"):
        _codec.index_read(b"\xff" * 20)


def without_index(tape: Tape, path: Path) -> Path:
    with TapeWriter(path) as writer:
        for chunk in tape.chunks:
            if chunk.kind != INDEX:
                writer.raw(chunk.kind, tape.payload(chunk), chunk.first_step, chunk.end_step)
        writer.end()
    return path


def test_answers_are_the_same_without(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    with Tape(path) as tape, Tape(without_index(tape, tmp_path / "b.tape")) as bare:
        assert tape.index_of(tape.events_chunks[0]) is not None
        assert bare.index_of(bare.events_chunks[0]) is None
        events = tape.events[:]
        rng = np.random.default_rng(1)
        for _ in range(300):
            phys = 0x100000 + int(rng.integers(0, 4096 * 4))
            place = Range(phys, int(rng.choice([1, 2, 4, 8, 64])), "there")
            low, high = sorted(rng.integers(90, 410, 2).tolist())
            written = events.writes(place.phys, place.size_bytes)
            inside = written.between(low, high - 1)
            for t in (tape, bare):
                assert t.writes(place, low, high).events() == inside
                assert t.writes(place, low, high).count() == len(inside)
                assert t.writes(place, low, high).first() == (inside.row(0) if len(inside) else None)
                assert t.writes(place, low, high).last() == (inside.row(-1) if len(inside) else None)
                until = written.between(0, high - 1)
                assert t.last_write(place, high) == (until.row(-1) if len(until) else None)
                later = written.between(low + 1, 1000)
                assert t.next_write(place, low) == (later.row(0) if len(later) else None)
                reads = events[(events.kind == KINDS["load"]) & ((events.info & DEVICE) == 0)]
                touched = (reads.phys < place.phys + place.size_bytes) & (reads.phys + reads.size > place.phys)
                assert t.reads(place).events() == reads[touched]


def test_first_negative(tmp_path: Path) -> None:
    """A counter that other stores touch in part, beside one that is always negative."""
    store, load = KINDS["store"], KINDS["load"]

    def write(step: int, phys: int, size: int, value: int, info: int = DRAINED) -> Event:
        return Event(step, 0xC0001000, phys + 0xC0000000, phys, value, store, 0, size, info)

    rows = [
        write(101, 0x2000, 4, 5),
        write(102, 0x2004, 4, 0xFFFFFFFF),  # its neighbour
        Event(103, 0xC0001000, 0xC0002000, 0x2000, 0xFFFFFFFF, load, 0, 4, 0),
        write(104, 0x2000, 4, 0xFFFFFFFE, 0),  # not visible yet
        write(105, 0x2000, 8, 0x80000000_7FFFFFFF),
        write(106, 0x2000, 8, 0x00000000_90000000),  # the lower half
        write(107, 0x2000, 4, 0),
        write(108, 0x2003, 1, 0x80),  # only the uppermost byte
    ]
    with Tape(write_small(tmp_path / "a.tape", events=rows)) as tape:
        steps = []
        after = 0
        while (found := tape.first_negative((0x2000, 4), after)) is not None:
            steps.append(found.step)
            after = found.step + 1
        assert steps == [106, 108]
        first = tape.first_negative((0x2004, 4))
        assert first is not None
        assert first.step == 102
        assert tape.first_negative((0x2000, 2)) is not None
        assert tape.first_negative((0x3000, 4)) is None


def test_damaged_index_costs_nothing_but_time(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    with Tape(path) as tape:
        chunk = next(c for c in tape.chunks if c.kind == INDEX)
        expected = [tape.last_write(Range(phys, 4, "it")) for phys in range(0x100000, 0x104000, 4)]
    data = bytearray(path.read_bytes())
    data[chunk.end_offset - 3] ^= 1
    path.write_bytes(data)
    with Tape(path) as tape:
        assert [tape.last_write(Range(phys, 4, "it")) for phys in range(0x100000, 0x104000, 4)] == expected
        with pytest.raises(TapeDamagedError, match="index"):
            tape.check()


def test_wrong_index_is_damage(tmp_path: Path) -> None:
    """With checksums that fit."""
    other = index_tap(tap_of(some_events(100, 250, 300, 9)))
    assert other is not None
    with Tape(write_small(tmp_path / "a.tape")) as tape:
        with TapeWriter(tmp_path / "b.tape") as writer:
            for chunk in tape.chunks:
                payload = other if chunk.kind == INDEX else tape.payload(chunk)
                writer.raw(chunk.kind, payload, chunk.first_step, chunk.end_step)
            writer.end()
        with Tape(tmp_path / "b.tape") as wrong, pytest.raises(TapeDamagedError, match="not the index of its events"):
            wrong.check()


def test_steps_and_slices(tmp_path: Path) -> None:
    with Tape(write_small(tmp_path / "a.tape")) as tape:
        whole = tape.events[:]
        assert tape.events[200:300] == whole.between(200, 299)
        assert tape.events[:200] == whole.between(0, 199)
        assert tape.events[200] == whole.between(200, 200)
        assert list(tape.events) == list(whole.rows())
        assert [len(part) for part in tape.events.parts(200, 300)] == [
            len(whole.between(200, 249)), len(whole.between(250, 299)),
        ]  # fmt: skip
        for wrong in (slice(0, 10, 2), slice(-5, None), -1):
            with pytest.raises(UsageError):
                tape.events[wrong]
        assert (tape.at(140).choice, tape.at(140).cpu) == ("cpu1 x50 hold room", 1)
        assert tape.at(190).choice == "drain cpu1 x3"
        assert tape.at(195).choice == "evict cpu0 0xc0000000"
        assert tape.at(399).events == whole.between(399, 399)
        for outside in (-1, 400):
            with pytest.raises(UsageError, match="outside the tape"):
                tape.at(outside)


def test_index_that_claims_too_much_is_damaged() -> None:
    """A few megabytes could claim words that take gigabytes."""
    page = b"\x01\x04\x00\x80\x04\x01"  # one more; 4 bytes: nothing passed over, 512 words, READ
    many = b"\x81\x80\x01"  # 16,385
    for claims in (
        many + page * 16_385,
        b"\x02" + page + b"\x00" + page[1:],
        b"\x02" + page + b"\xff" * 9 + b"\x01" + page[1:],
    ):
        body = claims + bytes(3)
        for ask in (_codec.index_read, _codec.index_pages, lambda body: _codec.index_find(body, 0, 1 << 40)):
            with pytest.raises(ValueError, match="no index"):
                ask(body)
    assert len(ChunkIndex(b"\x01" + page + bytes(3)).words) == 512


def lying(path: Path, events: list[Event], payload: bytes) -> Path:
    """A small tape with another index of its first events, with checksums that fit."""
    with Tape(write_small(path.with_suffix(".true"), events=events)) as tape, TapeWriter(path) as writer:
        at = tape.events_chunks[0].end_offset
        for chunk in tape.chunks:
            data = payload if chunk.offset == at else tape.payload(chunk)
            writer.raw(chunk.kind, data, chunk.first_step, chunk.end_step)
        writer.end()
    return path


def test_rows_that_an_index_names_are_looked_at(tmp_path: Path) -> None:
    """A row that is no write, or not there at all, is no answer."""
    with Tape(write_small(tmp_path / "a.tape")) as tape:
        events = tape.read_events(tape.events_chunks[0])[1]
    written = events.row(int(np.flatnonzero(events.is_write())[-1]))
    page, at = divmod(written.phys >> 3, 512)
    # A load of the same bytes stands before it.
    rows = [written._replace(step=101, kind=KINDS["load"]), written]
    for row in (0, 2, (1 << 18) - 1):
        inside = varint(at) + b"\x01\x02" + varint(2 * row)
        body = b"\x01" + varint(page) + varint(len(inside)) + inside + bytes(3)
        with Tape(lying(tmp_path / "b.tape", rows, zstd_pack(body))) as tape:
            assert tape.last_write(Range(written.phys, written.size, "it"), 250) == written
            with pytest.raises(TapeDamagedError, match="not the index of its events"):
                tape.check()


def varint(x: int) -> bytes:
    return (bytes([x & 127 | 128]) + varint(x >> 7)) if x > 127 else bytes([x])


def test_answers_do_not_hold_memory(tmp_path: Path) -> None:
    """What an index is asked stays only as long as there is room."""
    with Tape(write_small(tmp_path / "a.tape")) as tape:
        assert tape.events_of_kinds({KINDS["load"]}).count() == int((tape.events[:].kind == KINDS["load"]).sum())
        for chunk in tape.events_chunks:
            index = tape.cached_index(chunk)
            assert index is not None
            assert len(index.words) > 0
            assert len(index.body) < index.memory_bytes < 20 * len(index.body) < 16 * len(index.words) * 20


def test_integers_only(tmp_path: Path) -> None:
    """Of what has another length no byte is the sign; A/D updates change none; numpy's integers are integers."""
    ad_update, store = KINDS["ad_update"], KINDS["store"]
    rows = [
        Event(101, 1, 0x2000, 0x2000, 1 << 63, ad_update, 0, 8, 1),
        Event(102, 1, 0x2000, 0x2000, 1 << 63, store, 0, 8, DRAINED),
    ]
    with Tape(write_small(tmp_path / "a.tape", events=rows)) as tape:
        with Tape(without_index(tape, tmp_path / "b.tape")) as bare:
            assert tape.first_negative((0x2000, 8)) == bare.first_negative((0x2000, 8)) == rows[1]
        for size in (3, 5, 6, 7, 9, 12, 16):
            with pytest.raises(UsageError, match="no integer"):
                tape.first_negative((0x2000, size))
        for size in (0, (1 << 20) - 0x1FFF, (1 << 64) - 0x2000, 1 << 70):
            with pytest.raises(UsageError, match=r"RAM|no range"):
                tape.writes((0x2000, size))
        with pytest.raises(UsageError, match="no range"):
            Range(0, 1 << 64, "all")
        step = tape.events[:].step[1]
        assert tape.events[step].row(0) == rows[1]
        assert tape.events[step : step + np.uint64(1)] == tape.events[102]
        assert tape.events[0 : 1 << 70] == tape.events[:]
        assert tape.last_write((np.uint64(0x2000), 8), before=step) == rows[0]
        assert tape.next_write(np.uint64(0x2000), after=np.uint64(101)) == rows[1]
        assert tape.at(step).events == tape.events[102]
