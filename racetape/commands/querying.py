"""`racetape query`: the common questions to a tape, without SQL."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machine.errors import UsageError
from racetape.commands.common import emit, epilog, finish, json_option, tape_argument

if TYPE_CHECKING:
    from traces import Event, Tape

place_argument = click.argument("place")
from_option = click.option("--from", "first", help="Position to begin at (default: where the tape's events begin).")
to_option = click.option("--to", "end", default="end", show_default=True, help="Position to end at.")
limit_option = click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1), help="Most rows to show."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def query() -> None:
    """Ask a tape the common questions. Positions are written as in `racetape debug`: @81204, 50%, ready, end."""


def asking(tape: Tape) -> AbstractContextManager[None]:
    """Shows on a terminal how far a question has come that takes long."""
    from debugger.progress import progress

    return progress("looking", lambda: tape.looked_at, tape.end_step)


def _wipe() -> None:
    """Make room for the answer where the progress is shown."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        click.echo("\r\033[K", nl=False)


def _say(text: str) -> None:
    """Print a row of the answer."""
    _wipe()
    click.echo(text)


def _emit(data: dict[str, Any]) -> None:
    """Print an answer as JSON."""
    _wipe()
    emit(data)


def _place(text: str) -> str | int | tuple[int, int]:
    """What a place on the command line means: an expression, or an address and how many bytes."""
    address, plus, size = text.partition("+")
    try:
        number = int(address, 0)
        return (number, int(size, 0)) if plus else number
    except ValueError:
        return text


def _position(tape: Tape, text: str) -> int:
    from replayer.position import parse_position

    def retired(_cpu: int, _count: int) -> int | None:
        raise UsageError("a tape is asked by steps; `racetape debug` says at which step a CPU has retired so many")

    ready = min(tape.header.ready_step, tape.end_step)
    return parse_position(text, current=0, last=tape.end_step, ready=ready, cpus=tape.header.cpus, retired=retired)


def _begin(tape: Tape, text: str | None) -> int:
    """The position to begin at. Raises UsageError if the tape has no events, says so if they begin later."""
    low, high = tape.events_range
    if low == high:
        raise UsageError(f"{tape.path} has no events: `racetape tape rebuild` makes them")
    first = low if text is None else _position(tape, text)
    if first < low:
        click.echo(f"racetape: the tape's events begin at @{low}", err=True)
    if high < tape.end_step:
        click.echo(f"racetape: the tape's events end at @{high}", err=True)
    return first


def _show(tape: Tape, rows: Iterable[Event], limit: int, as_json: bool) -> None:
    """Print rows as they are found, at most so many."""
    from debugger.telling import event_json, event_text

    symbols = tape.symbols
    shown: list[dict[str, Any]] = []
    count = 0
    more = False
    for row in rows:
        if count == limit:
            more = True
            break
        count += 1
        if as_json:
            shown.append(event_json(symbols, row))
        else:
            _say(event_text(symbols, row))
    if as_json:
        _emit({"tape": str(tape.path), "rows": shown, "more": more})
    elif more:
        click.echo(f"racetape: there are more (--limit {limit}, --from @{row.step})", err=True)
    elif not count:
        _say("none")


def _one(tape: Tape, row: Event | None, as_json: bool) -> None:
    from debugger.telling import event_json, event_text

    if as_json:
        _emit({"tape": str(tape.path), "row": None if row is None else event_json(tape.symbols, row)})
    else:
        _say("none" if row is None else event_text(tape.symbols, row))


@query.command(
    epilog=epilog(
        "racetape query writes bug.tape 'contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]'",
        "racetape query writes bug.tape 0x2000+64 --from ready --to 50% --limit 1000 --json",
    )
)
@tape_argument
@place_argument
@from_option
@to_option
@limit_option
@json_option
def writes(tape: Path, place: str, first: str | None, end: str, limit: int, as_json: bool) -> None:
    """Every write to PLACE, at the step at which it becomes visible to all CPUs.

    PLACE is a C lvalue of the guest with a fixed place, an address, or ADDRESS+BYTES.
    """
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        low = _begin(recording, first)
        _show(recording, recording.writes(_place(place), low, _position(recording, end)), limit, as_json)
    finish(recording, 0)


@query.command(epilog=epilog("racetape query reads bug.tape 'contig_page_data.node_zones[1].all_unreclaimable'"))
@tape_argument
@place_argument
@from_option
@to_option
@limit_option
@json_option
def reads(tape: Path, place: str, first: str | None, end: str, limit: int, as_json: bool) -> None:
    """Every load and page walk that reads PLACE.

    PLACE is a C lvalue of the guest with a fixed place, an address, or ADDRESS+BYTES.
    """
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        low = _begin(recording, first)
        _show(recording, recording.reads(_place(place), low, _position(recording, end)), limit, as_json)
    finish(recording, 0)


@query.command(
    "last-write",
    epilog=epilog(
        "racetape query last-write bug.tape 'vm_stat[NR_FREE_PAGES]'",
        "racetape query last-write bug.tape 'jiffies' --before @104624",
    ),
)
@tape_argument
@place_argument
@click.option("--before", default="end", show_default=True, help="Position at which the value is seen.")
@json_option
def last_write(tape: Path, place: str, before: str, as_json: bool) -> None:
    """Who wrote what stands in PLACE at a position: the last write that became visible before it."""
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        at = _begin(recording, before)
        row = recording.last_write(_place(place), at)
        _one(recording, row, as_json)
        if row is None and recording.events_range[0] < at:
            click.echo(f"racetape: the tape's events begin at @{recording.events_range[0]}", err=True)
    finish(recording, 0)


@query.command("next-write", epilog=epilog("racetape query next-write bug.tape jiffies --after @104624"))
@tape_argument
@place_argument
@click.option("--after", help="Position to look from (default: where the tape's events begin).")
@json_option
def next_write(tape: Path, place: str, after: str | None, as_json: bool) -> None:
    """The first write to PLACE that becomes visible at or after a position."""
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        at = _begin(recording, after)
        _one(recording, recording.writes(_place(place), at).first(), as_json)
    finish(recording, 0)


@query.command(
    epilog=epilog("racetape query negative bug.tape 'contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_ANON]'")
)
@tape_argument
@place_argument
@from_option
@json_option
def negative(tape: Path, place: str, first: str | None, as_json: bool) -> None:
    """The first write after which the signed integer in PLACE is below zero. Exit status 1 if there is one.

    PLACE is a C lvalue of the guest with a fixed place, or ADDRESS+BYTES: 1, 2, 4 or 8 of them.
    """
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        low = _begin(recording, first)
        row = recording.first_negative(_place(place), low)
        _one(recording, row, as_json)
    finish(recording, 0 if row is None else 1)


@query.command(
    epilog=epilog(
        "racetape query calls bug.tape putback_lru_pages", "racetape query calls bug.tape acct_isolated --json"
    )
)
@tape_argument
@click.argument("function")
@from_option
@to_option
@limit_option
@json_option
def calls(tape: Path, function: str, first: str | None, end: str, limit: int, as_json: bool) -> None:
    """Every call of FUNCTION, and who called, told by its first memory access.

    Where it is inlined, calls between which the code around it touches no memory count as one.
    """
    from debugger.telling import place_text
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        low = _begin(recording, first)
        symbols = recording.symbols
        shown: list[dict[str, Any]] = []
        more = False
        for call in recording.calls(function, low, _position(recording, end)):
            if len(shown) == limit:
                more = True
                break
            # The return address may already be of the next line, or function.
            back = None if call.return_address is None else symbols.frames(call.return_address - 1)[0]
            around = symbols.frames(call.pc)[-1].function if call.inlined else None
            caller = back.function if back is not None else around
            shown.append(
                {
                    "step": call.step,
                    "cpu": call.cpu,
                    "pc": call.pc,
                    "function": function,
                    "inlined": call.inlined,
                    "caller": caller,
                    "file": back.file if back is not None else None,
                    "line": back.line if back is not None else None,
                    "return_address": call.return_address,
                }
            )
            if not as_json:
                if call.inlined:
                    who = f"inlined in {around} ()"
                else:
                    who = f"from {place_text(symbols, call.return_address - 1)}" if call.return_address else "from ?"
                _say(f"@{call.step} cpu{call.cpu} {function} () {who}")
        if as_json:
            _emit({"tape": str(recording.path), "rows": shown, "more": more})
        elif more:
            click.echo(f"racetape: there are more (--limit {limit}, --from @{shown[-1]['step'] + 1})", err=True)
        elif not shown:
            _say("none")
    finish(recording, 0)


@query.command(
    epilog=epilog(
        "racetape query events bug.tape --kind fault --kind interrupt",
        "racetape query events bug.tape --from @104624 --to @104700",
        "racetape query events bug.tape --kind trace --cpu 1 --json",
    )
)
@tape_argument
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only this kind, e.g. fault; may be repeated.")
@click.option("--cpu", type=click.IntRange(0, 7), help="Only of this CPU.")
@from_option
@to_option
@limit_option
@json_option
def events(
    tape: Path, kinds: tuple[str, ...], cpu: int | None, first: str | None, end: str, limit: int, as_json: bool
) -> None:
    """The events of a range of steps, of some kinds."""
    from traces import Tape
    from traces.schema import KINDS

    for name in kinds:
        if name not in KINDS:
            raise UsageError(f"no kind of event: '{name}'; there are {', '.join(KINDS)}")
    numbers = {KINDS[name] for name in kinds}

    def chosen(recording: Tape, low: int, high: int) -> Iterator[Event]:
        for part in recording.events_of_kinds(numbers or None, low, high).parts():
            yield from (part if cpu is None else part[part.cpu == cpu]).rows()

    with Tape(tape) as recording, asking(recording):
        if cpu is not None and cpu >= recording.header.cpus:
            raise UsageError(f"no CPU {cpu}: {recording.path} has CPUs 0 to {recording.header.cpus - 1}")
        low, high = _begin(recording, first), _position(recording, end)
        _show(recording, chosen(recording, low, high), limit, as_json)
    finish(recording, 0)


@query.command(
    epilog=epilog(
        "racetape query locks bug.tape", "racetape query locks bug.tape 'contig_page_data.node_zones[1].lru_lock'"
    )
)
@tape_argument
@click.argument("lock", required=False)
@from_option
@to_option
@limit_option
@json_option
def locks(tape: Path, lock: str | None, first: str | None, end: str, limit: int, as_json: bool) -> None:
    """Who took and released a LOCK (default: any), step by step. LOCK is a C lvalue or the address of one."""
    from heapq import merge

    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        low, high = _begin(recording, first), _position(recording, end)
        address = None if lock is None else _linear(recording, lock)
        rows = merge(
            *(recording.traces(name, address, low, high) for name in ("lock_acquire", "lock_release")),
            key=lambda row: row.step,
        )
        _show(recording, rows, limit, as_json)
    finish(recording, 0)


def _linear(tape: Tape, text: str) -> int:
    """The linear address that an expression or number means: tracepoints speak of these."""
    what = _place(text)
    return tape.symbols.lvalue(what).address if isinstance(what, str) else what if isinstance(what, int) else what[0]


@query.command(epilog=epilog("racetape query tasks bug.tape", "racetape query tasks bug.tape --json"))
@tape_argument
@json_option
def tasks(tape: Path, as_json: bool) -> None:
    """Which tasks ran, on which CPUs, how often and for how many steps, and the first time of each."""
    from debugger.task_names import task_names
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        _begin(recording, None)
        rows: dict[tuple[int | None, int], list[int]] = {}
        for run in recording.task_runs():
            row = rows.setdefault((run.task, run.cpu), [run.first_step, 0, 0])
            row[1] += 1
            row[2] += run.end_step - run.first_step
        names = task_names(recording, {task for task, _ in rows if task is not None})
        answer = [
            {"task": task, "name": names.get(task or 0), "cpu": cpu, "first_step": first, "runs": runs, "steps": steps}
            for (task, cpu), (first, runs, steps) in sorted(rows.items(), key=lambda row: row[1])
        ]
        if as_json:
            _emit({"tape": str(recording.path), "rows": answer})
        else:
            for each in answer:
                what = f"{each['name'] or '?'} ({each['task']:#x})" if each["task"] is not None else "a task not known"
                click.echo(
                    f"@{each['first_step']} cpu{each['cpu']} {what}: {each['runs']:,} times, {each['steps']:,} steps"
                )
    finish(recording, 0)


@query.command(epilog=epilog("racetape query at bug.tape @104624", "racetape query at bug.tape 50% --json"))
@tape_argument
@click.argument("position")
@json_option
def at(tape: Path, position: str, as_json: bool) -> None:
    """What the step at POSITION is: which CPU, which choice of the schedule, what it did."""
    from debugger.telling import event_json, event_text
    from traces import Tape

    with Tape(tape) as recording, asking(recording):
        step = recording.at(_position(recording, position))
        symbols = recording.symbols
        if as_json:
            rows = [event_json(symbols, row) for row in step.events.rows()]
            _emit(
                {"tape": str(recording.path), "step": step.step, "cpu": step.cpu, "choice": step.choice, "events": rows}
            )
        else:
            click.echo(f"@{step.step} cpu{step.cpu}, in the choice `{step.choice}`")
            for row in step.events.rows():
                click.echo(f"    {event_text(symbols, row)}")
        first, end = recording.events_range
        if not first <= step.step < end:
            which = f"events only of @{first} to @{end}" if first < end else "no events"
            click.echo(f"racetape: {recording.path} has {which}: `racetape tape rebuild --whole` makes all", err=True)
    finish(recording, 0)
