"""A real guest's tape, cut and flipped thousands of times: what is readable is right, and before the damage all is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from machine.errors import TapeDamagedError, TapeError
from replayer import rebuild
from traces import Event, Events, Range, Tape
from traces.chunks import HEADER_BYTES, MAGIC
from traces.gallery import entry
from traces.schema import KINDS

COUNTS = [pytest.param(120, id="sample"), pytest.param(10_000, id="all", marks=pytest.mark.soak)]


@dataclass
class Truth:
    """The undamaged tape and what questions about it give."""

    data: bytes
    offsets: list[int]
    steps: int
    choices: list[bytes]
    events: Events
    places: list[Range]
    last: list[Event | None]
    negative: Event | None


COUNTER = "contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_ANON]"


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    path = tmp_path_factory.mktemp("truth") / "whole.tape"
    with Tape(entry("wrong-zone").path) as small:
        rebuild(small, path)
    with Tape(path) as tape:
        events = tape.events[:]
        written = events[events.kind == KINDS["store"]].phys
        places = [Range(int(phys), 4, "it") for phys in np.unique(written)[:: len(np.unique(written)) // 20]]
        places.append(tape.range_of(COUNTER))
        negative = tape.first_negative(COUNTER)
        assert negative is not None
        return Truth(
            path.read_bytes(),
            [c.offset for c in tape.chunks],
            tape.end_step,
            [c.records.tobytes() for c in tape.choices()],
            events,
            places,
            [tape.last_write(place) for place in places],
            negative,
        )


def ask(tape: Tape, truth: Truth) -> int:
    """Ask everything; what is answered must be right for the steps that are there. How many answers there were."""
    answers = 0

    def answered(question: Callable[[], bool]) -> None:
        nonlocal answers
        try:
            assert question()
            answers += 1
        except TapeError:
            pass

    found = []
    try:
        for choices in tape.choices():
            found.append(choices.records.tobytes())
    except TapeError:
        pass
    assert found == truth.choices[: len(found)]
    end = tape.events_range[1]
    before = truth.events.between(0, end - 1)
    answered(lambda: tape.events[:] == before)
    for place, last in zip(truth.places, truth.last, strict=True):
        if end < truth.steps:
            written = before.writes(place.phys, place.size_bytes)
            last = written.row(-1) if len(written) else None
        answered(lambda place=place, last=last: tape.last_write(place) == last)  # type: ignore[misc]
    negative = truth.negative if truth.negative is not None and truth.negative.step < end else None
    answered(lambda: tape.first_negative(truth.places[-1]) == negative)
    return answers


@pytest.mark.parametrize("count", COUNTS)
def test_cut(truth: Truth, count: int, tmp_path: Path) -> None:
    rng = random.Random(1)
    ends = [*truth.offsets[1:], len(truth.data)]
    path = tmp_path / "cut.tape"
    cuts = [rng.randrange(len(truth.data)) for _ in range(count)]
    cuts += [at + by for at in truth.offsets for by in (-1, 0, 1, HEADER_BYTES)]
    for cut in cuts:
        path.write_bytes(truth.data[:cut])
        if cut < ends[0]:
            with pytest.raises(TapeError, match=r"cut before|is empty"):
                Tape(path)
            continue
        with Tape(path) as tape:
            assert tape.unfinished
            tape.check()
            assert len(tape.chunks) == sum(end <= cut for end in truth.offsets[1:]) + (cut >= len(truth.data) - 32)
            assert ask(tape, truth) == len(truth.places) + 2


@pytest.mark.parametrize("count", COUNTS)
def test_flipped(truth: Truth, count: int, tmp_path: Path) -> None:
    rng = random.Random(2)
    path = tmp_path / "flipped.tape"
    for _ in range(count):
        # The image is most of the tape, and of it there is little to ask.
        low = rng.choice((0, truth.offsets[2]))
        bit = rng.randrange(low * 8, len(truth.data) * 8)
        damaged = bytearray(truth.data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            tape = Tape(path)
        except TapeError:
            assert bit // 8 < truth.offsets[1] + len(MAGIC)
            continue
        with tape:
            with pytest.raises(TapeDamagedError) as caught:
                tape.check()
            ask(tape, truth)
            # Everything before the damage is readable.
            for chunk in tape.chunks:
                if chunk.end_offset <= bit // 8:
                    tape.check_chunk(chunk)
            assert caught.value.offset <= bit // 8
