"""Registers, CPUs, source, backtrace, events: what the machine looks like at this moment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from debugger.commands.arguments import complete_symbol, count_of, nothing
from debugger.registry import REGISTRY
from debugger.telling import event_text
from debugger.waits import Word, cycle, waits
from machine.errors import ImageError, UsageError
from machine.symbols import find_source

if TYPE_CHECKING:
    from debugger.session import Session

TOPIC = "The machine at this moment"
FLAGS = ((0, "CF"), (2, "PF"), (4, "AF"), (6, "ZF"), (7, "SF"), (8, "TF"), (9, "IF"), (10, "DF"), (11, "OF"))
NAMES_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags")
NAMES_64 = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
NAMES_SYSTEM = ("cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "cr0", "cr2", "cr3", "cr4", "efer", "cpl")
LIST_LINES = 10
_RANGE = re.compile(r"(?:(?P<file>[^:,]+):)?\s*(?P<first>[0-9]{0,9})\s*,\s*(?P<last>[0-9]{0,9})")
WAITS_TEXT = {
    "spins": "goes in circles",
    "halt": "halts",
    "start": "waits to be started",
    "choice": "waits for an answer",
}
EVENT_STEPS_DEFAULT = 8
EVENT_STEPS_MAX = 2000


def _register_row(session: Session, name: str, values: dict[str, int]) -> str:
    value = int(session.symbols.value(session.symbols.evaluate(f"${name}", values)))
    note = str(value)
    if name in ("eflags", "rflags"):
        note = f"[ {' '.join(text for bit, text in FLAGS if value >> bit & 1)} ]"
    elif name in ("eip", "rip", "esp", "rsp", "ebp", "rbp") or value >= 0x1000:
        known = session.symbols.symbolise(value)
        note = str(value) if known.startswith("0x") else f"<{known}>"
    return f"{name:<8} {value:#x}".ljust(24 if session.symbols.bits == 32 else 32) + note


@REGISTRY.command(
    "info registers", arguments="[NAME ...]", shortest="i r", topic=TOPIC,
    examples=("info registers", "info registers eip cr3", "i r"),
)  # fmt: skip
def info_registers(session: Session, arguments: str) -> str:
    """Show the selected CPU's registers."""
    values = session.registers()
    names = [name.lower().lstrip("$") for name in arguments.replace(",", " ").split()]
    general = NAMES_32 if session.symbols.bits == 32 else NAMES_64
    return "\n".join(_register_row(session, name, values) for name in names or (*general, *NAMES_SYSTEM))


@REGISTRY.command("info cpus", shortest="i c", aliases=("info threads",), topic=TOPIC, examples=("info cpus",))
def info_cpus(session: Session, arguments: str) -> str:
    """Show every CPU: where it is, whether it waits, its held stores and cached translations.
    Held stores are listed oldest first, with the instruction that issued them."""
    nothing(arguments, "info cpus")
    machine = session.timeline.machine
    lines = []
    for cpu in range(session.cpus):
        values = session.registers(cpu)
        waits = machine.waiting(cpu)
        state = f"waits ({waits})" if waits else "runs"
        held = machine.store_buffer_entries(cpu)
        mark = "*" if cpu == session.cpu else " "
        lines.append(
            f"{mark} cpu{cpu}  {state:<14} {values['rip']:#x} {session.place(values['rip'])}  #{values['retired']}"
            f"  store buffer {len(held)}/{machine.store_buffer}  tlb {len(machine.tlb_entries(cpu))}"
        )
        name = session.symbols.symbolise
        lines += [
            f"      held: {name(addr)} = {value:#x} ({size} bytes) by {name(pc)}" for addr, _, size, value, pc in held
        ]
    return "\n".join(lines)


@REGISTRY.command("info waits", shortest="info wai", topic=TOPIC, examples=("info waits",))
def info_waits(session: Session, arguments: str) -> str:
    """Show who waits for what: CPUs that halt or go in circles, and the words they look at.
    Who made these words what they are is said, too; where CPUs wait for each other, the cycle is named."""
    nothing(arguments, "info waits")
    rows = session.travel("searching", lambda: waits(session.timeline))
    lines = []
    for row in rows:
        lines.append(f"cpu{row.cpu} {WAITS_TEXT.get(row.state, row.state)}: {session.place(row.pc)}")
        lines += [f"      reads {_word_text(session, word)}" for word in row.words]
    if circle := cycle(rows):
        after = [*circle[1:], circle[0]]
        pairs = ", ".join(f"cpu{cpu} for cpu{other}" for cpu, other in zip(circle, after, strict=True))
        lines.append(f"cycle: {pairs}")
    return "\n".join(lines)


def _word_text(session: Session, word: Word) -> str:
    name = session.symbols.name_of_data(word.read.addr, word.read.size) or f"{word.read.addr:#x}"
    text = f"{name} = {word.read.value:#x}"
    if word.made is None:
        return f"{text}, which no other CPU made so"
    return f"{text}, which cpu{word.made.cpu} made so @{word.made.step} in {session.place(word.made.pc)}"


@REGISTRY.command(
    "cpu", arguments="[N]", aliases=("thread", "t"), topic=TOPIC, examples=("cpu", "cpu 1"),
    complete=lambda session, _word: (str(cpu) for cpu in range(session.cpus)),
)  # fmt: skip
def cpu_(session: Session, arguments: str) -> str:
    """Select the CPU that registers, memory and backtraces are seen from."""
    if arguments.strip():
        text = arguments.strip().removeprefix("cpu")
        if not (text.isascii() and text.isdigit()):
            raise UsageError(f"cpu: '{arguments.strip()}' is no CPU number")
        session.select(int(text))
    return session.stop_line()


@REGISTRY.command(
    "bt", arguments="[COUNT]", aliases=("backtrace", "where"), topic=TOPIC, examples=("bt", "bt 3"),
)  # fmt: skip
def backtrace(session: Session, arguments: str) -> str:
    """Show the selected CPU's call stack, inlined functions included."""
    frames = session.backtrace()
    lines = []
    for number, row in enumerate(frames[: count_of(arguments, "bt", len(frames))]):
        where = "(inlined) in " if row.inlined else f"{row.pc:#010x} in "
        lines.append(f"#{number:<2} {where}{row.function} ()" + (f" at {row.place}" if row.place else ""))
    return "\n".join(lines)


@REGISTRY.command(
    "list", arguments="[[FILE:]LINE[,LAST] | FUNCTION | *ADDRESS | -]", shortest="l", topic=TOPIC,
    complete=complete_symbol, repeats=True,
    examples=("list", "list acct_isolated", "list compaction.c:231", "list 5,9", "list *$eip", "l -"),
)  # fmt: skip
def list_(session: Session, arguments: str) -> str:
    """Show source text around a place, by default this one; again: the lines that follow.
    A file may be named without its folder. `list -` shows the lines before those shown last."""
    state = session.listing
    text = arguments.strip()
    if text == "-" and state.file:
        if state.first_line <= 1:
            raise UsageError(f"list: {state.file} was shown from its first line on")
        return _lines(session, state.file, max(1, state.first_line - LIST_LINES), state.first_line - 1)
    if "," in text:
        return _lines(session, *_range(session, text))
    if text and text != "-":
        places = _places(session, text)
    elif state.file and state.next_line:
        return _lines(session, state.file, state.next_line, state.next_line + LIST_LINES - 1)
    else:
        frame = session.frame()
        if not frame.file:
            raise UsageError(f"no source is known for {session.symbols.symbolise(session.pc)}")
        places = [(frame.file, frame.line)]
    texts = []
    for file, line in places:
        first = max(1, line - LIST_LINES // 2)
        shown = _lines(session, file, first, first + LIST_LINES - 1)
        texts.append(shown if len(places) == 1 else f"{file}:{line}:\n{shown}")
    return "\n".join(texts)


def _places(session: Session, text: str) -> list[tuple[str, int]]:
    """(file, line) of everything that an argument of `list` means. Raises UsageError, ExpressionError."""
    file, colon, line = text.rpartition(":")
    if line.isascii() and line.isdigit():
        if not colon:
            return [(_current_file(session), max(1, int(line)))]
        return [(find_source(file.strip(), session.symbols.sources), max(1, int(line)))]
    if text.startswith("*"):
        frame = session.symbols.frames(session.integer(text[1:]))[0]
        if not frame.file:
            raise UsageError(f"no source is known for '{text}'")
        return [(frame.file, frame.line)]
    places = session.symbols.definitions(text)
    if places:
        return places
    frame = session.symbols.frames(session.integer(text))[-1]
    if not frame.file:
        raise UsageError(f"no source is known for '{text}'")
    return [(frame.file, frame.line)]


def _current_file(session: Session) -> str:
    file = session.listing.file or session.frame().file
    if not file:
        raise UsageError(f"no source is known for {session.symbols.symbolise(session.pc)}")
    return file


def _range(session: Session, text: str) -> tuple[str, int, int]:
    """(file, first line, last line) of `FIRST,LAST`; one of the two may be missing. Raises UsageError."""
    match = _RANGE.fullmatch(text)
    if match is None or not (match["first"] or match["last"]):
        raise UsageError(f"list: '{text}' is no range; write LINE,LAST or FILE:LINE,LAST")
    file = find_source(match["file"].strip(), session.symbols.sources) if match["file"] else _current_file(session)
    first = int(match["first"] or max(1, int(match["last"]) - LIST_LINES + 1))
    last = int(match["last"] or first + LIST_LINES - 1)
    if not 1 <= first <= last:
        raise UsageError(f"list: there are no lines {first} to {last}")
    return file, first, last


def _lines(session: Session, file: str, first: int, last: int) -> str:
    middle, half = (first + last) // 2, (last - first) // 2
    rows = [row for row in session.symbols.source(file, middle, half + 1) if first <= row[0] <= last]
    if not rows:
        raise ImageError(f"'{file}' ends before line {first}")
    session.listing.file, session.listing.first_line = file, first
    session.listing.next_line = rows[-1][0] + 1
    frame = session.frame()
    return "\n".join(
        f"{'=>' if (file, number) == (frame.file, frame.line) else '  '} {number}\t{text}".rstrip()
        for number, text in rows
    )


@REGISTRY.command(
    "events", arguments="[STEPS]", shortest="ev", topic=TOPIC, examples=("events", "events 30"),
)  # fmt: skip
def events(session: Session, arguments: str) -> str:
    """Show the recorded events of the steps around this position.
    The arrow stands before the first event that has not happened yet."""
    reach = count_of(arguments, "events", EVENT_STEPS_DEFAULT)
    if reach > EVENT_STEPS_MAX:
        raise UsageError(f"events: at most {EVENT_STEPS_MAX} steps")
    now = session.timeline.step
    rows = list(session.timeline.events(max(0, now - reach), now + reach - 1).rows())
    if not rows:
        return "no events are recorded here"
    lines = []
    arrow = False
    for row in rows:
        mark = "=>" if row.step >= now and not arrow else "  "
        arrow = arrow or row.step >= now
        lines.append(f"{mark} {event_text(session.symbols, row)}")
    return "\n".join(lines if arrow else [*lines, "=> (end)"])
