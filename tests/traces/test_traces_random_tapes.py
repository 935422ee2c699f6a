"""Every question to random tapes, with and without indexes, against plain loops over all events."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from tapes import CONSOLE, IMAGE, choices, header

from traces import Event, Events, Range, Tape, TapeFooter, TapeWriter
from traces.schema import AD_UPDATE, DEVICE, DRAIN, DRAINED, KINDS, LOAD, STORE, Op, U64Array

RAM_BYTES = 1 << 20
COMMON = np.array([KINDS[k] for k in ("load", "store", "store", "drain", "walk", "ad_update", "trace")], np.uint8)
ALL = np.array(sorted(KINDS.values()), np.uint8)


def random_places(rng: np.random.Generator, pages: U64Array, count: int) -> U64Array:
    """Addresses on a few pages, many of them at the same words or about the pages' ends."""
    offset = np.choose(
        rng.integers(0, 4, count),
        [
            rng.integers(0, 64, count),
            rng.integers(0, 64, count),
            rng.integers(4070, 4096, count),
            rng.integers(0, 4096, count),
        ],
    )
    found: U64Array = rng.choice(pages, count) * np.uint64(4096) + offset.astype(np.uint64)
    return found


def random_events(rng: np.random.Generator, pages: U64Array, steps: tuple[int, int], cpus: int, count: int) -> Events:
    size = rng.choice(np.array([1, 2, 4, 8], np.uint8), count)
    phys = random_places(rng, pages, count)
    phys = np.where(rng.random(count) < 0.6, phys // size * size, phys).astype(np.uint64)
    value = rng.integers(0, 1 << 64, count, dtype=np.uint64) >> rng.choice(np.array([0, 57], np.uint64), count)
    return Events(
        np.sort(rng.integers(*steps, count, dtype=np.uint64)),
        rng.integers(0x1000, 0x1100, count, dtype=np.uint64),
        phys,
        phys,
        value & np.uint64((1 << 64) - 1) >> (np.uint64(64) - np.uint64(8) * size.astype(np.uint64)),
        np.where(rng.random(count) < 0.9, rng.choice(COMMON, count), rng.choice(ALL, count)).astype(np.uint8),
        rng.integers(0, cpus, count, dtype=np.uint8),
        size,
        rng.choice(np.array([0, DRAINED, DRAINED, DEVICE, DRAINED | DEVICE], np.uint8), count),
    )


def write_random(path: Path, seed: int, pages: U64Array, *, index: bool) -> Events:
    """Up to 25 chunks, some empty, some behind the choices; what is on the tape."""
    rng = np.random.default_rng(seed)
    cpus, ready = int(rng.integers(1, 9)), int(rng.integers(1, 200))
    first = 0 if rng.random() < 0.3 else ready
    head = header(cpus=cpus, ready_step=ready, events_first=first, ram_bytes=RAM_BYTES)
    parts = []
    with TapeWriter(path, index=index, background=seed % 2 == 0) as tape:
        tape.begin(head, IMAGE)
        tape.choices(choices((Op.RUN, 0, ready)), ready, 1)
        end, at = ready, first
        for number in range(int(rng.integers(1, 25))):
            steps = int(rng.integers(1, 60))
            tape.choices(choices((Op.RUN, int(rng.integers(0, cpus)), steps)), end + steps, number)
            end += steps
            to = end if rng.random() < 0.7 else int(rng.integers(at, end + 1))
            count = 0 if to == at or rng.random() < 0.15 else int(rng.integers(1, 80))
            parts.append(random_events(rng, pages, (at, max(to, at + 1)), cpus, count))
            tape.events(parts[-1], to, number)
            at = to
        tape.finish(
            TapeFooter(
                stop="exit", exit_status=0, steps=end, state_hash=1, memory_hash=2, events=sum(map(len, parts)),
                console_sha256=sha256(CONSOLE).digest(),
            )
        )  # fmt: skip
    return Events.concatenate(parts)


def writes(e: Event) -> bool:
    return e.kind == AD_UPDATE or (
        not e.info & DEVICE and (e.kind == DRAIN or (e.kind == STORE and bool(e.info & DRAINED)))
    )


def reads(e: Event) -> bool:
    return e.kind == KINDS["walk"] or (e.kind == LOAD and not e.info & DEVICE)


def touches(e: Event, place: Range) -> bool:
    size = max(e.size, 4) if e.kind == AD_UPDATE else e.size
    return e.phys < place.phys + place.size_bytes and place.phys < e.phys + size


def makes_negative(e: Event, place: Range) -> bool:
    top = place.phys + place.size_bytes - 1
    return e.kind != AD_UPDATE and e.phys <= top < e.phys + e.size and bool(e.value >> 8 * (top - e.phys) & 0x80)


@pytest.mark.parametrize("count", [6, pytest.param(400, marks=pytest.mark.soak)])
def test_answers_are_those_of_plain_loops(count: int, tmp_path: Path) -> None:
    for seed in range(count):
        pages = np.random.default_rng(seed).integers(0, RAM_BYTES // 4096 - 2, 4, dtype=np.uint64)
        events = write_random(tmp_path / "a.tape", seed, pages, index=True)
        assert write_random(tmp_path / "b.tape", seed, pages, index=False) == events
        for name in ("a.tape", "b.tape"):
            with Tape(tmp_path / name) as tape:
                tape.check()
                ask(tape, list(events.rows()), np.random.default_rng(seed), pages)


def ask(tape: Tape, events: list[Event], rng: np.random.Generator, pages: U64Array) -> None:
    for phys in random_places(rng, pages, 30).tolist():
        size = int(rng.choice([1, 2, 4, 8, 8, 3, 64, 5000]))
        place = Range(phys // 8 * 8 if rng.random() < 0.5 else phys, size, "there")
        low, end = sorted(rng.integers(0, tape.end_step + 3, 2).tolist())
        inside = [e for e in events if low <= e.step < end]
        written = [e for e in events if writes(e) and touches(e, place)]
        some = [e for e in written if low <= e.step < end]
        selection = tape.writes(place, low, end)
        assert list(selection) == some
        assert (selection.first(), selection.last()) == ((some[0], some[-1]) if some else (None, None))
        assert list(tape.reads(place, low, end)) == [e for e in inside if reads(e) and touches(e, place)]
        assert tape.last_write(place, end) == next((e for e in reversed(written) if e.step < end), None)
        assert tape.last_write(place) == (written[-1] if written else None)
        assert tape.next_write(place, low) == next((e for e in written if e.step > low), None)
        if size in (1, 2, 4, 8):
            negative = (e for e in written if e.step >= low and makes_negative(e, place))
            assert tape.first_negative(place, low) == next(negative, None)
        assert list(tape.events[low:end].rows()) == inside
        assert list(tape.events[low].rows()) == [e for e in events if e.step == low]
        kinds = set(rng.choice(ALL, 3).tolist())
        assert list(tape.events_of_kinds(kinds, low, end)) == [e for e in inside if e.kind in kinds]
