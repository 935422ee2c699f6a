"""docs/tape-format.md says what the code does: the worked example, the numbers, the tables."""

from __future__ import annotations

import re
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

from tapes import choices, header

from traces import Event, Events, Tape, TapeFooter, TapeHeader, TapeWriter, chunks, records
from traces.schema import DRAINED, HOLD, KINDS, OP_NAMES, ROOM, Op

DOCUMENT = Path(__file__).parents[2] / "docs" / "tape-format.md"
IMAGE = b"\x7fELF"
EVENTS = [
    Event(2, 0x100004, 0x2000, 0x2000, 7, KINDS["store"], 0, 4, DRAINED),
    Event(4, 0x10000A, 0xF4, 0, 0, KINDS["port_out"], 0, 4, 0),
]


def write_example(path: Path) -> None:
    """The tape of the worked example: five steps, of which the last two are recorded after `ready`."""
    with TapeWriter(path) as tape:
        tape.begin(
            header(
                scenario="demo", variant="", configuration="up", cpus=1, ram_bytes=65536, command_line="",
                image_bytes=4, image_sha256=sha256(IMAGE).digest(), ready_step=2, events_first=2, seed=0,
                state_version=3,  # of the day when the document was written
            ),
            IMAGE,
        )  # fmt: skip
        tape.choices(choices((Op.RUN, 0, 2)), 2, 0x1111111111111111)
        tape.choices(choices((Op.RUN, 0, 1), (Op.IRQ, 0, 32), (Op.RUN, 0, 1)), 5, 0x2222222222222222)
        tape.events(Events.from_rows(EVENTS), 5, 0x2222222222222222)
        tape.finish(
            TapeFooter(
                stop="exit", exit_status=0, steps=5, state_hash=0x2222222222222222, memory_hash=0x3333333333333333,
                events=2, console_sha256=sha256(b"").digest(),
            )
        )  # fmt: skip


def example() -> bytes:
    """The bytes in the document: of every line of its hex blocks, what stands before the first `|`."""
    blocks = re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.S)
    return bytes.fromhex("".join(line.split("|")[0] for block in blocks for line in block.splitlines()))


def test_example_reads_as_the_document_says(tmp_path: Path) -> None:
    path = tmp_path / "example.tape"
    path.write_bytes(example())
    with Tape(path) as tape:
        tape.check()
        assert [c.name for c in tape.chunks] == [
            "header",
            "image",
            "choices",
            "choices",
            "events",
            "index",
            "contents",
            "footer",
        ]
        assert tape.header.scenario == "demo"
        assert tape.image() == IMAGE
        assert [(c.first_step, c.end_step, len(c.records)) for c in tape.choices()] == [(0, 2, 1), (2, 5, 3)]
        assert list(tape.events[0:5].rows()) == EVENTS
        assert tape.footer is not None
        assert tape.footer.steps == 5


def test_example_is_what_the_writer_writes(tmp_path: Path) -> None:
    # Holds for the zstd library that the project pins; another one may compress otherwise, which is no fault.
    path = tmp_path / "example.tape"
    write_example(path)
    assert path.read_bytes() == example()


def test_numbers_of_the_document() -> None:
    text = DOCUMENT.read_text()
    for number, name in chunks.KIND_NAMES.items():
        assert f"| {number} | {name} | {int(number in chunks.LAYER_A)} |" in text
    ops = re.search(r"op \(u8: (.*?)\)", text)
    assert ops is not None
    assert ops[1] == ", ".join(f"{number} {name.upper()}" for number, name in sorted(OP_NAMES.items()))
    assert f"flags (u16, RUN only: {HOLD} HOLD, {ROOM} ROOM)" in text
    assert " ".join(f"{b:02X}" for b in chunks.MAGIC) in text
    for stop in records.STOPS:
        assert f"`{stop}`" in text


def test_every_field_is_in_the_document() -> None:
    rows = {
        name.strip() for row in re.findall(r"^\| ([\w, ]+) \|", DOCUMENT.read_text(), re.M) for name in row.split(",")
    }
    for record in (TapeHeader, TapeFooter, records.Attachment):
        assert {f.name for f in fields(record)} <= rows
