"""Tapes that are wrong on purpose."""

from __future__ import annotations

from pathlib import Path

from traces import Tape, TapeWriter
from traces.chunks import EVENTS, INDEX, Chunk


def with_payloads(tape: Tape, path: Path, payloads: dict[int, bytes]) -> Path:
    """A copy with other payloads (file offset of a chunk -> payload) and checksums that fit them."""
    with TapeWriter(path) as writer:
        for chunk in tape.chunks:
            payload = payloads.get(chunk.offset, tape.payload(chunk))
            writer.raw(chunk.kind, payload, chunk.first_step, chunk.end_step)
        if not tape.unfinished:
            writer.end()
    return path


def without(tape: Tape, path: Path, kind: int) -> Path:
    """A copy without the chunks of one kind."""
    with TapeWriter(path) as writer:
        for chunk in tape.chunks:
            if chunk.kind != kind and not (kind == EVENTS and chunk.kind == INDEX):
                writer.raw(chunk.kind, tape.payload(chunk), chunk.first_step, chunk.end_step)
        writer.end()
    return path


def flipped(path: Path, to: Path, bit: int) -> Path:
    """A copy with one bit of the file flipped, checksums as they were."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    to.write_bytes(data)
    return to


def payload_bits(chunk: Chunk) -> range:
    """The numbers of the payload's bits in the file."""
    first = (chunk.end_offset - chunk.payload_bytes) * 8
    return range(first, chunk.end_offset * 8)
