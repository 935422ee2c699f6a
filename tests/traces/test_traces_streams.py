"""Streams of events: they decode to what went in, as the document says; damaged, to no worse than an error."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import Decoder, Inventor
from tapes import some_events

from machine import Machine
from traces import Event, Events, _codec
from traces.chunks import FormatError
from traces.columns import EVENTS_MAX, Coded, code_events, code_tap, decode_events, encode_events, pack_events
from traces.schema import COLUMNS, KINDS, RECORD, Op

# Few different numbers, so that sites come again, in ranges that touch every length of residue.
SMALL = st.integers(0, 5)
WIDE = st.one_of(SMALL, st.integers(0, 63).map(lambda n: (1 << n) - 1), st.integers(0, 2**64 - 1))
ROW = st.builds(Event, WIDE, SMALL, WIDE, WIDE, WIDE, SMALL, SMALL, SMALL, SMALL)

# Events chunk of the worked example of format 1: a column each.
FORMAT_1 = bytes.fromhex(
    "2222222222222222 02000000 00000000 0200000019000000 0200000019000000 0200000019000000 0200000019000000"
    "0100000011000000 010000000b000000 0000000000000000 010000000b000000 010000000b000000"
    "28b52ffd201081000002000000000000000200000000000000 28b52ffd201081000004001000000000000600000000000000"
    "28b52ffd20108100000020000000000000f4e0ffffffffffff 28b52ffd2010810000002000000000000000e0ffffffffffff"
    "28b52ffd20104500001007000100 32c002 28b52ffd2002110000 0210 28b52ffd2002110000 0404 28b52ffd2002110000 0800"
)
# What format 2 made of walk(60, 5, 6): codec 3.
FORMAT_2 = base64.b64decode(
    "BQAAAAAAAAA8AAAAAAAAAAMAAACEAgAAAwAAAAAAAAADAAAAAAAAAAMAAAAAAAAAAwAAAAAAAAADAAAAAAAAAAMAAAAAAAAAAwAAAAAAAAAD"
    "AAAAAAAAALUAAABaAAAApwAAAB4BAAAotS/9YNQBVRMAdCEADA0FAAwNVQsjAAsAAAsNVAAMCTUAC1UACyIAC1AACgAACg1UAAtAIQtQAAsw"
    "AAtQAAtBAAswACEACzQAUA1EAApACiIiAUQAQABAADIBQCAAAAsBCjAACwQACjAAAgBAgAFEAGCAAQYA/n8BiAqAgAFMtV9AAYUKQNv3E6YA"
    "AP5/AQEAQIABQAIWjKDzvy6Iy6MGv8vPrA3B8FBHBArMdIABvwGVlXSUAAEbNbIP3JYRAkCL0GFjAACAgAGACoCAAYAMfwx9DICAAX8Kgp0J"
    "/X8BAAEeFH+AAX4MgIABLMj9W2uCgIABgBXM8wH+GoCAAS/I/VvbfQH/BXKTAV3RKGIBTjAVHhshFh5NMBUezMTQ3wFY0eZhAQIAQv8XfwSV"
    "lXSU2PKBX1/9A2D+CUBTS3tLAV/9A2ABAEL/B4ACgvR8foABggKCACiADIIF2A4ggAEEAgECCAEDBf///38BA2q+AQQBAAEIAQECGd0EAQEI"
    "CAEBBQAA/P8CAvO7A8ScAQUAQL+AAiwMAQE0AAEBTAIDcBEBBQBAlzQBAvRtBAIABAgBAsQDAQF4CgNwEQEsDAEDBQCAsM8BBAEBA8QDAQME"
    "AQEBxAMDcBEBeAoBAwQBTAIBAcQDAQJMAgEBBQBAA+vEAwEDeAoBASwMAQUAgPmWAjQAA3ARAUwCAQMFAECVdwIAAFRcAngKAQM0AAEDBQAA"
    "T3oBIAB5CHjZwBQXuEK1q86ramELXrrOZuFCUDUbIowGsjjUCAGag1id9VHtV5RnM2JfPC3jNilyRS+LIyMUrXlBCJh71OlMNVYKYWa7gCm8"
    "D8cF"
)


def walk(count: int, seed: int, sites: int = 40) -> Events:
    """Events as programs make them: loops over instructions whose addresses and values depend on each other."""
    rng = random.Random(seed)
    load, store = KINDS["load"], KINDS["store"]
    program = [
        (0xC0100000 + rng.getrandbits(16), rng.choice((load, store)), 1 << rng.randrange(4), rng.randrange(5))
        for _ in range(sites)
    ]
    memory: dict[int, int] = {}
    rows: list[Event] = []
    step = pointer = at = 0
    while len(rows) < count:
        at = (at + 1) % sites if rng.random() < 0.9 else rng.randrange(sites)
        pc, kind, size, mode = program[at]
        addr = (0xC0200000, pointer, 0xC0300000 + 32 * len(rows), rng.getrandbits(32), 0xBFFF0000)[mode] + at
        if kind == store:
            memory[addr] = rng.choice((memory.get(addr, 0) + 1, pointer, addr, rng.getrandbits(8 * size)))
        pointer = memory.setdefault(addr, 0xC0400000 + 64 * rng.randrange(100))
        step += rng.choice((1, 1, 1, 2, 3, 70_000))
        phys = addr - 0xC0000000 if addr >= 0xC0000000 else (addr >> 12) * 0x3000 + addr % 4096
        rows.append(Event(step, pc, addr, phys, pointer, kind, at % 2, size, 8))
    return Events.from_rows(rows)


def decoded(coded: Coded) -> Events:
    return decode_events(pack_events(coded, 0))[1]


@settings(max_examples=300)
@given(st.lists(ROW, max_size=60))
def test_any_events_come_back(rows: list[Event]) -> None:
    coded = code_events(Events.from_rows(rows))
    assert list(decoded(coded).rows()) == rows
    assert Decoder(*coded[1:]).events(len(rows)) == rows


@pytest.mark.parametrize("sites", [3, 40, 9000])
def test_the_document_tells_how_to_decode(sites: int) -> None:
    """Also with more sites than there are slots."""
    events = walk(20_000, sites, sites)
    coded = code_events(events)
    assert decoded(coded) == events
    assert Decoder(*coded[1:]).events(len(events)) == list(events.rows())


def test_most_events_that_a_chunk_can_have() -> None:
    rng = np.random.default_rng(1)
    # Nothing can be foretold, everything is as long as can be.
    wide = [rng.integers(1 << 63, 1 << 64, EVENTS_MAX, dtype=np.uint64) for _ in range(5)]
    narrow = [rng.integers(0, 256, EVENTS_MAX, dtype=np.uint8) for _ in range(4)]
    events = Events(*wide, *narrow)  # type: ignore[arg-type]
    assert decoded(code_events(events)) == events
    same = Events(*(np.full(EVENTS_MAX, 7, dtype) for _, dtype in COLUMNS))
    coded = code_events(same)
    assert len(coded[1]) < 1200
    assert decoded(coded) == same


def test_same_events_same_bytes() -> None:
    events = walk(5000, 3)
    assert code_events(events) == code_events(events[:])
    # What a chunk holds does not depend on the ones coded before it.
    code_events(some_events(0, 100, 500))
    assert code_events(events) == code_events(Events.from_rows(list(events.rows())))


def test_loops_become_small() -> None:
    loop = Events.concatenate([walk(50, 6)] * 200)
    loop.step[:] = np.arange(len(loop), dtype=np.uint64) * 3
    assert len(encode_events(loop, 0)) < len(loop) / 2


def test_columns_of_the_machine_are_taken_as_they_are() -> None:
    machine = Machine(ram_bytes=1 << 16)
    machine.tap = True
    machine.write(0, bytes.fromhex("ff0500100000 ebf8"))  # again: inc dword [0x1000]; jmp again
    machine.set_register(0, "rip", 0)
    machine.execute(np.array([(Op.RUN, 0, 0, 0, 1000)], RECORD))
    expected = Events.from_tap(machine.events())
    assert len(expected) == 1000
    coded = code_tap(machine.events())
    assert coded == code_events(expected)
    assert decoded(coded) == expected
    assert len(coded[1]) < 100
    machine.events_clear()
    assert decoded(code_tap(machine.events())) == Events.empty()


def test_other_columns_are_refused() -> None:
    rows = np.zeros(4, [*COLUMNS, ("zero", "<u4")])
    good = tuple(rows[name] for name, _ in COLUMNS)
    assert _codec.encode(good)[1][0] > 0
    swapped = (good[1], good[0], *good[2:])
    apart = tuple(rows[name].copy() for name, _ in COLUMNS)
    shorter = (*good[:8], good[8][:3])
    backwards = tuple(column[::-1] for column in good)
    too_many = np.zeros(EVENTS_MAX + 1, rows.dtype)
    for bad in (swapped, apart, shorter, backwards, tuple(too_many[name] for name, _ in COLUMNS)):
        with pytest.raises(ValueError, match="48 bytes"):
            _codec.encode(bad)
    for wrong in (good[:8], list(good), 5):
        with pytest.raises(TypeError):
            _codec.encode(wrong)  # type: ignore[arg-type]


def test_bad_arguments_of_decode() -> None:
    count, streams, sizes = code_events(walk(100, 1))
    columns = tuple(np.empty(count, dtype) for _, dtype in COLUMNS)
    _codec.decode(4, streams, sizes, columns)
    with pytest.raises(ValueError, match="another length"):
        _codec.decode(4, streams + b"x", sizes, columns)
    with pytest.raises(ValueError, match="arrays of one length"):
        _codec.decode(4, streams, sizes, (*columns[:8], np.empty(count - 1, np.uint8)))
    with pytest.raises(ValueError, match="do not describe"):
        _codec.decode(4, streams, sizes, tuple(column[:-1] for column in columns))
    for codec in (2, 5, -1):
        with pytest.raises(ValueError, match="keeps no streams"):
            _codec.decode(codec, streams, sizes, columns)
    read_only = np.empty(count, np.uint64)
    read_only.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        _codec.decode(4, streams, sizes, (read_only, *columns[1:]))


@pytest.mark.parametrize("rounds", [3000, pytest.param(300_000, marks=pytest.mark.soak)])
def test_damaged_streams_are_an_error_or_other_events(rounds: int) -> None:
    """Flipped bits, other lengths, cut and lengthened streams, wrong counts: never more than an error."""
    rng = random.Random(rounds)
    samples = [(4, *code_events(walk(n, n))) for n in (1, 20, 300)] + [(4, *code_events(some_events(0, 100, 200)))]
    for count in (1, 20, 300):
        inventor = Inventor(rng, 3, 20)
        length = len(inventor.decoder.events(inventor.script(count)))
        samples.append((3, length, *inventor.streams()))
    refused = 0
    for _ in range(rounds):
        codec, count, streams, sizes = rng.choice(samples)
        data, lengths = bytearray(streams), list(sizes)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice((rng.randrange(256), 0, 8, 9, 10, 11, 12, 13, 255))
        if rng.random() < 0.3:
            a, b, n = rng.randrange(4), rng.randrange(4), rng.randrange(20)
            if lengths[a] >= n:
                lengths[a] -= n
                lengths[b] += n
        if rng.random() < 0.2:
            count = max(0, count + rng.randrange(-3, 4))
        columns = tuple(np.empty(count, dtype) for _, dtype in COLUMNS)
        try:
            _codec.decode(codec, bytes(data), (lengths[0], lengths[1], lengths[2], lengths[3]), columns)
        except ValueError:
            refused += 1
    assert refused > rounds // 10


@given(st.sampled_from([3, 4]), st.binary(max_size=200), st.integers(0, 50), st.data())
def test_arbitrary_bytes_are_an_error_or_events(codec: int, streams: bytes, count: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(streams)), min_size=3, max_size=3)))
    sizes = (cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], len(streams) - cuts[2])
    columns = tuple(np.empty(count, dtype) for _, dtype in COLUMNS)
    with contextlib.suppress(ValueError):
        _codec.decode(codec, streams, sizes, columns)


def test_bad_arguments_of_check_choices() -> None:
    with pytest.raises(ValueError, match="a byte for each op"):
        _codec.check_choices(bytes(16), b"123", 1, 1)
    assert _codec.check_choices(bytes(16), bytes(256), 1, 1) == (0, 0, 0)
    # A part of a record behind the others is nobody's.
    assert _codec.check_choices(b"\1" + bytes(40), b"\0\1" + bytes(254), 1, 1) == (1, 0, 1)
    assert _codec.check_choices(b"", bytes(256), 1, 1) == (-1, 0, 0)


def test_payloads_that_lie() -> None:
    coded = code_events(walk(50, 1))
    good = pack_events(coded, 1)
    count, streams, sizes = coded
    stored_bytes = len(good) - 88
    for bad in (
        good[:16] + b"\x01" + good[17:],  # another codec in one column
        good[:24] + b"\x00" + good[25:],
        good[:28] + b"\x01\x00\x00\x00" + good[32:],  # stored bytes in the second column
        good[:20] + (stored_bytes - 1).to_bytes(4, "little") + good[24:],
        good[:88] + b"\xff\xff\xff\xff" * 4 + good[104:],  # 16 GB of streams
        good[:88] + good[88:92] + good[96:100] + good[92:96] + good[100:],
        good[:104] + (stored_bytes - 19).to_bytes(4, "little") + good[108:],  # the first frame overruns the chunk
        good[:104] + b"\xff\xff\xff\xff" + good[108:],
        good[:104] + bytes(4) + good[108:],
        good[:-1],
        good + b"x",
        pack_events((count + 1, streams, sizes), 1),
        pack_events((count - 1, streams, sizes), 1),
        good[:20] + (10).to_bytes(4, "little") + good[24:98],
    ):
        with pytest.raises(FormatError):
            decode_events(bad)


def test_chunks_of_format_1_are_read() -> None:
    state_hash, events = decode_events(FORMAT_1)
    assert state_hash == 0x2222222222222222
    assert list(events.rows()) == [
        Event(2, 0x100004, 0x2000, 0x2000, 7, KINDS["store"], 0, 4, 8),
        Event(4, 0x10000A, 0xF4, 0, 0, KINDS["port_out"], 0, 4, 0),
    ]


def test_chunks_of_format_2_are_read() -> None:
    state_hash, events = decode_events(FORMAT_2)
    assert state_hash == 5
    assert events == walk(60, 5, 6)


@pytest.mark.parametrize("codec", [3, 4])
@given(st.integers(0, 2**64 - 1), st.integers(1, 400), st.integers(1, 40))
def test_streams_that_no_coder_made_decode_as_the_document_says(codec: int, seed: int, count: int, slots: int) -> None:
    inventor = Inventor(random.Random(seed), codec, slots)
    rows = inventor.decoder.events(inventor.script(count))
    streams, sizes = inventor.streams()
    columns = tuple(np.empty(len(rows), dtype) for _, dtype in COLUMNS)
    _codec.decode(codec, streams, sizes, columns)
    events = Events(*columns)
    assert list(events.rows()) == rows
    # The coder makes other streams of them, but the same events.
    assert decoded(code_events(events)) == events


def test_several_threads_code_at_once() -> None:
    samples = [walk(20_000, seed) for seed in range(4)]
    expected = [encode_events(events, 0) for events in samples]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            payload = encode_events(samples[index], 0)
            if payload != expected[index] or decode_events(payload)[1] != samples[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_codec_with_sanitizers(tmp_path: Path) -> None:
    """The same tests, and those of indexes, on a build with ASan and UBSan, without a warning."""
    root = Path(__file__).parents[2]
    codec = tmp_path / "_codec.so"
    flags = "-shared -fPIC -std=c11 -O1 -g -Wall -Wextra -Werror -UNDEBUG -fno-sanitize-recover=undefined"
    sources = sorted(map(str, (root / "traces" / "codec").glob("*.c")))
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run(
        ["gcc", *flags.split(), "-fsanitize=address,undefined", include, *sources, "-o", str(codec)], check=True
    )
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    environment = os.environ | {
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "RACETAPE_CODEC": str(codec),
        "PYTHONPATH": str(root),
    }
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not soak", "-k", "not sanitizers"]
    files = [__file__, str(Path(__file__).with_name("test_traces_index.py"))]
    command = [sys.executable, "-m", "pytest", *options, *files]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_the_codec_under_test_is_the_one_asked_for() -> None:
    if path := os.environ.get("RACETAPE_CODEC"):
        assert _codec.__file__ == path
