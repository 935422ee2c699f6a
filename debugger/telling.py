"""Events in words, the same wherever they are shown."""

from __future__ import annotations

from typing import Any

import drgn

from debugger.frames import outside_headers
from machine.errors import ExpressionError
from machine.symbols import Symbols
from traces import Event


def place_text(symbols: Symbols, pc: int) -> str:
    """An instruction's place: `acct_isolated () at mm/compaction.c:231 [atomic_add]`, helpers in brackets."""
    frames = symbols.frames(pc)
    row = outside_headers(frames)
    text = f"{row.function} () at {row.place}" if row.place else f"{row.function} ()"
    return text if row is frames[0] else f"{text} [{frames[0].function}]"


def event_text(symbols: Symbols, row: Event) -> str:
    """One event as one line: step, CPU, kind, place in memory, value, code."""
    if row.name == "trace":
        what = trace_text(symbols, row)
    elif row.name in ("load", "store", "drain"):
        what = f"{symbols.symbolise(row.addr, row.size)} = {row.value:#x} ({row.size} bytes)"
    elif row.name == "fault":
        # What `addr` is depends on the vector (machine/core/event.def).
        more = {6: f", opcode bytes {row.addr:#x}", 14: f", CR2 {row.addr:#x}"}.get(row.info, "")
        what = f"vector {row.info}, error code {row.value:#x}{more}"
    elif row.name == "ipi":
        what = f"vector {row.info} to cpu{row.addr}"
    elif row.name in ("interrupt", "soft_interrupt"):
        what = f"vector {row.info}"
    else:
        what = f"addr {row.addr:#x} value {row.value:#x}"
    return f"@{row.step} cpu{row.cpu} {row.name:<9} {what}  by {place_text(symbols, row.pc)}"


def event_json(symbols: Symbols, row: Event) -> dict[str, Any]:
    """One event as data: its columns, and what they are called."""
    frame = outside_headers(symbols.frames(row.pc))
    found: dict[str, Any] = {
        "step": row.step,
        "cpu": row.cpu,
        "kind": row.name,
        "function": frame.function,
        "file": frame.file,
        "line": frame.line,
    }
    if row.name in ("load", "store", "drain"):
        found["symbol"] = symbols.symbolise(row.addr, row.size)
    if row.name == "trace":
        found["text"] = trace_text(symbols, row)
    return found | {
        "pc": row.pc, "addr": row.addr, "phys": row.phys, "value": row.value, "size": row.size, "info": row.info,
    }  # fmt: skip


def trace_text(symbols: Symbols, row: Event) -> str:
    """A tracepoint with its two arguments, in words where docs/platform.md says what they are."""
    name = symbols.tracepoints().get(row.phys, str(row.phys))
    try:
        if name == "sched_switch":
            before, after = (
                f'"{_text(symbols, f"((struct task_struct *){at})->comm")}"' for at in (row.value, row.addr)
            )
            return f"{name} {before} -> {after}"
        if name in ("ghost", "vmstat"):
            items = {value: item for item, value in symbols.enumerators("zone_stat_item").items()}
            item = row.addr >> 24 if name == "ghost" else row.addr
            if name == "vmstat":
                zone = _text(symbols, f"((struct zone *){row.value})->name")
                return f"{name} zone {zone} {items.get(item, item)}"
            delta = row.addr & 0xFFFFFF
            signed = delta - (1 << 24) if delta & 0x800000 else delta
            return f"{name} page {row.value:#x} {items.get(item, item)} {signed:+}"
    except ExpressionError:
        pass
    return f"{name} {symbols.symbolise(row.value)} {symbols.symbolise(row.addr)}"


def _text(symbols: Symbols, expression: str) -> str:
    """The characters that a C string or character array holds. Raises ExpressionError."""
    try:
        return str(symbols.evaluate(expression).string_().decode("ascii", "replace"))
    except (drgn.FaultError, TypeError) as error:
        raise ExpressionError(str(error)) from error
