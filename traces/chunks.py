"""Chunks: framing, checksums and bounded decompression (docs/tape-format.md, section Chunk)."""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import zstandard

from machine.errors import TapeError

MAGIC: Final = b"\x89RTAPE\r\n"
CHUNK_BYTES_MAX: Final = 1 << 24
"""Most bytes that a payload, or a zstd frame in it once unpacked, may have."""
HASH_BYTES: Final = 16
FLAG_A: Final = 1

HEADER, IMAGE, CHOICES, EVENTS, PAGES, CHECKPOINT, FOOTER, INDEX, ATTACHMENT, CONTENTS = range(1, 11)
KIND_NAMES: Final = {
    HEADER: "header",
    IMAGE: "image",
    CHOICES: "choices",
    EVENTS: "events",
    PAGES: "pages",
    CHECKPOINT: "checkpoint",
    FOOTER: "footer",
    INDEX: "index",
    ATTACHMENT: "attachment",
    CONTENTS: "contents",
}
LAYER_A: Final = frozenset((HEADER, IMAGE, CHOICES, FOOTER))

_PREFIX: Final = struct.Struct("<BBHIQQ16s")  # kind, flags, reserved, payload bytes, steps, previous: under header_crc
_CRCS: Final = struct.Struct("<II")  # header_crc, payload_crc
HEADER_BYTES: Final = _PREFIX.size + _CRCS.size + HASH_BYTES
assert HEADER_BYTES == 64

OFFSETS_FORMAT: Final = 5
"""From this format on a tape has contents, and behind its footer the offsets."""
_OFFSETS: Final = struct.Struct("<QQ")  # of contents (0: none) and footer; then their CRC and four zeros
OFFSETS_BYTES: Final = _OFFSETS.size + 8

LEVEL: Final = 3
"""Of zstd. On page contents and images level 1 is a tenth larger, level 6 takes twice the time for 3 %."""


class FormatError(TapeError):
    """Bytes or values that docs/tape-format.md does not allow. `Tape` raises it as TapeDamagedError, with the place."""


@dataclass(frozen=True)
class Chunk:
    """One chunk's header and where it stands.

    Attributes:
        offset: file offset of the header in bytes.
        kind, flags, payload_bytes, first_step, end_step, previous, payload_crc, hash: as in the format.
        chained: whether `previous` is the hash that the chunk before states.
    """

    offset: int
    kind: int
    flags: int
    payload_bytes: int
    first_step: int
    end_step: int
    previous: bytes
    header_crc: int
    payload_crc: int
    hash: bytes
    chained: bool = True

    @property
    def layer_a(self) -> bool:
        return bool(self.flags & FLAG_A)

    @property
    def name(self) -> str:
        return KIND_NAMES.get(self.kind, f"kind {self.kind}")

    @property
    def end_offset(self) -> int:
        """File offset behind the payload."""
        return self.offset + HEADER_BYTES + self.payload_bytes

    def covered(self) -> bytes:
        """The header's 48 bytes that `hash` covers beside the payload."""
        prefix = _PREFIX.pack(
            self.kind, self.flags, 0, self.payload_bytes, self.first_step, self.end_step, self.previous
        )
        return prefix + _CRCS.pack(self.header_crc, self.payload_crc)

    def matches(self, payload: bytes) -> bool:
        """Whether `payload` has the chunk's hash."""
        return hash_of(self.covered(), payload) == self.hash


def hash_of(covered: bytes, payload: bytes) -> bytes:
    digest = blake2b(covered, digest_size=HASH_BYTES)
    digest.update(payload)
    return digest.digest()


def pack_header(kind: int, payload: bytes, *, first_step: int, end_step: int, previous: bytes) -> bytes:
    """The 64 bytes that go before `payload`; the last 16 of them are the chunk's hash."""
    assert kind in KIND_NAMES
    assert len(payload) <= CHUNK_BYTES_MAX
    assert 0 <= first_step <= end_step
    assert len(previous) == HASH_BYTES
    flags = FLAG_A if kind in LAYER_A else 0
    prefix = _PREFIX.pack(kind, flags, 0, len(payload), first_step, end_step, previous)
    covered = prefix + _CRCS.pack(zlib.crc32(prefix), zlib.crc32(payload))
    return covered + hash_of(covered, payload)


def unpack_header(data: bytes, offset: int, previous: bytes | None) -> Chunk:
    """The chunk whose header is `data`. With `previous` None any predecessor will do. Raises FormatError."""
    assert len(data) == HEADER_BYTES
    kind, flags, reserved, payload_bytes, first_step, end_step, stated = _PREFIX.unpack_from(data)
    header_crc, payload_crc = _CRCS.unpack_from(data, _PREFIX.size)
    if zlib.crc32(data[: _PREFIX.size]) != header_crc:
        raise FormatError("chunk header has a wrong checksum")
    if kind == 0 or reserved or flags & ~FLAG_A or payload_bytes > CHUNK_BYTES_MAX or first_step > end_step:
        raise FormatError("chunk header has values out of range")
    if kind in KIND_NAMES and (kind in LAYER_A) != bool(flags & FLAG_A):
        raise FormatError(f"{KIND_NAMES[kind]} chunk in the wrong layer")
    return Chunk(
        offset, kind, flags, payload_bytes, first_step, end_step, stated, header_crc, payload_crc,
        data[-HASH_BYTES:], chained=previous is None or stated == previous,
    )  # fmt: skip


def pack_offsets(contents_offset: int, footer_offset: int) -> bytes:
    """What stands between the footer and the closing magic."""
    offsets = _OFFSETS.pack(contents_offset, footer_offset)
    return offsets + struct.pack("<II", zlib.crc32(offsets), 0)


def unpack_offsets(data: bytes) -> tuple[int, int]:
    """(offset of the contents chunk or 0, of the footer). Raises FormatError."""
    contents_offset, footer_offset = _OFFSETS.unpack_from(data)
    if data != pack_offsets(contents_offset, footer_offset):
        raise FormatError("the offsets behind the footer have a wrong checksum")
    return contents_offset, footer_offset


class _Contexts(threading.local):
    """What zstd works with; a context serves one thread at a time."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor()
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        if level not in self.compressors:
            self.compressors[level] = zstandard.ZstdCompressor(
                level=level, write_content_size=True, write_checksum=False
            )
        return self.compressors[level]


_CONTEXTS: Final = _Contexts()


def zstd_pack(data: bytes | memoryview, level: int = LEVEL) -> bytes:
    """One zstd frame that states its content size. Other threads run meanwhile."""
    assert len(data) <= CHUNK_BYTES_MAX
    return _CONTEXTS.compressor(level).compress(data)


def zstd_unpack(frame: bytes, size_bytes: int | None = None) -> bytes:
    """What one zstd frame holds: exactly `size_bytes`, or with None at most `CHUNK_BYTES_MAX`. Raises FormatError."""
    try:
        stated = zstandard.frame_content_size(frame)
        # Checked before decompressing: the library allocates whatever the frame states.
        if stated < 0 or stated > CHUNK_BYTES_MAX or size_bytes not in (None, stated):
            raise FormatError(f"zstd frame states {stated} bytes where {size_bytes or 'at most 16 MiB'} are due")
        data = _CONTEXTS.decompressor.decompress(frame, allow_extra_data=False) if stated else b""
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd frame does not decompress: {error}") from None
    if len(data) != stated:
        raise FormatError("zstd frame holds less than it states")
    return data


def flipped_bit(payload: bytes, crc: int) -> int | None:
    """Number of the one bit of `payload` whose flipping gives it the CRC-32 `crc`; None if no single bit does.

    A CRC is linear: the CRCs of two messages of one length differ by what the differing bits alone would leave
    behind. So the difference is walked backwards through the message, a zero byte at a time, until it is what a
    single bit leaves right behind its byte. Bit n is bit n % 8 of byte n // 8. Takes some 0.2 us a byte.
    """
    difference = zlib.crc32(payload) ^ crc
    if difference == 0:
        return None
    table = [zlib.crc32(bytes([i])) ^ zlib.crc32(b"\0") for i in range(256)]
    by_top = {entry >> 24: i for i, entry in enumerate(table)}
    single = {table[1 << bit]: bit for bit in range(8)}
    for at in range(len(payload) - 1, -1, -1):
        bit = single.get(difference)
        if bit is not None:
            return at * 8 + bit
        index = by_top[difference >> 24]
        difference = ((difference ^ table[index]) << 8 | index) & 0xFFFFFFFF
    return None
