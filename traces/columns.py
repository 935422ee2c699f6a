"""Events as columns, and how a chunk of them is coded (docs/tape-format.md, section Events)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from machine.errors import UsageError
from traces import _codec
from traces.chunks import CHUNK_BYTES_MAX, FormatError, zstd_pack, zstd_unpack
from traces.schema import (
    AD_UPDATE,
    COLUMNS,
    DEVICE,
    DRAIN,
    DRAINED,
    KIND_NAMES,
    STORE,
    BoolArray,
    U8Array,
    U64Array,
)

EVENTS_MAX: Final = 1 << 18
"""Events per chunk at most."""

_HEAD: Final = struct.Struct("<QII")  # state hash, event count, reserved
_COLUMN: Final = struct.Struct("<B3sI")  # codec, reserved, stored bytes
_ZERO, _PLAIN, _DELTA, _STREAMS_3, _STREAMS = 0, 1, 2, 3, 4
_SIZES: Final = struct.Struct("<4I")  # bytes of each stream
_FRAME: Final = struct.Struct("<I")  # bytes of the first of two frames
# Of zstd. Values that could not be foretold hardly shrink, unless they come again as a whole, which any level finds.
_LEVEL, _VALUES_LEVEL = 1, -5
_ROW: Final = np.dtype([*COLUMNS, ("zero", "<u4")])
"""An event as the machine's tap keeps it (48 bytes)."""
assert _ROW.itemsize == 48

_View = memoryview | npt.NDArray[Any]
Tap = tuple[int, _View, _View, _View, _View, _View, _View, _View, _View, _View]
"""What `Machine.events_take` (or `events`) gives: number of events, then a view of each column."""


class Event(NamedTuple):
    """One row of `Events`, as Python ints. Meaning of the fields: machine/core/event.def."""

    step: int
    pc: int
    addr: int
    phys: int
    value: int
    kind: int
    cpu: int
    size: int
    info: int

    @property
    def name(self) -> str:
        """Name of the kind."""
        return KIND_NAMES.get(self.kind, f"kind {self.kind}")


@dataclass(frozen=True, eq=False)
class Events:
    """Events in the order in which they happened; nine arrays of one length.

    `step`, `pc`, `addr`, `phys`, `value` are uint64, `kind`, `cpu`, `size`, `info` uint8, all of shape (len,).
    `size` is in bytes (log2 of bytes for `tlb_fill`).
    """

    step: U64Array
    pc: U64Array
    addr: U64Array
    phys: U64Array
    value: U64Array
    kind: U8Array
    cpu: U8Array
    size: U8Array
    info: U8Array

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, which: slice | BoolArray | npt.NDArray[np.intp]) -> Events:
        """The chosen rows: a view for a slice, a copy for a mask or an array of indices."""
        return Events(*(column[which] for column in self.columns()))  # type: ignore[arg-type]  # dtypes follow COLUMNS

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Events):
            return NotImplemented
        return all(np.array_equal(a, b) for a, b in zip(self.columns(), other.columns(), strict=True))

    __hash__ = None  # type: ignore[assignment]

    def columns(self) -> tuple[npt.NDArray[np.uint64] | npt.NDArray[np.uint8], ...]:
        """The nine arrays in the order of `COLUMNS`."""
        return (self.step, self.pc, self.addr, self.phys, self.value, self.kind, self.cpu, self.size, self.info)

    def row(self, index: int) -> Event:
        """Row `index` (negative from the end) as Python ints. Raises IndexError."""
        return Event(*(int(column[index]) for column in self.columns()))

    def rows(self) -> Iterator[Event]:
        """All rows, one by one. For few rows: this is Python speed."""
        for values in zip(*(column.tolist() for column in self.columns()), strict=True):
            yield Event(*values)

    def between(self, first_step: int, last_step: int) -> Events:
        """The rows of steps `first_step` to `last_step`, both included. A view."""
        # Steps ascend, so both ends are found by bisection.
        lo = int(np.searchsorted(self.step, np.uint64(max(first_step, 0)), side="left"))
        hi = int(np.searchsorted(self.step, np.uint64(max(last_step, 0)), side="right")) if last_step >= 0 else lo
        return self[lo : max(hi, lo)]

    def is_write(self) -> BoolArray:
        """Mask of the rows that change RAM at their own step: drained stores, drains, A/D updates. Shape (len,)."""
        stored = (self.kind == STORE) & ((self.info & DRAINED) != 0)
        to_memory = (self.info & DEVICE) == 0
        mask: BoolArray = ((stored | (self.kind == DRAIN)) & to_memory) | (self.kind == AD_UPDATE)
        return mask

    def writes(self, phys: int, size_bytes: int) -> Events:
        """The visible writes that touch any of `size_bytes` bytes of RAM at `phys`. A copy."""
        # `info` of an A/D update is the level, not DEVICE, and its entry has at least 4 bytes.
        length = np.maximum(self.size.astype(np.uint64), np.where(self.kind == AD_UPDATE, 4, 0).astype(np.uint64))
        touches = (self.phys < np.uint64(phys + size_bytes)) & (self.phys + length > np.uint64(phys))
        return self[touches & self.is_write()]

    def to_arrow(self) -> Any:
        """A pyarrow table of the nine columns, `kind` as names; without a copy. Raises UsageError without PyArrow."""
        try:
            import pyarrow as pa
        except ImportError:
            raise UsageError("a table needs PyArrow: pip install 'racetape[sql]'") from None
        names = pa.array([KIND_NAMES.get(number, f"kind {number}") for number in range(256)], pa.string())
        columns = {name: pa.array(column) for (name, _), column in zip(COLUMNS, self.columns(), strict=True)}
        columns["kind"] = pa.DictionaryArray.from_arrays(columns["kind"], names)
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """A pandas data frame of the nine columns, `kind` as names (categorical). Raises UsageError without pandas."""
        try:
            import pandas
        except ImportError:
            raise UsageError("a data frame needs pandas: pip install pandas") from None
        names = [KIND_NAMES.get(number, f"kind {number}") for number in range(256)]
        columns = {name: column for (name, _), column in zip(COLUMNS, self.columns(), strict=True)}
        return pandas.DataFrame({**columns, "kind": pandas.Categorical.from_codes(self.kind, names)})

    @staticmethod
    def buffer(count: int) -> Events:
        """`count` rows of nothing in particular, to be written to."""
        return Events(*(np.empty(count, dtype) for _, dtype in COLUMNS))

    @staticmethod
    def empty() -> Events:
        """No events."""
        return Events.buffer(0)

    @staticmethod
    def concatenate(parts: Sequence[Events]) -> Events:
        """All rows of `parts`, in order. A copy, except of a single part."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return Events.empty()
        return Events(*(np.concatenate(columns) for columns in zip(*(p.columns() for p in parts), strict=True)))

    @staticmethod
    def from_rows(rows: Sequence[Event]) -> Events:
        """Columns made of single rows."""
        table = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        return Events(*(np.array(values, dtype) for values, (_, dtype) in zip(table, COLUMNS, strict=True)))

    @staticmethod
    def from_tap(tap: Tap) -> Events:
        """A copy of what `Machine.events` gave, so that the core may go on filling its buffers."""
        count, *views = tap
        return Events(
            *(np.array(v, dtype) if count else np.empty(0, dtype)
              for v, (_, dtype) in zip(views, COLUMNS, strict=True))
        )  # fmt: skip


Coded = tuple[int, bytes, tuple[int, int, int, int]]
"""Number of events, their streams one behind the other, the streams' lengths in bytes."""


def code_tap(tap: Tap) -> Coded:
    """The streams of what `Machine.events_take` gave, at most `EVENTS_MAX`. No copy; other threads run meanwhile."""
    count, *columns = tap
    assert count <= EVENTS_MAX
    return (count, *_codec.encode(tuple(columns)))


def tap_of(events: Events) -> Tap:
    """`events` as `Machine.events_take` would have given them. A copy."""
    rows = np.zeros(len(events), _ROW)
    for (name, dtype), column in zip(COLUMNS, events.columns(), strict=True):
        assert column.dtype == np.dtype(dtype), name
        rows[name] = column
    step, pc, addr, phys, value, kind, cpu, size, info = (rows[name] for name, _ in COLUMNS)
    return len(rows), step, pc, addr, phys, value, kind, cpu, size, info


def code_events(events: Events) -> Coded:
    """The streams of `events`, at most `EVENTS_MAX`."""
    return code_tap(tap_of(events))


def pack_events(coded: Coded, state_hash: int) -> bytes:
    """Payload of an events chunk; `state_hash` is that of the chunk's end."""
    count, streams, sizes = coded
    cut = len(streams) - sizes[-1]
    frame = zstd_pack(memoryview(streams)[:cut], _LEVEL)
    values = zstd_pack(memoryview(streams)[cut:], _VALUES_LEVEL)
    stored = b"".join([_SIZES.pack(*sizes), _FRAME.pack(len(frame)), frame, values])
    table = [_COLUMN.pack(_STREAMS, b"\0\0\0", 0 if i else len(stored)) for i in range(len(COLUMNS))]
    return b"".join([_HEAD.pack(state_hash, count, 0), *table, stored])


def encode_events(events: Events, state_hash: int) -> bytes:
    """Payload of an events chunk. At most `EVENTS_MAX` events; `state_hash` is that of the chunk's end."""
    return pack_events(code_events(events), state_hash)


def decode_row(payload: bytes, row: int) -> Event:
    """Event `row` of an events chunk's payload, at the cost of those before it. Raises FormatError."""
    count = _decode_head(payload)[1]
    if not 0 <= row < count:
        raise FormatError(f"an events chunk of {count} events has no event {row}")
    return _decode(payload, row + 1)[1].row(row)


def decode_events(payload: bytes, into: Events | None = None) -> tuple[int, Events]:
    """(state hash, events) of an events chunk's payload. Raises FormatError.

    Args:
        into: `EVENTS_MAX` rows or more to put the events into where the codec allows that; the result is then a view of
            them. Fresh memory costs as much as decoding.
    """
    return _decode(payload, None, into)


def _decode(payload: bytes, first: int | None, into: Events | None = None) -> tuple[int, Events]:
    """The same for all of them or, if they are in streams, the first so many."""
    state_hash, count = _decode_head(payload)
    codecs: list[int] = []
    stored: list[bytes] = []
    at = _HEAD.size + len(COLUMNS) * _COLUMN.size
    for i, (name, _) in enumerate(COLUMNS):
        codec, pad, stored_bytes = _COLUMN.unpack_from(payload, _HEAD.size + i * _COLUMN.size)
        if pad != b"\0\0\0" or stored_bytes > len(payload) - at:
            raise FormatError(f"column {name} of an events chunk overruns it")
        codecs.append(codec)
        stored.append(payload[at : at + stored_bytes])
        at += stored_bytes
    if at != len(payload):
        raise FormatError("events chunk is longer than its columns")
    if _STREAMS in codecs or _STREAMS_3 in codecs:
        if len(set(codecs)) != 1 or any(stored[1:]):
            raise FormatError("an events chunk keeps some columns in streams and others not")
        rows = (Events.buffer(count) if into is None else into[:count]) if first is None else Events.buffer(first)
        _decode_streams(codecs[0], stored[0], rows, prefix=first is not None)
        return state_hash, rows
    columns = [
        _decode_column(codec, data, count, np.dtype(dtype))
        for codec, data, (_, dtype) in zip(codecs, stored, COLUMNS, strict=True)
    ]
    return state_hash, Events(*columns)  # type: ignore[arg-type]  # dtypes follow COLUMNS


def events_in(payload: bytes) -> int:
    """Number of events in an events chunk's payload, without decoding them. Raises FormatError."""
    return _decode_head(payload)[1]


def _decode_head(payload: bytes) -> tuple[int, int]:
    """(state hash, number of events)."""
    if len(payload) < _HEAD.size + len(COLUMNS) * _COLUMN.size:
        raise FormatError("events chunk is too short")
    state_hash, count, reserved = _HEAD.unpack_from(payload)
    if count > EVENTS_MAX or reserved:
        raise FormatError(f"events chunk claims {count} events")
    return state_hash, count


def _decode_streams(codec: int, stored: bytes, rows: Events, *, prefix: bool) -> None:
    """Fill `rows`. With `prefix` there may be more."""
    if len(stored) < _SIZES.size:
        raise FormatError("streams of an events chunk are too short")
    sizes = _SIZES.unpack_from(stored)
    if sum(sizes) > CHUNK_BYTES_MAX:
        raise FormatError("streams of an events chunk are too long")
    if codec == _STREAMS_3:
        streams = zstd_unpack(stored[_SIZES.size :], sum(sizes))
    else:
        if len(stored) < _SIZES.size + _FRAME.size:
            raise FormatError("streams of an events chunk are too short")
        start = _SIZES.size + _FRAME.size
        cut = start + _FRAME.unpack_from(stored, _SIZES.size)[0]
        # Slices end where the data ends: a frame that claims to be longer than that is cut, which zstd notices.
        streams = zstd_unpack(stored[start:cut], sum(sizes[:-1])) + zstd_unpack(stored[cut:], sizes[-1])
    try:
        _codec.decode(codec, streams, sizes, rows.columns(), prefix)
    except ValueError as error:
        raise FormatError(f"events chunk: {error}") from None


def _decode_column(codec: int, stored: bytes, count: int, dtype: np.dtype[np.generic]) -> npt.NDArray[np.uint64]:
    if codec == _ZERO:
        if stored:
            raise FormatError("a column of zeros has stored bytes")
        return np.zeros(count, dtype)
    if codec not in (_PLAIN, _DELTA):
        raise FormatError(f"unknown column codec {codec}")
    column = np.frombuffer(zstd_unpack(stored, count * dtype.itemsize), dtype)
    return column if codec == _PLAIN else np.cumsum(column, dtype=dtype)
