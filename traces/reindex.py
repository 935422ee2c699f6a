"""Indexes for a tape that has none, or others."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from machine.errors import TapeError
from traces.chunks import EVENTS, HEADER, INDEX
from traces.columns import tap_of
from traces.index import index_tap
from traces.reader import Progress, TapeFile
from traces.records import encode_header
from traces.schema import FORMAT_VERSION
from traces.writer import TapeWriter


def reindex(tape: TapeFile, path: str | os.PathLike[str], progress: Progress | None = None) -> int:
    """Write a copy of `tape` to `path` in which every chunk of events has an index; its length in bytes.

    Nothing is replayed. The copy is of today's format. Raises TapeDamagedError if any of it is damaged, TapeError if
    `path` cannot be written or is the tape itself.
    """
    if Path(path).exists() and Path(path).samefile(tape.path):
        raise TapeError(f"cannot index {tape.path} onto itself; give another name")
    if tape.damage is not None:
        raise tape.damage
    # Looked at before the target is touched: damage must not cost what was there.
    for chunk in tape.chunks:
        tape.payload(chunk)
    with TapeWriter(path) as writer:
        for chunk in tape.chunks:
            payload = tape.payload(chunk)
            if chunk.kind == HEADER:
                payload = encode_header(replace(tape.header, format=FORMAT_VERSION))
            if chunk.kind != INDEX:
                writer.raw(chunk.kind, payload, chunk.first_step, chunk.end_step)
            if chunk.kind == EVENTS:
                events = tape.read_events(chunk)[1]
                index = index_tap(tap_of(events)) if len(events) else None
                if index is not None:
                    writer.raw(INDEX, index, chunk.first_step, chunk.end_step)
            if progress is not None:
                progress(chunk.end_step, tape.end_step)
        if not tape.unfinished:
            writer.end()
        return writer.bytes_written
