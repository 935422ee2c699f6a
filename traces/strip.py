"""Dropping layer B."""

from __future__ import annotations

import os
from pathlib import Path

from machine.errors import TapeError
from traces.chunks import ATTACHMENT, Chunk
from traces.reader import TapeFile
from traces.writer import TapeWriter


def stays(chunk: Chunk) -> bool:
    """Whether a stripped tape has the chunk: what no replay can make again."""
    return chunk.layer_a or chunk.kind == ATTACHMENT


def strip(tape: TapeFile, path: str | os.PathLike[str]) -> int:
    """Write the layer A of `tape`, and what is attached, to `path` as a tape of its own; its length in bytes.

    An unfinished tape gives an unfinished one. Raises TapeDamagedError if layer A is damaged, TapeError if `path`
    cannot be written or is the tape itself.
    """
    if Path(path).exists() and Path(path).samefile(tape.path):
        raise TapeError(f"cannot strip {tape.path} onto itself; give another name")
    if tape.damage is not None:
        raise tape.damage
    # Looked at before the target is touched: damage must not cost what was there.
    for chunk in tape.chunks:
        if stays(chunk):
            tape.check_chunk(chunk)
    with TapeWriter(path) as writer:
        for chunk in tape.chunks:
            if stays(chunk):
                writer.raw(chunk.kind, tape.payload(chunk), chunk.first_step, chunk.end_step)
        if not tape.unfinished:
            writer.end()
        return writer.bytes_written
