"""The conformance set: small tapes of every feature and every format, with what they hold as JSON.

`contents` of plain_reader.py, which is written from the document alone, and `Tape` must both find in each tape what its
JSON says, and `TapeWriter` must make the same bytes of it (today's format). `python test_traces_conformance.py` writes
the set anew; old formats' tapes were written by the racetape of their day.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_reader import contents
from tapes import CONSOLE, IMAGE, choices, header, page, pages, some_events, write_small

from replayer import rebuild, verify
from traces import Attachment, Event, Events, Tape, TapeFooter, TapeHeader, TapeWriter
from traces.schema import DEVICE, DRAINED, FORMAT_VERSION, HOLD, KINDS, RECORD, ROOM, Op

FOLDER = Path(__file__).parent / "conformance"
TODAY = ("least", "small", "stripped", "cut", "no-index", "no-events", "kinds", "attachments", "wide")
OLD = tuple(f"format-{n}" for n in range(1, FORMAT_VERSION))


def footer(steps: int, events: int, **changed: object) -> TapeFooter:
    fields: dict[str, object] = {
        "stop": "exit", "exit_status": 0, "steps": steps, "state_hash": 0x3333, "memory_hash": 0x4444, "events": events,
        "console_sha256": sha256(CONSOLE).digest(),
    }  # fmt: skip
    return TapeFooter(**(fields | changed))  # type: ignore[arg-type]


def write(name: str, path: Path) -> None:
    """One of the tapes of today's format."""
    if name in ("small", "stripped", "cut"):
        write_small(path, layer_b=name != "stripped")
        if name == "cut":
            data = path.read_bytes()
            with Tape(path) as tape:
                path.write_bytes(data[: tape.events_chunks[1].offset + 80])
        return
    with TapeWriter(path, index=name != "no-index") as tape:
        if name == "wide":
            tape.begin(
                header(cpus=8, ram_bytes=3 << 30, ready_step=1 << 40, events_first=1 << 40, seed=2**64 - 1), IMAGE
            )
            tape.choices(choices((Op.RUN, 7, 1 << 40)), 1 << 40, 2**64 - 1)
            tape.choices(choices((Op.RUN, 7, 2)), (1 << 40) + 2, 0)
            top = 2**64 - 1
            rows = [
                Event(1 << 40, top, top, top, top, KINDS["load"], 7, 8, 255),
                Event((1 << 40) + 1, 0, 0, (3 << 30) - 8, top, KINDS["store"], 7, 8, DRAINED),
            ]
            tape.events(Events.from_rows(rows), (1 << 40) + 2, 0)
            tape.finish(footer((1 << 40) + 2, 2, stop="shutdown", exit_status=None, state_hash=top, memory_hash=top))
            return
        tape.begin(header(), IMAGE)
        if name == "attachments":
            tape.attach(Attachment(name="mm/compaction.c", type="source", data=b"int isolated;\n"))
        tape.choices(choices((Op.RUN, 0, 100)), 100, 0x1111)
        if name == "least":
            tape.finish(footer(100, 0, stop="idle", exit_status=None))
            return
        if name == "attachments":
            tape.attach(Attachment(name="note 1", type="note", data="ž\0".encode()))
        tape.choices(choices((Op.RUN, 0, 50, HOLD | ROOM), (Op.DRAIN, 0, 2), (Op.RUN, 1, 98)), 250, 0x2222)
        events = some_events(100, 250, 60, 4)
        if name == "kinds":
            sizes = (1, 2, 4, 8)
            events = Events.from_rows(
                [
                    Event(
                        100 + i, 0xC0001000 + i, 0xC0002000 + 3 * i, 0x2000 + 3 * i, 0x80 << i, kind, i % 2,
                        sizes[i % 4], (0, DRAINED, DEVICE)[i % 3],
                    )
                    for i, kind in enumerate(sorted(KINDS.values()) * 2)
                ]
            )  # fmt: skip
        if name == "no-events":
            events = Events.empty()
        tape.events(events, 250, 0x2222)
        tape.checkpoint(250, b"state", 1, 0x2222, pages({0: page(1), 5: page(1), 255: page(2)}))
        tape.finish(footer(250, len(events), stop="freed", exit_status=None))


def rewrite(expected: dict[str, Any], path: Path, *, index: bool) -> None:
    """A tape made of what the JSON says (its checkpoints' pages cannot be had from there)."""
    fields = {k: bytes.fromhex(v) if k == "image_sha256" else v for k, v in expected["header"].items()}
    with TapeWriter(path, index=index) as tape:
        tape.begin(TapeHeader(**fields), IMAGE)
        events = {row["end_step"]: row for row in expected["events"]}
        for row in expected["choices"]:
            tape.choices(np.array([tuple(r) for r in row["records"]], RECORD), row["end_step"], row["state_hash"])
            if row["end_step"] in events:
                chunk = events[row["end_step"]]
                rows = [Event(*r) for r in chunk["events"]]
                tape.events(Events.from_rows(rows), chunk["end_step"], chunk["state_hash"])
        last = {k: bytes.fromhex(v) if k == "console_sha256" else v for k, v in expected["footer"].items()}
        tape.finish(TapeFooter(**last))


def expected(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", TODAY + OLD)
def test_the_document_alone_reads_them(name: str) -> None:
    found = json.loads(json.dumps(contents((FOLDER / f"{name}.tape").read_bytes())))
    assert found == expected(name)


@pytest.mark.parametrize("name", TODAY + OLD)
def test_racetape_reads_them(name: str) -> None:
    wanted = expected(name)
    with Tape(FOLDER / f"{name}.tape") as tape:
        tape.check()
        assert {k: v.hex() if isinstance(v, bytes) else v for k, v in vars(tape.header).items()} == wanted["header"]
        assert sha256(tape.image()).hexdigest() == wanted["image_sha256"]
        assert [
            {"first_step": c.first_step, "end_step": c.end_step, "state_hash": c.state_hash,
             "records": [list(r) for r in c.records.tolist()]} for c in tape.choices()
        ] == wanted["choices"]  # fmt: skip
        events = []
        for chunk in tape.events_chunks:
            state_hash, rows = tape.read_events(chunk)
            events.append(
                {"first_step": chunk.first_step, "end_step": chunk.end_step, "state_hash": state_hash,
                 "events": [list(r) for r in rows.rows()]}
            )  # fmt: skip
        assert events == wanted["events"]
        indexes = [index for index in map(tape.index_of, tape.events_chunks) if index is not None]
        assert [[list(w)[:3] for w in index.words.tolist()] for index in indexes] == [
            [[word, row, flags] for word, flags, row in index["words"]] for index in wanted["indexes"]
        ]
        assert [index.pcs.tolist() for index in indexes] == [index["pcs"] for index in wanted["indexes"]]
        assert [{str(k): n for k, n in index.kinds.items()} for index in indexes] == [
            index["kinds"] for index in wanted["indexes"]
        ]
        checkpoints = []
        for chunk in tape.checkpoint_chunks:
            row = tape.read_checkpoint(chunk)
            found = {str(frame): sha256(data).hexdigest() for frame, data in tape.checkpoint_pages(row)}
            checkpoints.append((row.step, row.state_hash, row.state.hex(), found))
        assert checkpoints == [(r["step"], r["state_hash"], r["state"], r["pages"]) for r in wanted["checkpoints"]]
        attachments = [tape.read_attachment(c) for c in tape.attachment_chunks]
        assert [{"name": a.name, "type": a.type, "data": a.data.hex()} for a in attachments] == wanted["attachments"]
        ended = tape.footer and {k: v.hex() if isinstance(v, bytes) else v for k, v in vars(tape.footer).items()}
        assert ended == wanted["footer"]


@pytest.mark.parametrize("name", TODAY)
def test_racetape_writes_them(name: str, tmp_path: Path) -> None:
    # Holds for the zstd library that the project pins; another one may compress otherwise, which is no fault.
    write(name, tmp_path / "a.tape")
    assert (tmp_path / "a.tape").read_bytes() == (FOLDER / f"{name}.tape").read_bytes()


@pytest.mark.parametrize("name", ["least", "stripped", "wide"])
def test_what_the_json_says_is_all(name: str, tmp_path: Path) -> None:
    rewrite(expected(name), tmp_path / "a.tape", index=True)
    assert (tmp_path / "a.tape").read_bytes() == (FOLDER / f"{name}.tape").read_bytes()


def test_a_guest_of_format_4_replays_and_becomes_one_of_today(tmp_path: Path) -> None:
    with Tape(FOLDER / "format-4-guest.tape") as tape:
        assert tape.header.format == 4
        report = verify(tape)
        assert report.ok
        rebuild(tape, tmp_path / "new.tape")
        with Tape(tmp_path / "new.tape") as new:
            assert new.header.format == FORMAT_VERSION
            assert verify(new).ok
            assert new.footer == tape.footer
            assert [c.records.tobytes() for c in new.choices()] == [c.records.tobytes() for c in tape.choices()]


def main() -> None:
    """Write the set anew."""
    for name in TODAY:
        write(name, FOLDER / f"{name}.tape")
    for name in TODAY + OLD:
        found = contents((FOLDER / f"{name}.tape").read_bytes())
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1).replace("\n    ", " ") + "\n")


if __name__ == "__main__":
    sys.exit(main())
