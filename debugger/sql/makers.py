"""How the columns of views are made out of event columns. Each function takes rows and gives a pyarrow array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from debugger.sql.ghosts import ITEM_SHIFT
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
_GHOST_ACTIONS: Final = {"ghost": "announce", "vmstat": "check"}


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


def is_call(rows: Rows) -> BoolArray:
    """Which stores are those of a CALL's return address."""
    return rows.context.names.calls(rows.raw("pc"), rows.raw("value"))


def callee(rows: Rows) -> pa.Array:
    names = [row[0] for row in _callees(rows)]
    return pa.array(names, pa.string()).dictionary_encode()


def callee_address(rows: Rows) -> pa.Array:
    return pa.array([row[1] for row in _callees(rows)], pa.uint64())


def direct(rows: Rows) -> pa.Array:
    return pa.array([target is not None for target in rows.context.names.targets(rows.raw("pc"))], pa.bool_())


def _callees(rows: Rows) -> list[tuple[str | None, int | None]]:
    """(name, address) of the functions that CALLs go to."""
    names = rows.context.names
    targets = names.targets(rows.raw("pc"))
    indirect = [index for index, target in enumerate(targets) if target is None]
    found: list[tuple[str | None, int | None]] = [(None, target) for target in targets]
    for index, pc in zip(indirect, _next_pcs(rows, indirect), strict=True):
        # Where the CPU goes on is in the function that was called, mostly behind its first instruction.
        found[index] = (None, None) if pc is None else names.function_at(pc) or (None, pc)
    for index, target in enumerate(targets):
        if target is not None and (function := names.function_at(target)) is not None:
            found[index] = function[0], target
    return found


def _next_pcs(rows: Rows, chosen: list[int]) -> list[int | None]:
    """For some of the rows, where their CPU is at its next event of a later step that is no drain."""
    events = rows.events
    steps, cpus = rows.raw("step"), rows.raw("cpu")
    own = {cpu: np.flatnonzero((events.cpu == cpu) & (events.kind != DRAIN)) for cpu in set(cpus[chosen].tolist())}
    found: list[int | None] = []
    for index in chosen:
        cpu = int(cpus[index])
        at = int(np.searchsorted(events.step[own[cpu]], steps[index], side="right"))
        found.append(int(events.pc[own[cpu][at]]) if at < len(own[cpu]) else rows.behind(cpu))
    return found


def ghost_action(rows: Rows) -> pa.Array:
    return rows.context.tracepoint_names(rows.raw("phys"), _GHOST_ACTIONS)


def item(rows: Rows) -> pa.Array:
    return words(_items(rows).astype(np.uint8), rows.context.names.zone_items)


def zone(rows: Rows) -> pa.Array:
    ghosts, is_check = rows.context.ghosts, _is_check(rows)
    value = rows.raw("value")
    index = np.full(len(rows), -1, np.int64)
    index[is_check] = ghosts.zones_at(value[is_check])
    index[~is_check] = ghosts.zones_of_pages(value[~is_check])
    names = pa.array(ghosts.zone_names(), pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32), mask=index < 0), names)


def page(rows: Rows) -> pa.Array:
    return pa.array(rows.raw("value"), mask=_is_check(rows))


def delta(rows: Rows) -> pa.Array:
    low = rows.raw("addr").astype(np.int64) & np.int64((1 << ITEM_SHIFT) - 1)
    top = np.int64(1 << ITEM_SHIFT - 1)
    return pa.array((low ^ top) - top, mask=_is_check(rows))


def counter(rows: Rows) -> pa.Array:
    return _checked(rows, "value")


def true_count(rows: Rows) -> pa.Array:
    return _checked(rows, "expected")


def _checked(rows: Rows, column: str) -> pa.Array:
    checks = rows.context.ghosts.checks()
    found = np.where(_is_check(rows), checks.find(rows.raw("step"), _items(rows)), -1)
    values = np.append(getattr(checks, column), np.int64(0))
    return pa.array(values[found], mask=found < 0)


def _is_check(rows: Rows) -> BoolArray:
    return rows.context.is_tracepoint(rows.raw("phys"), ("vmstat",))


def _items(rows: Rows) -> U64Array:
    addr = rows.raw("addr")
    shifted: U64Array = addr >> np.uint64(ITEM_SHIFT)
    return np.where(_is_check(rows), addr, shifted)


def is_tracepoint(*names: str) -> Callable[[Rows], BoolArray]:
    """Which trace events are of one of these tracepoints."""
    return lambda rows: rows.context.is_tracepoint(rows.raw("phys"), names)


def _where(rows: Rows, kind: int, values: npt.NDArray[Any]) -> pa.Array:
    """`values` for events of that kind, NULL for others."""
    return pa.array(values, mask=rows.raw("kind") != kind)
