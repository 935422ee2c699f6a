"""Coding of event columns in C. Private: `traces.columns` is its face. Format: docs/tape-format.md, "Streams"."""

from typing import Any, overload

from numpy.typing import NDArray
from typing_extensions import Buffer as _Buffer

@overload
def encode(columns: tuple[_Buffer | NDArray[Any], ...], /) -> tuple[bytes, tuple[int, int, int, int]]: ...
@overload
def encode(
    columns: tuple[_Buffer | NDArray[Any], ...], rules: bytes, /
) -> tuple[bytes, tuple[int, int, int, int], bytes | None]:
    """(the four streams of codec 4 one behind the other, their lengths in bytes) of at most 2^18 events, and with
    `rules` their index, None if they touch too many pages. Lets other threads run.

    `columns` are step, pc, addr, phys, value (8 bytes an element) and kind, cpu, size, info (1 byte), as
    `Machine.events` gives them: the fields of one array of rows of 48 bytes. `rules` has a byte for each event kind (0
    nothing, 1 load, 2 store, 3 drain, 4 walk, 5 A/D update, 6 trace), then the bits of `info` that say that a store is
    drained, and that an access is to a device. Raises ValueError if they are not.
    """

def decode(
    codec: int,
    streams: bytes,
    sizes: tuple[int, int, int, int],
    columns: tuple[NDArray[Any], ...],
    prefix: bool = ...,
    /,
) -> None:
    """Fill nine contiguous writable `columns` of one length, in the order of `encode`. Lets other threads run.

    `codec` is 3 or 4 (docs/tape-format.md); the streams and sizes are in its order. Raises ValueError if the streams do
    not hold exactly so many events; what the columns hold is then undefined.
    """

def index_find(index: bytes, first_word: int, last_word: int, /) -> tuple[int, int]:
    """(flags of these words or-ed, row of the last visible write to one of them or -1). Raises ValueError."""

def index_pages(index: bytes, /) -> bytes:
    """The numbers (u64, phys / 4096) of the pages that have words, ascending. Raises ValueError."""

def index_read(index: bytes, /) -> tuple[bytes, bytes, bytes, bytes]:
    """Words (u64 word, u32 row, u8 flags, 3 bytes of zeros), pcs (u64), operands (u64 key, u64 value), kinds (u64 kind,
    u64 count), ascending. Raises ValueError.
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
