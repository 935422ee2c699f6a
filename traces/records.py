"""The records of a tape, each with its encoding and decoding side by side (docs/tape-format.md).

Every decoder checks every field against the bounds that the format states and raises FormatError, nothing else; every
encoder asserts the same bounds.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt

from traces import _codec
from traces.chunks import CHUNK_BYTES_MAX, HEADER_BYTES, FormatError, zstd_pack, zstd_unpack
from traces.schema import (
    FORMAT_VERSION,
    HOLD,
    OP_NAMES,
    PLATFORM_PC,
    PLATFORM_PLAIN,
    PLATFORM_VERSION,
    RECORD,
    ROOM,
    STATE_VERSION,
    Op,
    RecordArray,
    records_of,
)

PAGE_BYTES: Final = 4096
RECORDS_MAX: Final = CHUNK_BYTES_MAX // RECORD.itemsize
IMAGE_PIECE_BYTES: Final = 8 << 20
IMAGE_BYTES_MAX: Final = 1 << 30
PAGES_MAX: Final = 1024
ATTACHMENT_BYTES_MAX: Final = 8 << 20
_NAME_MAX: Final = 4096
_KEYS_MAX: Final = 4096
"""Of a map."""
_CHECKPOINT: Final = {
    "state_version": "int", "state_hash": "int", "state": "bytes", "frames": "bytes", "pages": "bytes",
}  # fmt: skip
CONTENTS_MAX: Final = CHUNK_BYTES_MAX // HEADER_BYTES
"""Chunks that a contents chunk can list; a longer tape has none."""
STOPS: Final = ("exit", "idle", "shutdown", "livelock", "freed", "steps", "interrupted")
"""Why a run may have ended."""
CUT_STOPS: Final = ("steps", "interrupted")
"""Those that say nothing about the run."""
OPEN_STOPS: Final = ("livelock", "freed", *CUT_STOPS)
"""Those after which the machine could have gone on."""

_U64_MAX: Final = (1 << 64) - 1
_CHOICES: Final = struct.Struct("<QII")  # state hash, record count, reserved
_PAGES: Final = struct.Struct("<II")  # number of the first page, count
_FLAGS: Final = {Op.RUN: HOLD | ROOM}
# What `check_choices` is to know of each op: it exists, it makes `arg` steps, which flags it may have.
_RULES: Final = bytes(
    1 | (op in (Op.RUN, Op.DRAIN)) << 1 | _FLAGS.get(Op(op), 0) << 2 if op in OP_NAMES else 0 for op in range(256)
)


@dataclass(frozen=True, kw_only=True)
class TapeHeader:
    """What was run, and on which machine. Fields as in the format's table."""

    format: int = FORMAT_VERSION
    platform: int = PLATFORM_PLAIN
    state_version: int = STATE_VERSION
    tool: str
    scenario: str
    variant: str
    configuration: str
    cpus: int
    ram_bytes: int
    store_buffer: int
    command_line: str
    image_bytes: int
    image_sha256: bytes
    ready_step: int
    events_first: int
    strategy: str
    seed: int

    @property
    def pc(self) -> bool:
        """Whether the machine was a PC."""
        return self.platform == PLATFORM_PC

    def check(self) -> None:
        """Raise FormatError if a field is out of the range that the format states."""
        _in_range("format", self.format, 1, FORMAT_VERSION)
        _in_range("platform", self.platform, 1, PLATFORM_VERSION)
        _in_range("state_version", self.state_version, 1, _U64_MAX)
        _in_range("cpus", self.cpus, 1, 8)
        _in_range("ram_bytes", self.ram_bytes, PAGE_BYTES, 3 << 30)
        _in_range("store_buffer", self.store_buffer, 1, 56)
        _in_range("image_bytes", self.image_bytes, 1, IMAGE_BYTES_MAX)
        _in_range("ready_step", self.ready_step, 0, _U64_MAX)
        _in_range("events_first", self.events_first, 0, self.ready_step)
        _in_range("seed", self.seed, 0, _U64_MAX)
        if self.pc and self.cpus != 1:
            raise FormatError("a PC has one CPU")
        if self.ram_bytes % PAGE_BYTES:
            raise FormatError("ram_bytes is not a multiple of 4096")
        if len(self.command_line.encode()) > 239:
            raise FormatError("command_line is longer than 239 bytes")
        if len(self.image_sha256) != 32:
            raise FormatError("image_sha256 does not have 32 bytes")


@dataclass(frozen=True, kw_only=True)
class TapeFooter:
    """How the run ended. Fields as in the format's table."""

    stop: str
    exit_status: int | None
    steps: int
    state_hash: int
    memory_hash: int
    events: int
    console_sha256: bytes

    def check(self) -> None:
        """Raise FormatError if a field is out of the range that the format states."""
        if self.stop not in STOPS:
            raise FormatError(f"unknown stop {self.stop!r}")
        if self.exit_status is not None:
            _in_range("exit_status", self.exit_status, 0, 0xFFFFFFFF)
        for name in ("steps", "state_hash", "memory_hash", "events"):
            _in_range(name, getattr(self, name), 0, _U64_MAX)
        if len(self.console_sha256) != 32:
            raise FormatError("console_sha256 does not have 32 bytes")


@dataclass(frozen=True, eq=False)
class Choices:
    """The exact choices of steps `first_step` to `end_step` - 1.

    `records` has dtype `RECORD`, shape (n,); `state_hash` is that of position `end_step`.
    """

    first_step: int
    end_step: int
    state_hash: int
    records: RecordArray


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The whole machine at position `step`.

    `state` is everything but RAM; `frames` and `pages`, uint32 of one shape (n,), say which page of the tape lies in
    which page frame; every other frame is all zero.
    """

    step: int
    state_version: int
    state_hash: int
    state: bytes
    frames: npt.NDArray[np.uint32]
    pages: npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that goes with a tape: `type` says what it is (`source`, `note`, ...), `name` which one."""

    name: str
    type: str
    data: bytes

    def check(self) -> None:
        """Raise FormatError if it does not fit into a chunk."""
        what = f"attachment {self.name[:80]!r}"
        if len(self.data) > ATTACHMENT_BYTES_MAX:
            raise FormatError(f"{what} is longer than {ATTACHMENT_BYTES_MAX} bytes")
        if len(self.name) > _NAME_MAX or len(self.type) > _NAME_MAX:
            raise FormatError(f"{what} has a name or type of more than {_NAME_MAX} characters")
        try:
            f"{self.name}{self.type}".encode()
        except UnicodeEncodeError:
            raise FormatError(f"{what} has a name or type that is no UTF-8") from None


def encode_attachment(attachment: Attachment) -> bytes:
    attachment.check()
    return zstd_pack(msgpack.packb(asdict(attachment)))


def decode_attachment(payload: bytes) -> Attachment:
    """Raises FormatError."""
    attachment = Attachment(**_typed(_unpack_map(zstd_unpack(payload), Attachment), Attachment))
    attachment.check()
    return attachment


def encode_header(header: TapeHeader) -> bytes:
    header.check()
    return bytes(msgpack.packb(asdict(header)))


def decode_header(payload: bytes) -> TapeHeader:
    """Raises FormatError; a newer format or platform is told apart by its message."""
    found = _unpack_map(payload, TapeHeader)
    for name, newest in (("format", FORMAT_VERSION), ("platform", PLATFORM_VERSION)):
        version = found.get(name)
        if isinstance(version, int) and version > newest:
            raise FormatError(f"{name} {version} is newer than this racetape, which knows {newest}; use a newer one")
    header = TapeHeader(**_typed(found, TapeHeader))
    header.check()
    return header


def encode_footer(footer: TapeFooter) -> bytes:
    footer.check()
    return bytes(msgpack.packb(asdict(footer)))


def decode_footer(payload: bytes) -> TapeFooter:
    footer = TapeFooter(**_typed(_unpack_map(payload, TapeFooter), TapeFooter))
    footer.check()
    return footer


def encode_choices(records: RecordArray, state_hash: int) -> bytes:
    assert records.dtype == RECORD
    assert 1 <= len(records) <= RECORDS_MAX
    return _CHOICES.pack(state_hash, len(records), 0) + zstd_pack(records.tobytes())


def decode_choices(payload: bytes, first_step: int, end_step: int, cpus: int, *, lenient: bool = False) -> Choices:
    """Raises FormatError. `lenient` lets records through that no recorder writes: what would a damaged tape do?"""
    if len(payload) < _CHOICES.size:
        raise FormatError("choices chunk is too short")
    state_hash, count, reserved = _CHOICES.unpack_from(payload)
    if count > RECORDS_MAX:
        raise FormatError(f"choices chunk claims {count} records")
    records = records_of(zstd_unpack(payload[_CHOICES.size :], count * RECORD.itemsize))
    if not lenient:
        if reserved or count == 0:
            raise FormatError("choices chunk has values out of range")
        check_records(records, first_step, end_step, cpus)
    return Choices(first_step, end_step, state_hash, records)


def check_records(records: RecordArray, first_step: int, end_step: int, cpus: int) -> None:
    """Raise FormatError unless `records` are choices of `cpus` CPUs that make exactly these steps."""
    span = end_step - first_step
    bad, high, low = _codec.check_choices(np.ascontiguousarray(records), _RULES, cpus, span)
    if bad >= 0:
        raise FormatError(f"choice {bad} of the chunk is no choice this machine can make")
    total = (high << 32) + low
    if total != span:
        raise FormatError(f"choices make {total} steps where the chunk covers {span}")


def encode_pages(page_first: int, pages: bytes | memoryview) -> bytes:
    count, rest = divmod(len(pages), PAGE_BYTES)
    assert rest == 0
    assert 1 <= count <= PAGES_MAX
    return _PAGES.pack(page_first, count) + zstd_pack(pages)


def pages_range(prefix: bytes) -> tuple[int, int]:
    """(number of the first page, count) from the first 8 bytes of a pages chunk. Raises FormatError."""
    if len(prefix) < _PAGES.size:
        raise FormatError("pages chunk is too short")
    first, count = _PAGES.unpack_from(prefix)
    if not 1 <= count <= PAGES_MAX:
        raise FormatError(f"pages chunk claims {count} pages")
    return first, count


def decode_pages(payload: bytes) -> tuple[int, bytes]:
    """(number of the first page, the pages one after the other). Raises FormatError."""
    first, count = pages_range(payload)
    return first, zstd_unpack(payload[_PAGES.size :], count * PAGE_BYTES)


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    assert len(checkpoint.frames) == len(checkpoint.pages)
    return zstd_pack(
        msgpack.packb(
            {
                "state_version": checkpoint.state_version,
                "state_hash": checkpoint.state_hash,
                "state": checkpoint.state,
                "frames": checkpoint.frames.astype("<u4").tobytes(),
                "pages": checkpoint.pages.astype("<u4").tobytes(),
            }
        )
    )


def decode_checkpoint(payload: bytes, step: int, frame_count: int) -> Checkpoint:
    """The checkpoint of a machine with `frame_count` page frames. Raises FormatError."""
    values = _typed(_unpack_map(zstd_unpack(payload), _CHECKPOINT), _CHECKPOINT)
    frames, pages = values["frames"], values["pages"]
    if len(frames) % 4 or len(frames) != len(pages):
        raise FormatError("checkpoint has a torn page table")
    _in_range("state_hash", values["state_hash"], 0, _U64_MAX)
    frame_numbers = np.frombuffer(frames, "<u4")
    if np.any(frame_numbers >= frame_count):
        raise FormatError("checkpoint has pages that are not RAM")
    return Checkpoint(
        step, values["state_version"], values["state_hash"], values["state"], frame_numbers,
        np.frombuffer(pages, "<u4"),
    )  # fmt: skip


_Wanted = type | Mapping[str, str]
"""The keys of a map and the types of their values, or a dataclass that has them as its fields."""


def _names(wanted: _Wanted) -> Mapping[str, str]:
    return wanted if isinstance(wanted, Mapping) else {f.name: str(f.type) for f in fields(wanted)}


def _unpack_map(payload: bytes, wanted: _Wanted) -> Mapping[Any, Any]:
    """The wanted keys of a map. Unknown ones are left out, as the compatibility rule says. Raises FormatError.

    What is not wanted is passed over, never built, and what is holds no lists or maps: an empty list of one byte would
    become an object of sixty-four.
    """
    names = _names(wanted)
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(payload), 1), max_array_len=0, max_map_len=0)
    unpacker.feed(payload)
    found = {}
    try:
        count = unpacker.read_map_header()
        if count > _KEYS_MAX:
            raise FormatError(f"a map of {count} keys")
        for _ in range(count):
            key = unpacker.unpack()
            if key in names:
                found[key] = unpacker.unpack()
            else:
                unpacker.skip()
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise FormatError(f"no msgpack map: {error}") from None
    if unpacker.tell() != len(payload):
        raise FormatError("no msgpack map: more follows")
    return found


_TYPES: Final = {"int": (int,), "str": (str,), "bytes": (bytes,), "int | None": (int, type(None))}


def _typed(found: Mapping[Any, Any], wanted: _Wanted) -> dict[str, Any]:
    """The wanted keys of a map, types checked."""
    names = _names(wanted)
    for name, kind in names.items():
        value = found.get(name)
        if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
            raise FormatError(f"`{name}` is missing or no {kind}")
    return {name: found.get(name) for name in names}


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise FormatError(f"{name} is {value}, not {low} to {high}")
