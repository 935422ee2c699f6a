"""Writing and reading tapes: round trips, stripping, and errors that people meet."""

from __future__ import annotations

import os
import threading
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tapes import CONSOLE, IMAGE, choices, header, page, some_events, write_small

from machine.errors import TapeDamagedError, TapeError
from traces import Attachment, Events, Tape, TapeFooter, TapeHeader, TapeWriter, records, strip
from traces.chunks import FormatError, zstd_pack
from traces.records import decode_attachment, encode_attachment
from traces.schema import HOLD, OP_NAMES, RECORD, ROOM, Op, describe_record, step_counts


def test_round_trip(tmp_path: Path) -> None:
    with Tape(write_small(tmp_path / "a.tape")) as tape:
        tape.check()
        assert tape.header == header()
        assert tape.image() == IMAGE
        assert tape.footer is not None
        assert (tape.footer.stop, tape.footer.exit_status, tape.footer.steps) == ("exit", 0, 400)
        assert not tape.unfinished
        assert tape.damage is None
        assert tape.end_step == 400
        assert tape.events_range == (100, 400)
        found = list(tape.choices())
        assert [(c.first_step, c.end_step, c.state_hash) for c in found] == [
            (0, 100, 0x1111), (100, 250, 0x2222), (250, 400, 0x3333),
        ]  # fmt: skip
        assert [c.first_step for c in tape.choices(250)] == [250]
        assert step_counts(found[1].records).tolist() == [40, 50, 3, 1, 1, 1, 54]
        assert [describe_record(r) for r in found[1].records] == [
            "cpu0 x40", "cpu1 x50 hold room", "drain cpu1 x3", "irq cpu0 32", "choice cpu1 2", "evict cpu0 0xc0000000",
            "cpu1 x54",
        ]  # fmt: skip
        whole = Events.concatenate([some_events(100, 250, 300), some_events(250, 400, 200, 2)])
        assert tape.events[0:1001] == whole
        assert tape.events[200:300] == whole.between(200, 299)
        assert len(tape.events[200:200]) == 0


def test_checkpoints_share_pages(tmp_path: Path) -> None:
    with Tape(write_small(tmp_path / "a.tape")) as tape:
        first, second = (tape.read_checkpoint(c) for c in tape.checkpoint_chunks)
        assert (first.step, first.state, first.state_hash) == (100, b"state of 100", 0x1111)
        assert dict(tape.checkpoint_pages(first)) == {1: page(1), 2: page(2), 9: page(1)}
        assert dict(tape.checkpoint_pages(second)) == {1: page(1), 2: page(3)}
        # Three different pages in all, though five were given.
        assert max(first.pages.max(), second.pages.max()) == 2


def test_same_run_same_bytes(tmp_path: Path) -> None:
    assert write_small(tmp_path / "a.tape").read_bytes() == write_small(tmp_path / "b.tape").read_bytes()


def test_strip(tmp_path: Path) -> None:
    full = write_small(tmp_path / "a.tape")
    with Tape(full) as tape:
        size = strip(tape, tmp_path / "b.tape")
        with pytest.raises(TapeError, match="onto itself"):
            strip(tape, full)
    assert size == (tmp_path / "b.tape").stat().st_size < full.stat().st_size
    with Tape(tmp_path / "b.tape") as bare:
        bare.check()
        assert bare.footer is not None
        assert bare.image() == IMAGE
        assert len(bare.events[0:1001]) == 0
        assert bare.events_range == (100, 100)
        assert sum(int(step_counts(c.records).sum()) for c in bare.choices()) == 400
        strip(bare, tmp_path / "c.tape")
    assert (tmp_path / "b.tape").read_bytes() == (tmp_path / "c.tape").read_bytes()
    # Stripping a tape and recording without layer B are the same.
    assert write_small(tmp_path / "d.tape", layer_b=False).read_bytes() == (tmp_path / "b.tape").read_bytes()


def test_stripping_a_damaged_tape_leaves_the_target_alone(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    with Tape(path) as tape:
        place = tape.choices_chunks[-1].end_offset - 3
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    (tmp_path / "b.tape").write_text("mine")
    with Tape(path) as tape, pytest.raises(TapeDamagedError):
        strip(tape, tmp_path / "b.tape")
    assert (tmp_path / "b.tape").read_text() == "mine"


def test_unfinished(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape", finish=False)
    with Tape(path) as tape:
        tape.check()
        assert tape.unfinished
        assert tape.footer is None
        assert tape.end_step == 400
        strip(tape, tmp_path / "b.tape")
    with Tape(tmp_path / "b.tape") as bare:
        assert bare.unfinished
        assert bare.end_step == 400


def test_tape_is_readable_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    with TapeWriter(path) as writer:
        with pytest.raises(TapeError, match="is empty"):
            Tape(path)
        writer.begin(header(), IMAGE)
        writer.choices(choices((Op.RUN, 0, 100)), 100, 1)
        with Tape(path) as tape:
            assert tape.unfinished
            assert tape.end_step == 100


def test_long_image_is_cut_into_pieces(tmp_path: Path) -> None:
    image = np.random.default_rng(1).bytes(records.IMAGE_PIECE_BYTES * 2 + 5)
    with TapeWriter(tmp_path / "a.tape") as writer:
        writer.begin(header(image_bytes=len(image), image_sha256=sha256(image).digest()), image)
    with Tape(tmp_path / "a.tape") as tape:
        assert [c.name for c in tape.chunks] == ["header", "image", "image", "image"]
        assert tape.image() == image


def test_wrong_image_is_refused(tmp_path: Path) -> None:
    with TapeWriter(tmp_path / "a.tape") as writer, pytest.raises(TapeError, match="image"):
        writer.begin(header(), b"another")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(scenario=NAMES, cpus=st.integers(1, 8), seed=st.integers(0, 2**64 - 1), ready=st.integers(0, 2**64 - 1))
def test_header_round_trip(scenario: str, cpus: int, seed: int, ready: int) -> None:
    wanted = header(scenario=scenario, cpus=cpus, seed=seed, ready_step=ready, events_first=0)
    assert records.decode_header(records.encode_header(wanted)) == wanted


@pytest.mark.parametrize(
    "changed",
    [
        {"cpus": 0}, {"cpus": 9}, {"ram_bytes": 5000}, {"ram_bytes": 1 << 40}, {"store_buffer": 0}, {"seed": -1},
        {"command_line": "x" * 240}, {"image_sha256": b""}, {"events_first": 101}, {"image_bytes": 1 << 31},
        {"format": 0},
    ],
)  # fmt: skip
def test_header_out_of_range(changed: dict[str, object]) -> None:
    with pytest.raises(TapeError):
        records.encode_header(header(**changed))


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TapeHeader, "check", lambda _: None)
    with TapeWriter(tmp_path / "a.tape") as writer:
        writer.begin(header(format=6), IMAGE)
    with pytest.raises(TapeError, match="format 6 is newer"):
        Tape(tmp_path / "a.tape")


@pytest.mark.parametrize(
    ("rows", "end"),
    [
        (((Op.RUN, 0, 99),), 100),
        (((Op.RUN, 0, 101),), 100),
        (((Op.RUN, 2, 100),), 100),
        (((Op.AUTO, 0, 100),), 100),
        (((0, 0, 100),), 100),
        (((Op.RUN, 0, 0), (Op.RUN, 0, 100)), 100),
        (((Op.DRAIN, 0, 100, HOLD),), 100),
        (((Op.DRAIN, 0, 100, ROOM),), 100),
        (((Op.RUN, 0, 100, 2 * (HOLD | ROOM)),), 100),
        (((Op.RUN, 0, 2**64 - 1), (Op.RUN, 0, 101)), 100),
        (((Op.RUN, 0, 2**63), (Op.RUN, 1, 2**63), (Op.RUN, 0, 2**63)), 2**63),
    ],
)
def test_impossible_choices_are_refused(rows: tuple[tuple[int, int, int], ...], end: int, tmp_path: Path) -> None:
    with TapeWriter(tmp_path / "a.tape") as writer:
        writer.begin(header(), IMAGE)
        with pytest.raises(TapeError, match="choice"):
            writer.choices(choices(*rows), end, 0)


RECORDS = st.tuples(
    st.integers(0, 7), st.integers(0, 4), st.integers(0, 5), st.integers(0, 1),
    st.one_of(st.integers(0, 3), st.sampled_from([1 << 32, (1 << 63) + 1, (1 << 64) - 1])),
)  # fmt: skip


@given(
    st.lists(RECORDS, max_size=6), st.integers(1, 4), st.integers(0, 20), st.sampled_from([0, 1, 5, 1 << 33, 1 << 63])
)
def test_choices_are_what_the_format_allows(
    rows: list[tuple[int, int, int, int, int]], cpus: int, first: int, span: int
) -> None:
    def steps(op: int, arg: int) -> int:
        return arg if op in (Op.RUN, Op.DRAIN) else 1

    def allowed(op: int, cpu: int, flags: int, reserved: int, arg: int) -> bool:
        flags_fit = flags in (0, HOLD, ROOM, HOLD | ROOM) if op == Op.RUN else flags == 0
        return op in OP_NAMES and cpu < cpus and flags_fit and not reserved and 0 < steps(op, arg) <= span

    good = all(allowed(*row) for row in rows) and sum(steps(row[0], row[4]) for row in rows) == span
    found = np.array(rows, RECORD)
    for records_ in (found, np.repeat(found, 2)[::2]):  # The second one is not contiguous.
        if good:
            records.check_records(records_, first, first + span, cpus)
        else:
            with pytest.raises(TapeError, match="choice"):
                records.check_records(records_, first, first + span, cpus)


def test_full_disk(tmp_path: Path) -> None:
    with TapeWriter("/dev/full") as writer:
        for _ in range(2):
            with pytest.raises(TapeError, match=r"cannot write /dev/full: No space left on device"):
                writer.begin(header(), IMAGE)


def test_second_thread_writes_the_same(tmp_path: Path) -> None:
    threads = threading.active_count()
    for options in ({}, {"finish": False}, {"layer_b": False}):
        alone = write_small(tmp_path / "alone.tape", **options)
        other = write_small(tmp_path / "other.tape", background=True, **options)
        assert other.read_bytes() == alone.read_bytes()
    assert threading.active_count() == threads


def test_full_disk_in_the_second_thread() -> None:
    with TapeWriter("/dev/full", background=True) as writer:

        def write_all() -> None:
            writer.begin(header(), IMAGE)
            # The thread is a few chunks behind, not more.
            for end in range(100, 1000, 100):
                writer.choices(choices((Op.RUN, 0, 100)), end, 0)

        with pytest.raises(TapeError, match=r"cannot write /dev/full: No space left on device"):
            write_all()
        with pytest.raises(TapeError, match=r"cannot write /dev/full: No space left on device"):
            writer.end()


@pytest.mark.parametrize("background", [False, True])
def test_full_disk_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: bool) -> None:
    path = tmp_path / "a.tape"
    whole = write_small(tmp_path / "whole.tape").read_bytes()
    room = 5000
    write = os.write

    def short_write(fd: int, data: memoryview) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        count = write(fd, data[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", short_write)
    with pytest.raises(TapeError, match="No space left on device; it holds the run up to step 250"):
        write_small(path, background=background)
    with Tape(path) as tape:
        tape.check()
        assert tape.unfinished
        assert tape.end_step == 250
    assert whole.startswith(path.read_bytes())


def test_files_that_are_no_tapes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello, I am no tape\n" * 100)
    (tmp_path / "elf").write_bytes(IMAGE)
    (tmp_path / "short").write_bytes(b"\x89RT")
    for name, message in [
        ("missing", "No such file"), ("empty", "is empty"), ("text", "is no tape"), ("elf", "is no tape"),
        ("short", "cut before"), ("pipe", "is no file"), (".", "is no file"), ("nul\0", "cannot read"),
    ]:  # fmt: skip
        with pytest.raises(TapeError, match=message) as caught:
            Tape(tmp_path / name)
        assert "\n" not in str(caught.value)
    for name in (".", "missing/a.tape"):
        with pytest.raises(TapeError, match="cannot write"):
            TapeWriter(tmp_path / name)


def test_footer_says_what_it_was_told(tmp_path: Path) -> None:
    footer = TapeFooter(
        stop="shutdown", exit_status=None, steps=1, state_hash=2**64 - 1, memory_hash=0, events=3,
        console_sha256=sha256(CONSOLE).digest(),
    )  # fmt: skip
    assert records.decode_footer(records.encode_footer(footer)) == footer


def test_maps_build_nothing_that_is_not_wanted() -> None:
    """An empty list is one byte of a tape and 64 of memory; a key that nobody knows may have millions."""
    known = msgpack.packb({"name": "it", "type": "note", "data": b"x"})
    assert known[0] == 0x83
    many = b"\xdd" + (1 << 22).to_bytes(4, "big") + b"\x90" * (1 << 22)
    strange = b"\x84" + known[1:] + msgpack.packb("strange") + many
    tracemalloc.start()
    try:
        found = decode_attachment(zstd_pack(strange))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == Attachment(name="it", type="note", data=b"x")
    assert peak < 5 * len(strange)
    for wrong in (
        b"\x83" + known[1:].replace(b"\xa2it", many),
        b"\x83" + known[1:].replace(b"\xa2it", b"\x81\x01\x01"),
        known + b"\0",
        known[:-1],
        b"\x90",
        b"",
        b"\xdf" + b"\xff" * 4,
        b"\xde\x10\x01" + b"\xc0\xc0" * 4097,
    ):
        with pytest.raises(FormatError):
            decode_attachment(zstd_pack(wrong) if wrong else b"")


@pytest.mark.parametrize(
    "wrong", [{"name": "n" * 4097}, {"type": "t" * 4097}, {"data": bytes((8 << 20) + 1)}, {"name": "\udcff"}]
)
def test_attachments_that_do_not_fit(wrong: dict[str, Any]) -> None:
    fields = {"name": "it", "type": "note", "data": b""} | wrong
    with pytest.raises(FormatError, match="attachment"):
        encode_attachment(Attachment(**fields))
    if "\udcff" not in fields["name"]:
        with pytest.raises(FormatError, match="attachment"):
            decode_attachment(zstd_pack(msgpack.packb(fields)))
