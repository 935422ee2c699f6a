"""How the columns of views are made out of event columns. Each function takes rows and gives a pyarrow array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from traces.schema import KIND_NAMES, KINDS, BoolArray, U64Array

if TYPE_CHECKING:
    from debugger.sql.rows import Rows

Make = Callable[["Rows"], pa.Array]

LOAD, STORE, DRAIN, TRACE = (KINDS[name] for name in ("load", "store", "drain", "trace"))
WALK, AD_UPDATE = KINDS["walk"], KINDS["ad_update"]
TLB_FILL, TLB_EVICT, TLB_INVALIDATE = (KINDS[name] for name in ("tlb_fill", "tlb_evict", "tlb_invalidate"))
FAULT: Final = KINDS["fault"]

_KIND_WORDS: Final = pa.array([KIND_NAMES.get(number, "") for number in range(max(KIND_NAMES) + 1)], pa.string())
_VECTORS: Final = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
    12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM",
}  # fmt: skip
_PAGE_FAULT: Final = 14
_SCOPES: Final = {0: "page", 1: "all but global", 2: "all"}
_LOCK_ACTIONS: Final = {"lock_acquire": "acquire", "lock_release": "release"}
_LOCK_BYTES: Final = 4


def words(numbers: npt.NDArray[Any], texts: Mapping[int, str]) -> pa.Array:
    """A column of the texts of numbers below 256; NULL for numbers that have none."""
    table = np.full(256, -1, np.int32)
    table[list(texts)] = np.arange(len(texts))
    index = table[numbers]
    return pa.DictionaryArray.from_arrays(pa.array(index, mask=index < 0), pa.array(list(texts.values()), pa.string()))


def raw(name: str) -> Make:
    """An event column as it is."""
    return lambda rows: pa.array(rows.raw(name))


def step(rows: Rows) -> pa.Array:
    """Steps are far below 2^63, and differences of unsigned numbers are no fun in SQL."""
    return pa.array(rows.raw("step").view(np.int64))


def ordinal(rows: Rows) -> pa.Array:
    return pa.array(rows.ordinals())


def kind(rows: Rows) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(rows.raw("kind").astype(np.int32)), _KIND_WORDS)


def function(rows: Rows) -> pa.Array:
    return rows.context.names.functions(rows.raw("pc"))


def outer_function(rows: Rows) -> pa.Array:
    return rows.context.names.outers(rows.raw("pc"))


def file(rows: Rows) -> pa.Array:
    return rows.context.names.files(rows.raw("pc"))


def line(rows: Rows) -> pa.Array:
    return rows.context.names.lines(rows.raw("pc"))


def symbol(rows: Rows) -> pa.Array:
    data = np.isin(rows.raw("kind"), (LOAD, STORE, DRAIN))
    address: U64Array = np.where(data, rows.raw("addr"), np.uint64(0))
    return rows.context.names.symbols_of(address, rows.raw("size"))


def signed(rows: Rows) -> pa.Array:
    size = np.clip(rows.raw("size"), 1, 8).astype(np.uint64)
    shift = np.uint64(64) - size * np.uint64(8)
    return pa.array((rows.raw("value") << shift).view(np.int64) >> shift.view(np.int64))


def flag(bit: int) -> Make:
    """Whether a bit of info is set."""
    return lambda rows: pa.array((rows.raw("info") & np.uint8(bit)) != 0)


def walk_flag(bit: int) -> Make:
    """Whether a bit of a walk's flags is set; NULL for an update."""
    return lambda rows: _where(rows, WALK, (rows.raw("info") >> np.uint8(4) & np.uint8(bit)) != 0)


def walk_action(rows: Rows) -> pa.Array:
    return words(rows.raw("kind"), {WALK: "read", AD_UPDATE: "update"})


def level(rows: Rows) -> pa.Array:
    return pa.array(rows.raw("info") & np.uint8(15))


def tlb_action(rows: Rows) -> pa.Array:
    return words(rows.raw("kind"), {TLB_FILL: "fill", TLB_EVICT: "evict", TLB_INVALIDATE: "invalidate"})


def of_fill(name: str) -> Make:
    """An event column of fills, else NULL."""
    return lambda rows: _where(rows, TLB_FILL, rows.raw(name))


def page_bytes(rows: Rows) -> pa.Array:
    return _where(rows, TLB_FILL, np.int64(1) << np.minimum(rows.raw("size"), 62).astype(np.int64))


def scope(rows: Rows) -> pa.Array:
    return words(np.where(rows.raw("kind") == TLB_INVALIDATE, rows.raw("info"), np.uint8(255)), _SCOPES)


def exception(rows: Rows) -> pa.Array:
    return words(rows.raw("info"), _VECTORS)


def fault_addr(rows: Rows) -> pa.Array:
    return pa.array(rows.raw("addr"), mask=rows.raw("info") != _PAGE_FAULT)


def tracepoint(rows: Rows) -> pa.Array:
    identifiers: U64Array = np.where(rows.raw("kind") == TRACE, rows.raw("phys"), np.uint64(0))
    return rows.context.tracepoint_names(identifiers)


def lock_action(rows: Rows) -> pa.Array:
    return rows.context.tracepoint_names(rows.raw("phys"), _LOCK_ACTIONS)


def lock_symbol(rows: Rows) -> pa.Array:
    return rows.context.names.symbols_of(rows.raw("value"), np.full(len(rows), _LOCK_BYTES, np.uint8))


def is_tracepoint(*names: str) -> Callable[[Rows], BoolArray]:
    """Which trace events are of one of these tracepoints."""
    return lambda rows: rows.context.is_tracepoint(rows.raw("phys"), names)


def _where(rows: Rows, kind: int, values: npt.NDArray[Any]) -> pa.Array:
    """`values` for events of that kind, NULL for others."""
    return pa.array(values, mask=rows.raw("kind") != kind)
