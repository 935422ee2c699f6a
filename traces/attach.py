"""Files that go with a tape."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from machine.errors import TapeError
from traces.chunks import ATTACHMENT, FOOTER
from traces.reader import TapeFile
from traces.records import Attachment, encode_attachment
from traces.writer import TapeWriter

SOURCE = "source"
NOTE = "note"


def attach(tape: TapeFile, path: str | os.PathLike[str], attachments: Sequence[Attachment]) -> int:
    """Write a copy of `tape` with more attachments to `path`; its length in bytes.

    An unfinished tape gives an unfinished one. Raises TapeDamagedError if a checksum is wrong, TapeError if `path`
    cannot be written, is the tape itself, or an attachment is too long.
    """
    if Path(path).exists() and Path(path).samefile(tape.path):
        raise TapeError(f"cannot write {tape.path} onto itself; give another name")
    # Looked at before the target is touched: damage must not cost what was there.
    if tape.damage is not None:
        raise tape.damage
    for chunk in tape.chunks:
        tape.payload(chunk)
    with TapeWriter(path) as writer:
        pending = list(attachments)
        for chunk in tape.chunks:
            if chunk.kind == FOOTER:
                for row in pending:
                    writer.raw(ATTACHMENT, encode_attachment(row), chunk.first_step, chunk.first_step)
                pending = []
            writer.raw(chunk.kind, tape.payload(chunk), chunk.first_step, chunk.end_step)
        for row in pending:
            writer.raw(ATTACHMENT, encode_attachment(row), tape.end_step, tape.end_step)
        if not tape.unfinished:
            writer.end()
        return writer.bytes_written
