"""What can be asked in SQL: every view with its columns. The one place; docs/sql.md is compared with it by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from debugger.sql import makers
from debugger.sql.makers import AD_UPDATE, DRAIN, FAULT, LOAD, STORE, TLB_EVICT, TLB_FILL, TLB_INVALIDATE, TRACE, WALK
from traces.schema import DEVICE, DRAINED, FORWARDED, IMPLICIT, KIND_NAMES, LOCKED, MERGED, BoolArray

if TYPE_CHECKING:
    from debugger.sql.rows import Rows

WORD: Final = pa.dictionary(pa.int32(), pa.string())
"""Of columns with few different texts: each is handed over once a chunk, and rows as numbers."""
I64, U64, I32, U8, BOOL = pa.int64(), pa.uint64(), pa.int32(), pa.uint8(), pa.bool_()
_SQL_TYPES: Final = {I64: "BIGINT", U64: "UBIGINT", I32: "INTEGER", U8: "UTINYINT", BOOL: "BOOLEAN", WORD: "VARCHAR"}


@dataclass(frozen=True)
class Column:
    """One column of a view.

    Attributes:
        name: in SQL.
        type: of Arrow.
        unit: "step", "address", "bytes", "name", ...; "-" where there is none.
        meaning: says when it is NULL, if it can be.
        make: the values of some rows.
        raw: name of the event column that it is, unchanged; "" if it is none. Predicates on it skip chunks.
        of: name of the event column that alone decides it, "pc" or "kind"; "" if there is none.
        names: name of the event column whose addresses it names; "" if it is no such name.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    make: makers.Make
    raw: str = ""
    of: str = ""
    names: str = ""

    @property
    def sql_type(self) -> str:
        """DuckDB's name of the type."""
        return _SQL_TYPES[self.type]


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        meaning: what a row is.
        columns: in order.
        kinds: numbers of the event kinds that rows are made from.
        select: which of the events of these kinds are rows; None: all.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    kinds: tuple[int, ...]
    select: Callable[[Rows], BoolArray] | None = None

    @property
    def schema(self) -> pa.Schema:
        """Of Arrow."""
        return pa.schema([(row.name, row.type) for row in self.columns])

    def column(self, name: str) -> Column:
        """The column of that name, which exists."""
        return next(row for row in self.columns if row.name == name)


def _raw(name: str, of: str, type_: pa.DataType, unit: str, meaning: str) -> Column:
    return Column(name, type_, unit, meaning, makers.raw(of), raw=of)


def _word(name: str, meaning: str, make: makers.Make, of: str = "", names: str = "", unit: str = "name") -> Column:
    return Column(name, WORD, unit, meaning, make, of=of, names=names)


def _flag(name: str, bit: int, meaning: str) -> Column:
    return Column(name, BOOL, "-", meaning, makers.flag(bit))


_STEP = Column("step", I64, "step", "The step; `seek @step` goes to the moment before it.", makers.step, raw="step")
_WHEN = (
    _STEP,
    Column("ordinal", I32, "-", "Which event of its step it is, from 0: (step, ordinal) is unique.", makers.ordinal),
    _raw("cpu", "cpu", U8, "-", "The CPU."),
)
_PC = "Linear address of the instruction; for a drain, of the one that issued the store."
_PC_COLUMN = Column("pc", U64, "address", _PC, makers.raw("pc"), raw="pc", of="pc")
_PLACE = (
    _word("file", "Source file, relative to the guest's root. NULL where unknown.", makers.file, "pc", unit="path"),
    Column("line", I32, "line", "Line in that file. NULL where unknown.", makers.line, of="pc"),
)
_WHERE = (
    _PC_COLUMN,
    _word("function", "Innermost function at pc; it may be inlined. NULL outside of the image.", makers.function, "pc"),
    _word(
        "outer_function",
        "The function in whose code pc lies: `function`, or what that is inlined into. NULL outside of the image.",
        makers.outer_function,
        "pc",
    ),
    *_PLACE,
)
_HEAD = (*_WHEN, *_WHERE)

_SYMBOL = (
    "What C calls the place at addr, by the size of the access: "
    "`contig_page_data.node_zones[1].vm_stat[NR_FREE_PAGES]`. NULL outside of the image."
)
_VALUE = _raw("value", "value", U64, "-", "The value, as an unsigned number.")
_ACCESS = (
    _raw("addr", "addr", U64, "address", "Linear address."),
    _raw("phys", "phys", U64, "address", "Physical address."),
    _word("symbol", _SYMBOL, makers.symbol, names="addr"),
    _raw("size", "size", U8, "bytes", "How much is accessed."),
    _VALUE,
    Column("signed", I64, "-", "The value, taken for a signed number of `size` bytes.", makers.signed),
)
_LOCKED = _flag("locked", LOCKED, "By a locked instruction.")
_DEVICE = _flag("device", DEVICE, "Of a device (the local APIC), not of RAM.")
_IMPLICIT = _flag("implicit", IMPLICIT, "By the CPU itself, as for interrupt frames and descriptors.")

_BY_KIND = "or what machine/core/event.def says for the kind."

VIEWS: Final = (
    View(
        "events",
        "Everything: one row per event, as machine/core/event.def defines it.",
        (
            *_WHEN,
            _word("kind", "What happened: `load`, `store`, `drain`, ...", makers.kind, "kind"),
            *_WHERE,
            _raw("addr", "addr", U64, "address", f"Linear address, {_BY_KIND}"),
            _raw("phys", "phys", U64, "address", f"Physical address, {_BY_KIND}"),
            _word("symbol", "As in `loads`. NULL unless it is a load, store or drain.", makers.symbol, names="addr"),
            _raw("size", "size", U8, "bytes", "How much is accessed; for tlb_fill log2 of the page size."),
            _VALUE,
            _raw("info", "info", U8, "-", f"Flags, {_BY_KIND}"),
            _word("tracepoint", "Name of the tracepoint. NULL unless it is a trace.", makers.tracepoint),
        ),
        tuple(KIND_NAMES),
    ),
    View(
        "loads",
        "Data reads: one row per load.",
        (
            *_HEAD,
            *_ACCESS,
            _flag("forwarded", FORWARDED, "All of it came from the CPU's own store buffer."),
            _flag("merged", MERGED, "Some of it came from the CPU's own store buffer, the rest from memory."),
            _LOCKED,
            _DEVICE,
            _IMPLICIT,
        ),
        (LOAD,),
    ),
    View(
        "stores",
        "Data writes, at the step at which they are issued: one row per store.",
        (
            *_HEAD,
            *_ACCESS,
            _flag("drained", DRAINED, "It reaches memory in this very step; else a row of `drains` comes later."),
            _LOCKED,
            _DEVICE,
            _IMPLICIT,
        ),
        (STORE,),
    ),
    View(
        "drains",
        "Held stores that reach memory, and so the other CPUs, at this step: one row per drain.",
        (*_HEAD, *_ACCESS),
        (DRAIN,),
    ),
    View(
        "walks",
        "Page walks: one row per entry read, and one per entry whose accessed or dirty bit is set.",
        (
            *_HEAD,
            _word("action", "`read`, or `update` of the accessed and dirty bits.", makers.walk_action, "kind"),
            _raw("addr", "addr", U64, "address", "Linear address that is translated."),
            _raw("entry_phys", "phys", U64, "address", "Physical address of the entry."),
            _raw("entry", "value", U64, "-", "The entry; for an update, what it is now."),
            Column("level", U8, "-", "1 table, 2 directory, 3 pointers, 4 PML4.", makers.level),
            Column(
                "forwarded",
                BOOL,
                "-",
                "The entry came from the CPU's own store buffer. NULL for an update.",
                makers.walk_flag(FORWARDED),
            ),
            Column("merged", BOOL, "-", "Part of it came from there. NULL for an update.", makers.walk_flag(MERGED)),
        ),
        (WALK, AD_UPDATE),
    ),
    View(
        "tlb",
        "Translations that come into a TLB and leave it: one row per tlb_fill, tlb_evict and tlb_invalidate.",
        (
            *_HEAD,
            _word(
                "action",
                "`fill`; `evict`: dropped by replacement or by the schedule; `invalidate`: dropped by the guest.",
                makers.tlb_action,
                "kind",
            ),
            _raw("addr", "addr", U64, "address", "Linear address of the page; 0 if scope is not `page`."),
            Column("phys", U64, "address", "Physical address. NULL unless it is a fill.", makers.of_fill("phys")),
            Column("flags", U64, "-", "Flags of the entry. NULL unless it is a fill.", makers.of_fill("value")),
            Column("page_bytes", I64, "bytes", "Size of the page. NULL unless it is a fill.", makers.page_bytes),
            _word("scope", "`page`, `all but global` or `all`. NULL unless it is an invalidate.", makers.scope),
        ),
        (TLB_FILL, TLB_EVICT, TLB_INVALIDATE),
    ),
    View(
        "faults",
        "Exceptions that a CPU raises: one row per fault.",
        (
            *_HEAD,
            _raw("vector", "info", U8, "-", "Number of the exception."),
            _word("exception", "Its name in the manual: `#PF`. NULL where there is none.", makers.exception),
            _raw("error_code", "value", U64, "-", "The error code; 0 for exceptions without one."),
            Column("addr", U64, "address", "The address that faulted (CR2). NULL unless it is #PF.", makers.fault_addr),
        ),
        (FAULT,),
    ),
    View(
        "switches",
        "Context switches: one row per tracepoint `sched_switch`.",
        (
            *_HEAD,
            _raw("previous", "value", U64, "address", "The `struct task_struct` that has run until now."),
            _raw("next", "addr", U64, "address", "The one that runs from now on."),
        ),
        (TRACE,),
        makers.is_tracepoint("sched_switch"),
    ),
    View(
        "locks",
        "Locks taken and let go: one row per tracepoint `lock_acquire` and `lock_release`.",
        (
            *_HEAD,
            _word("action", "`acquire`: it is held now; `release`: it is about to be let go.", makers.lock_action),
            _raw("lock", "value", U64, "address", "Linear address of the lock."),
            _word("symbol", "What C calls it. NULL outside of the image.", makers.lock_symbol, names="value"),
        ),
        (TRACE,),
        makers.is_tracepoint("lock_acquire", "lock_release"),
    ),
    View(
        "calls",
        "Function calls: one row per near CALL of the image's code, at the step at which it stores its return address.",
        (
            *_WHEN,
            _PC_COLUMN,
            _word("caller", "The function that calls, innermost; it may be inlined.", makers.function, "pc"),
            _word("outer_caller", "The function in whose code the CALL is.", makers.outer_function, "pc"),
            *_PLACE,
            _word(
                "callee",
                "The function called. Of an indirect call, the one in which the CPU has its next event. NULL if that "
                "is outside of the image, or the tape ends before.",
                makers.callee,
            ),
            Column(
                "callee_address",
                U64,
                "address",
                "Where it begins; of an indirect call, where the function of that name begins. NULL where unknown.",
                makers.callee_address,
            ),
            Column("direct", BOOL, "-", "The instruction says where it goes.", makers.direct, of="pc"),
            _raw("return_address", "value", U64, "address", "Where it is to return to."),
            _raw("stack", "addr", U64, "address", "Linear address where that is stored: one more level is lower."),
        ),
        (STORE,),
        makers.is_call,
    ),
    View(
        "ghosts",
        "True counts of what zones count, and the counters beside them: one row per tracepoint `ghost` and `vmstat`.",
        (
            *_HEAD,
            _word(
                "action",
                "`announce`: the true count changes, the counter has yet to; `check`: the counter is up to date again.",
                makers.ghost_action,
            ),
            _word("item", "The item of `enum zone_stat_item`.", makers.item),
            _word("zone", "The zone: that the page belongs to, or that is checked. NULL if unknown.", makers.zone),
            Column("page", U64, "address", "The `struct page`. NULL for a check.", makers.page),
            Column("delta", I64, "-", "By how much the true count changes. NULL for a check.", makers.delta),
            Column(
                "counter",
                I64,
                "-",
                "What the zone's counter will hold once all store buffers have drained, without what other tasks "
                "have announced or not yet finished. NULL for an announcement and before `ready`.",
                makers.counter,
            ),
            Column(
                "true_count",
                I64,
                "-",
                "What it should hold. NULL for an announcement and before `ready`.",
                makers.true_count,
            ),
        ),
        (TRACE,),
        makers.is_tracepoint("ghost", "vmstat"),
    ),
)

POSITIONS: Final = frozenset(row.name for view in VIEWS for row in view.columns if row.unit == "step")
ADDRESSES: Final = frozenset(row.name for view in VIEWS for row in view.columns if row.unit == "address")
"""Names of columns that people see as `@step` and in hexadecimal."""

FUNCTIONS: Final = {
    "address_of('PLACE')": "Linear address of a place that C names: `mem_map`, `vm_stat[NR_FREE_PAGES]`.",
    "size_of('PLACE')": "Its size in bytes.",
    "inside(ADDRESS, 'PLACE')": "Whether an address lies in that place.",
}
"""What there is beside DuckDB's own functions, and what it gives."""
