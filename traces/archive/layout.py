"""How a tape lies in an archive: pieces in the order of the file, each taken from the stream of its kind.

What two tapes have in common are payloads, never whole chunks: a chunk's header holds the hash of the chunk before, and
the first chunk of every tape is its own. So a header is left out where it can be computed from the payload, the steps
and the chunk before, and the payloads of each kind, one behind the other, are a stream, which is cut at their borders
into blobs. A tape that begins as another one does has the same first blobs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from machine.errors import ArchiveError, TapeError
from traces import chunks
from traces.chunks import CHUNK_BYTES_MAX, HASH_BYTES, HEADER_BYTES, MAGIC, FormatError

RAW: Final = 0
"""The stream of bytes that are no chunk as the format has it: the magic, damage, chunks of unknown kinds."""
LISTED: Final = 255
"""Stands for a chunk of contents that lists all headers before it: no stream, they are known."""
BLOB_BYTES: Final = 1 << 20
"""A blob is cut where the next payload would make it longer."""
INLINE_BYTES: Final = 4096
"""What is left of a stream at its end goes into the manifest if it is shorter."""
BLOB_BYTES_MAX: Final = CHUNK_BYTES_MAX + HEADER_BYTES

Put = Callable[[bytes, bytes], None]
"""Called with each blob's SHA-256 and its bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the file: a chunk of kind `stream` that covers these steps, or as it stands if `stream` is RAW.

    `size_bytes` without a header that is left out; of LISTED contents it is 0.
    """

    stream: int
    size_bytes: int
    first_step: int = 0
    end_step: int = 0


@dataclass(frozen=True, slots=True)
class Blob:
    """An object of the archive: its SHA-256 (32 bytes) and its length."""

    hash: bytes
    size_bytes: int

    @property
    def name(self) -> str:
        return self.hash.hex()


@dataclass(slots=True)
class Stream:
    """The payloads of one kind: whole blobs, then what the manifest itself holds."""

    blobs: list[Blob] = field(default_factory=list)
    inline: bytes = b""

    @property
    def size_bytes(self) -> int:
        return sum(blob.size_bytes for blob in self.blobs) + len(self.inline)


@dataclass(frozen=True)
class Layout:
    """Everything needed to put a tape together again.

    Attributes:
        sha256, size_bytes: of the tape.
        pieces: in the order of the file.
        streams: by number.
    """

    sha256: bytes
    size_bytes: int
    pieces: tuple[Piece, ...]
    streams: dict[int, Stream]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """All blobs, each once, in order."""
        return tuple(dict.fromkeys(blob for stream in self.streams.values() for blob in stream.blobs))


class _Cutter:
    """Cuts one stream into blobs."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.stream = Stream()

    def take(self, data: bytes) -> None:
        if self._held_bytes + len(data) > BLOB_BYTES:
            self._cut()
        self._held.append(data)
        self._held_bytes += len(data)

    def end(self) -> Stream:
        if self._held_bytes < INLINE_BYTES:
            self.stream.inline = b"".join(self._held)
        else:
            self._cut()
        return self.stream

    def _cut(self) -> None:
        if not self._held_bytes:
            return
        data = b"".join(self._held)
        blob = Blob(sha256(data).digest(), len(data))
        self._put(blob.hash, data)
        self.stream.blobs.append(blob)
        self._held, self._held_bytes = [], 0


class Splitter:
    """Splits a tape's file. Memory is bounded by some blobs.

    Attributes:
        damaged: whether a chunk was not as the format has it, known once `split` is done.

    Raises TapeError if the file cannot be read.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path, self.size_bytes = path, size_bytes
        self.damaged = False

    def split(self, put: Put) -> Layout:
        """The layout of the file's first `size_bytes` bytes; `put` gets each blob, the same one perhaps repeatedly."""
        digest = sha256()
        pieces: list[Piece] = []
        cutters: dict[int, _Cutter] = {}
        for piece, header, payload in self._pieces():
            digest.update(header)
            digest.update(payload)
            pieces.append(piece)
            if piece.stream == LISTED:
                continue
            if piece.stream not in cutters:
                cutters[piece.stream] = _Cutter(put)
            cutters[piece.stream].take(payload)
        streams = {number: cutters[number].end() for number in sorted(cutters)}
        return Layout(digest.digest(), self.size_bytes, tuple(pieces), streams)

    def _pieces(self) -> Iterator[tuple[Piece, bytes, bytes]]:
        """Each piece, the header that is left out of its stream, and what goes into it."""
        try:
            with open(self.path, "rb") as file:
                left = self.size_bytes

                def read(size_bytes: int) -> bytes:
                    data = file.read(size_bytes)
                    if len(data) != size_bytes:
                        raise TapeError(f"{self.path}: the file became shorter while it was read")
                    return data

                magic = read(min(left, len(MAGIC)))
                left -= len(magic)
                yield Piece(RAW, len(magic)), b"", magic
                previous, headers = bytes(HASH_BYTES), bytearray()
                while left >= HEADER_BYTES:
                    header = read(HEADER_BYTES)
                    payload_bytes = _payload_bytes(header)
                    if payload_bytes is None or payload_bytes > left - HEADER_BYTES:
                        self.damaged |= payload_bytes is None
                        left -= HEADER_BYTES
                        yield Piece(RAW, HEADER_BYTES), b"", header
                        break
                    payload = read(payload_bytes)
                    left -= HEADER_BYTES + payload_bytes
                    chunk = chunks.unpack_header(header, 0, previous)
                    self.damaged |= not (chunk.chained and chunk.matches(payload))
                    if _computed(chunk, payload, previous) == header:
                        stream, taken = chunk.kind, payload_bytes
                        if chunk.kind == chunks.CONTENTS and payload == headers:
                            stream, taken = LISTED, 0
                        yield Piece(stream, taken, chunk.first_step, chunk.end_step), header, payload
                    else:
                        yield Piece(RAW, HEADER_BYTES + payload_bytes), b"", header + payload
                    previous = chunk.hash
                    headers += header
                while left:
                    data = read(min(left, BLOB_BYTES))
                    left -= len(data)
                    yield Piece(RAW, len(data)), b"", data
        except OSError as error:
            raise TapeError(f"cannot read {self.path}: {error.strerror}") from None


def _payload_bytes(header: bytes) -> int | None:
    """What a chunk header says of its payload; None if it is no header."""
    try:
        return chunks.unpack_header(header, 0, None).payload_bytes
    except FormatError:
        return None


def _computed(chunk: chunks.Chunk, payload: bytes, previous: bytes) -> bytes | None:
    """The header that the payload would have if all were right."""
    if chunk.kind not in chunks.KIND_NAMES:
        return None
    return chunks.pack_header(
        chunk.kind, payload, first_step=chunk.first_step, end_step=chunk.end_step, previous=previous
    )


class _Source:
    """A stream, read from its beginning, a blob at a time."""

    def __init__(self, stream: Stream, read: Callable[[Blob], bytes]) -> None:
        self._stream, self._read = stream, read
        self._next = 0
        self._data = b""
        self._at = 0

    def take(self, size_bytes: int) -> bytes:
        parts = []
        while size_bytes:
            if self._at == len(self._data):
                self._load()
            part = self._data[self._at : self._at + size_bytes]
            self._at += len(part)
            size_bytes -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _load(self) -> None:
        blobs = self._stream.blobs
        assert self._next <= len(blobs), "a layout's pieces add up to its streams"
        self._data = self._read(blobs[self._next]) if self._next < len(blobs) else self._stream.inline
        self._next += 1
        self._at = 0
        assert self._data


def rebuild(layout: Layout, read: Callable[[Blob], bytes]) -> Iterator[bytes]:
    """The tape's bytes, in parts.

    read: gives a blob's bytes, already compared with its hash.

    Raises ArchiveError at the end unless they are those that were archived; whatever `read` raises.
    """
    digest = sha256()
    sources = {number: _Source(stream, read) for number, stream in layout.streams.items()}
    previous, headers = bytes(HASH_BYTES), bytearray()
    for piece in layout.pieces:
        if piece.stream == LISTED:
            kind, data = chunks.CONTENTS, bytes(headers)
        else:
            kind, data = piece.stream, sources[piece.stream].take(piece.size_bytes)
        if kind != RAW:
            steps = (piece.first_step, piece.end_step)
            data = chunks.pack_header(kind, data, first_step=steps[0], end_step=steps[1], previous=previous) + data
        if len(data) >= HEADER_BYTES:
            previous = data[HEADER_BYTES - HASH_BYTES : HEADER_BYTES]
            headers += data[:HEADER_BYTES]
        digest.update(data)
        yield data
    if digest.digest() != layout.sha256:
        raise ArchiveError(
            f"tape {layout.sha256.hex()[:12]} does not come out of the archive as it went in: its manifest is damaged, "
            "or was made by another racetape"
        )


def file_size(path: Path) -> int:
    """Length of a file in bytes. Raises TapeError."""
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise TapeError(f"cannot read {path}: {error.strerror}") from None
