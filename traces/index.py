"""What the events of one chunk touch, so that most chunks need not be looked into (docs/tape-format.md, "Index").

An index never decides anything: without it, or with a damaged one, the same answers come from the events themselves.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from traces import _codec
from traces.chunks import CHUNK_BYTES_MAX, FormatError, zstd_pack, zstd_unpack
from traces.columns import Coded, Tap
from traces.schema import DEVICE, DRAINED, KINDS, RecordArray, U64Array

READ, WRITTEN, NEGATIVE, ISSUED = 1, 2, 4, 8
"""What an index says of an 8-byte word: it was read (by a load or a walk), it was written visibly, one of these writes
set the uppermost bit of what it wrote, a store to it was held back."""

WORD_BYTES: Final = 8
PAGE_BYTES: Final = 4096
_ROLES: Final = ("load", "store", "drain", "walk", "ad_update", "trace")
_LEVEL: Final = 1
_WORD: Final = np.dtype([("word", "<u8"), ("row", "<u4"), ("flags", "u1"), ("zero", "u1", 3)])
_OPERAND: Final = np.dtype([("key", "<u8"), ("value", "<u8")])
_KIND: Final = np.dtype([("kind", "<u8"), ("count", "<u8")])


def _rules() -> bytes:
    roles = bytearray(256)
    for number, name in enumerate(_ROLES, 1):
        roles[KINDS[name]] = number
    return bytes(roles) + bytes((DRAINED, DEVICE))


_RULES: Final = _rules()
assert max(KINDS.values()) < 32, "the index counts kinds up to 31"


def code_with_index(tap: Tap) -> tuple[Coded, bytes | None]:
    """The streams of what `Machine.events_take` gave, and the payload of their index chunk, None if it were no gain.

    Other threads run meanwhile.
    """
    count, *columns = tap
    streams, sizes, body = _codec.encode(tuple(columns), _RULES)
    index = None if body is None or len(body) > CHUNK_BYTES_MAX else zstd_pack(body, _LEVEL)
    return (count, streams, sizes), index


def index_tap(tap: Tap) -> bytes | None:
    """The payload of the index chunk alone."""
    return code_with_index(tap)[1]


def decode_index(payload: bytes) -> ChunkIndex:
    """Raises FormatError if it does not unpack; what is wrong inside shows when it is asked."""
    return ChunkIndex(zstd_unpack(payload))


@dataclass(frozen=True, eq=False)
class ChunkIndex:
    """The index of one events chunk. Every question raises FormatError if it is damaged."""

    body: bytes

    def find(self, phys: int, size_bytes: int) -> tuple[int, int]:
        """(flags of all words of the range or-ed, row of the last visible write to one of them or -1).

        A word that holds a byte of the range counts as a whole, so both may be of bytes beside it.
        """
        try:
            # Mostly nothing of the page is there, and this is told by a tenth of the time.
            at = bisect_left(self.pages, phys // PAGE_BYTES)
            if at == len(self.pages) or self.pages[at] > (phys + size_bytes - 1) // PAGE_BYTES:
                return 0, -1
            return _codec.index_find(self.body, phys // WORD_BYTES, (phys + size_bytes - 1) // WORD_BYTES)
        except ValueError as error:
            raise FormatError(f"index: {error}") from None

    @cached_property
    def pages(self) -> array[int]:
        """The numbers (phys / 4096) of the pages that have words, ascending."""
        try:
            return array("Q", _codec.index_pages(self.body))
        except ValueError as error:
            raise FormatError(f"index: {error}") from None

    @property
    def words(self) -> RecordArray:
        """Every word touched: `word` (uint64, physical address / 8, ascending), `flags` (uint8), `row` (uint32) of the
        last visible write.
        """
        return np.frombuffer(self._read()[0], _WORD)

    @property
    def pcs(self) -> U64Array:
        """Every instruction that made an event, ascending. Shape (n,), uint64."""
        return np.frombuffer(self._parts[0], np.uint64)

    @property
    def kinds(self) -> dict[int, int]:
        """Number of events of each kind there is."""
        return {int(row["kind"]): int(row["count"]) for row in np.frombuffer(self._parts[2], _KIND)}

    def operands(self, tracepoint: int, operand: int) -> U64Array:
        """Every value that operand 0 or 1 of a tracepoint had, ascending. Shape (n,), uint64."""
        rows = np.frombuffer(self._parts[1], _OPERAND)
        found: U64Array = rows["value"][rows["key"] == 2 * tracepoint + operand]
        return found

    @property
    def memory_bytes(self) -> int:
        """What it takes so far: some answers are kept."""
        kept = self.__dict__  # Where cached properties are.
        parts = kept.get("_parts", ())
        return len(self.body) + 8 * len(kept.get("pages", ())) + sum(len(part) for part in parts)

    @cached_property
    def _parts(self) -> tuple[bytes, bytes, bytes]:
        # Not the words: they take tens of times as much as the index itself.
        return self._read()[1:]

    def _read(self) -> tuple[bytes, bytes, bytes, bytes]:
        try:
            return _codec.index_read(self.body)
        except ValueError as error:
            raise FormatError(f"index: {error}") from None
