"""Moving in time: steps, runs to watched writes, seeking, and the history of positions.

Positions are as gdb has them: after `continue` just behind the writing step; after `reverse-continue` just before it,
so the write is undone and the program counter stands on the writing instruction. A step is the machine's atom of
time, whichever CPU takes it; so `reverse-stepi` then `stepi` leads back to the same state with any number of CPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from debugger.commands.arguments import complete_position, count_of, nothing
from debugger.commands.watch import value_text
from debugger.registry import REGISTRY
from debugger.state import Hit, Stop
from machine.errors import UsageError

if TYPE_CHECKING:
    from debugger.session import Session

TOPIC = "Moving in time"
AT_END = "the end of the tape"
AT_START = "the start of the tape"


def _follow(session: Session, step: int) -> None:
    """Select the CPU that takes `step`."""
    session.select(session.timeline.cpu_of(step))


def _show_next(session: Session) -> None:
    """Select the CPU that takes the step that comes now; at the end nobody does."""
    if session.timeline.step < session.timeline.last_step:
        _follow(session, session.timeline.step)


@REGISTRY.command(
    "stepi", arguments="[COUNT]", aliases=("si",), topic=TOPIC, repeats=True, examples=("stepi", "si 100"),
)  # fmt: skip
def stepi(session: Session, arguments: str) -> str:
    """Go COUNT steps forwards, whichever CPU takes them; that CPU is selected.
    A step is one instruction, one store that drains, one interrupt, one answered choice or one evicted translation."""
    count = count_of(arguments, "stepi")
    start, last = session.timeline.step, session.timeline.last_step
    if start == last:
        return f"{session.stop_line()}\nThis is {AT_END}."
    target = min(start + count, last)
    session.travel("stepping", lambda: session.timeline.forward(target - start))
    _follow(session, target - 1)
    return session.stop_line() + (f"\nReached {AT_END}." if start + count > last else "")


@REGISTRY.command(
    "reverse-stepi", arguments="[COUNT]", shortest="reverse-s", aliases=("rsi",), topic=TOPIC, repeats=True,
    examples=("reverse-stepi", "rsi 100"),
)  # fmt: skip
def reverse_stepi(session: Session, arguments: str) -> str:
    """Go COUNT steps backwards; the CPU whose step is undone last is selected."""
    count = count_of(arguments, "reverse-stepi")
    start = session.timeline.step
    if start == 0:
        return f"{session.stop_line()}\nThis is {AT_START}."
    target = max(start - count, 0)
    session.travel("stepping back", lambda: session.timeline.back(start - target))
    _follow(session, target)
    return session.stop_line() + (f"\nReached {AT_START}." if count > start else "")


def _stop_next(session: Session) -> Stop:
    """Run to just behind the next visible write to a watched place, or to the end."""
    timeline = session.timeline
    found = [
        (row.step, watch, row)
        for watch in session.watches
        if (row := timeline.next_write_after(watch.phys, watch.lvalue.size_bytes, timeline.step - 1)) is not None
    ]
    if not found:
        timeline.seek(timeline.last_step)
        return Stop()
    step = min(row[0] for row in found)
    return _hits(session, step, [Hit(watch, row) for at, watch, row in found if at == step], behind=True)


def _stop_before(session: Session) -> Stop:
    """Run back to just before the last visible write to a watched place, or to the start."""
    timeline = session.timeline
    found = [
        (row.step, watch, row)
        for watch in session.watches
        if (row := timeline.last_write_before(watch.phys, watch.lvalue.size_bytes, timeline.step)) is not None
    ]
    if not found:
        timeline.seek(0)
        return Stop()
    step = max(row[0] for row in found)
    return _hits(session, step, [Hit(watch, row) for at, watch, row in found if at == step], behind=False)


def _hits(session: Session, step: int, hits: list[Hit], *, behind: bool) -> Stop:
    """Read the values on both sides of `step` and stay on the side asked for."""
    timeline = session.timeline
    timeline.seek(step)
    for hit in hits:
        hit.old = session.watch_value(hit.watch)
    timeline.forward(1)
    for hit in hits:
        hit.new = session.watch_value(hit.watch)
        hit.watch.hits += 1
    if not behind:
        timeline.back(1)
    session.select(hits[0].event.cpu)
    return Stop(hits)


def _run(session: Session, count: int, *, forward: bool) -> str:
    stop = Stop()
    for _ in range(count):
        stop = session.travel("searching", lambda: _stop_next(session) if forward else _stop_before(session))
        if not stop.hits:
            break
    if not stop.hits:
        why = "" if session.watches else " (nothing is watched)"
        return f"{session.stop_line()}\nReached {AT_END if forward else AT_START}{why}."
    event = stop.hits[0].event
    # A store may have waited in the buffer: then the writing instruction lies behind the program counter.
    place = session.place(event.pc)
    if event.name == "drain":
        place += " (its store drains)"
    texts = [
        f"{hit.watch.lvalue.text}: {value_text(hit.old, hit.watch)} -> {value_text(hit.new, hit.watch)}"
        for hit in stop.hits
    ]
    undone = "" if forward else "   (undone)"
    return f"@{event.step} cpu{event.cpu} {place}   {'; '.join(texts)}{undone}"


@REGISTRY.command(
    "continue", arguments="[COUNT]", shortest="c", aliases=("fg",), topic=TOPIC, repeats=True,
    examples=("continue", "c 3"),
)  # fmt: skip
def continue_(session: Session, arguments: str) -> str:
    """Run to just behind the next write to a watched place (the COUNT-th), or to the end of the tape.
    Every write stops, also one that stores the value that was there already."""
    return _run(session, count_of(arguments, "continue"), forward=True)


@REGISTRY.command(
    "reverse-continue", arguments="[COUNT]", shortest="reverse-c", aliases=("rc",), topic=TOPIC, repeats=True,
    examples=("reverse-continue", "rc 2"),
)  # fmt: skip
def reverse_continue(session: Session, arguments: str) -> str:
    """Run back to just before the last write to a watched place (the COUNT-th), or to the start.
    The write is undone and the program counter stands on the writing instruction."""
    return _run(session, count_of(arguments, "reverse-continue"), forward=False)


@REGISTRY.command(
    "seek", arguments="POSITION", shortest="se", aliases=("goto",), topic=TOPIC, complete=complete_position,
    examples=("seek @81204", "seek 50%", "seek cpu1#350", "seek -30", "seek end"),
)  # fmt: skip
def seek(session: Session, arguments: str) -> str:
    """Go to a position: the moment before that step."""
    if not arguments.strip():
        raise UsageError("seek: a position is missing, e.g. 'seek @81204' or 'seek 50%'")
    session.seek(session.position(arguments))
    _show_next(session)
    return session.stop_line()


@REGISTRY.command("when", shortest="wh", topic=TOPIC, examples=("when",))
def when(session: Session, arguments: str) -> str:
    """Say where in the tape this moment is, in steps, in percent and in instructions of each CPU."""
    nothing(arguments, "when")
    timeline = session.timeline
    counts = ", ".join(f"cpu{cpu}#{session.registers(cpu)['retired']}" for cpu in range(session.cpus))
    share = 100 * timeline.step / max(timeline.last_step, 1)
    phase = "set-up" if timeline.step < timeline.ready_step else "recorded"
    return f"@{timeline.step} of @{timeline.last_step} ({share:.1f}%, {phase}; ready @{timeline.ready_step}); {counts}"


def _revisit(session: Session, offset: int) -> str:
    at = session.position_at + offset
    if not 0 <= at < len(session.positions):
        raise UsageError("there is no earlier position" if offset < 0 else "there is no later position")
    session.seek(session.positions[at])
    session.position_at = at
    _show_next(session)
    return session.stop_line()


@REGISTRY.command("back", shortest="ba", topic=TOPIC, repeats=True, examples=("back",))
def back(session: Session, arguments: str) -> str:
    """Return to the position before the last command that moved."""
    nothing(arguments, "back")
    return _revisit(session, -1)


@REGISTRY.command("forward", shortest="fo", topic=TOPIC, repeats=True, examples=("forward",))
def forward(session: Session, arguments: str) -> str:
    """Undo `back`."""
    nothing(arguments, "forward")
    return _revisit(session, 1)
