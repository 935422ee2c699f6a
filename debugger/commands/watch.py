"""Watched places: what `continue` and `reverse-continue` stop at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debugger.commands.arguments import complete_symbol, nothing
from debugger.registry import REGISTRY
from debugger.state import Watch
from machine.errors import UsageError

if TYPE_CHECKING:
    from debugger.session import Session

TOPIC = "Watching memory"
WATCH_BYTES_MAX = 4096


def value_text(value: int, watch: Watch) -> str:
    """A watched value: a number where the type is one, the first bytes in memory order of anything larger."""
    size = watch.lvalue.size_bytes
    if size in (1, 2, 4, 8):
        return str(value)
    data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    return data[:16].hex(" ") + (" ..." if size > 16 else "")


@REGISTRY.command(
    "watch", arguments="EXPRESSION", shortest="wa", topic=TOPIC, complete=complete_symbol,
    examples=("watch contig_page_data.node_zones[0].vm_stat[NR_ISOLATED_FILE]", "watch *(int *)0xc0201000"),
)  # fmt: skip
def watch_(session: Session, arguments: str) -> str:
    """Stop at every write to the place in memory that a C expression names now.
    The place is fixed: it is the physical memory that the expression names at this moment, from any CPU."""
    lvalue = session.symbols.lvalue(arguments, session.registers())
    if lvalue.size_bytes > WATCH_BYTES_MAX:
        raise UsageError(f"watch: '{arguments}' has {lvalue.size_bytes} bytes, more than {WATCH_BYTES_MAX}")
    translate = session.timeline.machine.translate
    phys = translate(session.cpu, lvalue.address)
    last = lvalue.address + lvalue.size_bytes - 1
    if phys < 0:
        raise UsageError(f"watch: {lvalue.address:#x} is not mapped at @{session.timeline.step}")
    if phys + lvalue.size_bytes > session.tape.header.ram_bytes:
        raise UsageError(f"watch: {lvalue.address:#x} is no RAM at @{session.timeline.step}; 'seek ready' comes first")
    if translate(session.cpu, last) != phys + lvalue.size_bytes - 1:
        raise UsageError(f"watch: '{arguments}' crosses pages that do not lie side by side; watch a part of it")
    watch = Watch(session.watch_next, lvalue, phys)
    session.watch_next += 1
    session.watches.append(watch)
    return f"Watch {watch.number}: {arguments} ({lvalue.size_bytes} bytes at {lvalue.address:#x}), now " + value_text(
        session.watch_value(watch), watch
    )


@REGISTRY.command(
    "info watch", shortest="i w", aliases=("info watchpoints", "info breakpoints"), topic=TOPIC,
    examples=("info watch",),
)  # fmt: skip
def info_watch(session: Session, arguments: str) -> str:
    """List the watches with their hits."""
    nothing(arguments, "info watch")
    if not session.watches:
        return "Nothing is watched."
    rows = [
        f"{row.number:<4} {row.lvalue.address:#010x} {row.lvalue.size_bytes:>4}  {row.hits:>4}  {row.lvalue.text}"
        f" = {value_text(session.watch_value(row), row)}"
        for row in session.watches
    ]
    return "\n".join(["Num  Address    Size  Hits  What", *rows])


@REGISTRY.command(
    "delete", arguments="[NUMBER ...]", shortest="d", topic=TOPIC, examples=("delete 1", "delete"),
    complete=lambda session, _word: (str(row.number) for row in session.watches),
)  # fmt: skip
def delete(session: Session, arguments: str) -> str:
    """Delete watches by number, or all of them."""
    words = arguments.split()
    known = {str(row.number) for row in session.watches}
    unknown = [word for word in words if word not in known]
    if unknown:
        raise UsageError(f"there is no watch {unknown[0]}")
    session.watches = [row for row in session.watches if words and str(row.number) not in words]
    return ""
