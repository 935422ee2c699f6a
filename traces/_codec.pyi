"""Coding of event columns in C. Private: `traces.columns` is its face. Format: docs/tape-format.md, "Streams"."""

from typing import Any

from numpy.typing import NDArray
from typing_extensions import Buffer as _Buffer

def encode(columns: tuple[_Buffer | NDArray[Any], ...], /) -> tuple[bytes, tuple[int, int, int, int]]:
    """(the four streams of codec 4 one behind the other, their lengths in bytes) of at most 2^18 events. Lets other
    threads run.

    `columns` are step, pc, addr, phys, value (8 bytes an element) and kind, cpu, size, info (1 byte), as
    `Machine.events` gives them: the fields of one array of rows of 48 bytes. Raises ValueError if they are not.
    """

def decode(codec: int, streams: bytes, sizes: tuple[int, int, int, int], columns: tuple[NDArray[Any], ...], /) -> None:
    """Fill nine contiguous writable `columns` of one length, in the order of `encode`. Lets other threads run.

    `codec` is 3 or 4 (docs/tape-format.md); the streams and sizes are in its order. Raises ValueError if the streams do
    not hold exactly so many events; what the columns hold is then undefined.
    """

def check_choices(records: _Buffer | NDArray[Any], rules: bytes, cpus: int, span: int, /) -> tuple[int, int, int]:
    """(index of the first record that is no choice or -1, and in 2^32 and in ones the steps of those before it).

    `rules` has a byte for each op: bit 0 if there is such an op, bit 1 if it makes `arg` steps, not one, and from bit 2
    on the flags that it may have. A choice is of a CPU below `cpus` and makes at least one step, at most `span`.
    """

def same_pages(pages: _Buffer, /) -> bytes:
    """For each page of 4096 bytes the number (u32) of the first that is equal. Lets other threads run.

    Raises ValueError if the length is not one of whole pages.
    """
