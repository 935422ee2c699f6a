"""Event kinds, plan ops and column types in Python. Every number comes from the core; none is written down again."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from machine import _core

FORMAT_VERSION: Final = 5
"""Of the tape, docs/tape-format.md."""
PLATFORM_PLAIN: Final = 1
"""The platform contract, docs/platform.md, without a PC's devices."""
PLATFORM_PC: Final = 2
"""With them."""
PLATFORM_VERSION: Final = PLATFORM_PC
"""The highest one there is."""

U64Array = npt.NDArray[np.uint64]
U8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
RecordArray = np.ndarray[Any, np.dtype[np.void]]
"""Array of plan records, dtype `RECORD`."""

KINDS: Final[dict[str, int]] = dict(_core.EVENT_KINDS)
"""Event kind name -> number."""
KIND_NAMES: Final[dict[int, str]] = {number: name for name, number in KINDS.items()}

LOAD: Final = KINDS["load"]
STORE: Final = KINDS["store"]
DRAIN: Final = KINDS["drain"]
AD_UPDATE: Final = KINDS["ad_update"]

FORWARDED: Final = _core.EVENT_FORWARDED
MERGED: Final = _core.EVENT_MERGED
LOCKED: Final = _core.EVENT_LOCKED
DRAINED: Final = _core.EVENT_DRAINED
DEVICE: Final = _core.EVENT_DEVICE
IMPLICIT: Final = _core.EVENT_IMPLICIT

COLUMNS: Final[tuple[tuple[str, str], ...]] = (
    ("step", "<u8"),
    ("pc", "<u8"),
    ("addr", "<u8"),
    ("phys", "<u8"),
    ("value", "<u8"),
    ("kind", "u1"),
    ("cpu", "u1"),
    ("size", "u1"),
    ("info", "u1"),
)
"""(name, dtype) of the event columns in the order of the tape and of `Machine.events`."""

RECORD: Final = np.dtype([("op", "u1"), ("cpu", "u1"), ("flags", "<u2"), ("reserved", "<u4"), ("arg", "<u8")])
"""One record of a plan, as `Machine.execute` takes it and `Machine.choices_take` gives it (16 bytes)."""


class Op(IntEnum):
    """What a plan record does: see `machine/_core.pyi`."""

    RUN = _core.RUN
    DRAIN = _core.DRAIN
    IRQ = _core.IRQ
    CHOICE = _core.CHOICE
    EVICT = _core.EVICT
    AUTO = _core.AUTO
    PICK = _core.PICK
    STEP = _core.STEP


HOLD: Final = _core.HOLD
ROOM: Final = _core.ROOM
ON: Final = _core.ON
STATE_VERSION: Final = _core.STATE_VERSION

OP_NAMES: Final[dict[int, str]] = {int(op): op.name.lower() for op in Op if op not in (Op.AUTO, Op.PICK, Op.STEP)}
"""Ops that a tape may hold. AUTO, PICK and STEP are not among them: what they did is written out."""


def records_of(data: bytes) -> RecordArray:
    """The records in `data`, read-only, shape (len(data) / 16,), dtype `RECORD`."""
    return np.frombuffer(data, RECORD)


def step_counts(records: RecordArray) -> U64Array:
    """Steps that each record makes: `arg` for RUN and DRAIN, 1 for the others. Shape (len(records),), uint64."""
    op = records["op"]
    return np.where((op == Op.RUN) | (op == Op.DRAIN), records["arg"], np.uint64(1)).astype(np.uint64)


def describe_record(record: np.void) -> str:
    """One record as people write it, e.g. `cpu0 x1532`, `cpu0 x3 hold room`, `drain cpu1 x2`, `irq cpu0 32`."""
    op, cpu, arg = int(record["op"]), int(record["cpu"]), int(record["arg"])
    if op == Op.RUN:
        flags = int(record["flags"])
        return f"cpu{cpu} x{arg}" + (" hold" if flags & HOLD else "") + (" room" if flags & ROOM else "")
    if op == Op.DRAIN:
        return f"drain cpu{cpu}" + (f" x{arg}" if arg != 1 else "")
    if op == Op.EVICT:
        return f"evict cpu{cpu} {arg:#x}"
    return f"{OP_NAMES.get(op, f'op {op}')} cpu{cpu} {arg}"
