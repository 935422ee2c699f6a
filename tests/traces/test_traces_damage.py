"""Cut and flipped tapes: never a wrong answer, never another exception than TapeError."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tapes import write_small

from machine.errors import TapeDamagedError, TapeError
from traces import Events, Tape, TapeHeader
from traces.chunks import MAGIC, OFFSETS_BYTES


def everything(tape: Tape) -> tuple[TapeHeader, bytes, list[bytes], Events]:
    """All that the tape says, for comparison."""
    choices = [c.records.tobytes() for c in tape.choices()]
    return tape.header, tape.image(), choices, tape.events[:]


def test_cut_anywhere(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    data = path.read_bytes()
    with Tape(path) as tape:
        header, image, choices, events = everything(tape)
        ends = [c.end_offset for c in tape.chunks]
        image_end = ends[1]
    rng = random.Random(1)
    cuts = set(rng.sample(range(len(data)), 500)) | set(ends) | {e - 1 for e in ends} | {e + 1 for e in ends}
    cut_path = tmp_path / "cut.tape"
    for cut in sorted(cuts):
        cut_path.write_bytes(data[:cut])
        if cut < ends[0]:
            with pytest.raises(TapeError, match=r"cut before|is empty"):
                Tape(cut_path)
            continue
        with Tape(cut_path) as tape:
            assert tape.unfinished == (cut < len(data))
            assert tape.damage is None
            tape.check()
            assert tape.header == header
            assert len(tape.chunks) == sum(e <= cut for e in ends)
            if cut < image_end:
                with pytest.raises(TapeError, match="cut before the end of its guest image"):
                    tape.image()
                continue
            _, found_image, found_choices, found_events = everything(tape)
            assert found_image == image
            assert found_choices == choices[: len(found_choices)]
            assert found_events == events[: len(found_events)]


def test_flipped_anywhere(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    data = path.read_bytes()
    with Tape(path) as tape:
        offsets = [c.offset for c in tape.chunks]
    end = len(data) - OFFSETS_BYTES - len(MAGIC)
    rng = random.Random(2)
    flips = rng.sample(range(len(data) * 8), 2000)
    bad_path = tmp_path / "bad.tape"
    for flip in flips:
        damaged = bytearray(data)
        damaged[flip // 8] ^= 1 << flip % 8
        bad_path.write_bytes(damaged)
        with pytest.raises(TapeError) as caught, Tape(bad_path) as tape:
            tape.check()
        assert "\n" not in str(caught.value)
        if flip // 8 < len(MAGIC):
            continue
        assert isinstance(caught.value, TapeDamagedError)
        # The damage is reported where it is, at the start of its chunk, or behind the footer.
        assert caught.value.offset == max([o for o in offsets if o <= flip // 8], default=0) or (
            flip // 8 >= end and caught.value.offset == end
        )


def test_before_the_damage_all_is_readable(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    data = path.read_bytes()
    with Tape(path) as tape:
        last = tape.choices_chunks[-1]
        before = tape.events[: last.first_step]
    for place in (last.offset + 5, last.offset + 50, last.offset + 70):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with Tape(path) as tape:
            assert tape.events[: last.first_step] == before
            found = tape.choices()
            assert [next(found).end_step, next(found).end_step] == [100, 250]
            with pytest.raises(TapeDamagedError) as caught:
                next(found)
            assert caught.value.step == 250
            assert caught.value.offset == last.offset


def test_answers_are_right_or_errors(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    data = path.read_bytes()
    with Tape(path) as tape:
        good = everything(tape)
    rng = random.Random(3)
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        del damaged[rng.choice((len(data), rng.randrange(len(data)))) :]
        path.write_bytes(damaged)
        try:
            with Tape(path) as tape:
                header, image, choices, events = everything(tape)
        except TapeError:
            continue
        assert (header, image) == good[:2]
        assert choices == good[2][: len(choices)]
        assert events == good[3][: len(events)]


def test_more_behind_the_end_is_damage(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    path.write_bytes(path.read_bytes() + b"x")
    with Tape(path) as tape:
        assert tape.footer is not None
        with pytest.raises(TapeDamagedError, match="does not end as a tape"):
            tape.check()
