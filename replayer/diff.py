"""Where two runs part: the first step that differs, and the first value that does.

Two runs of one image in one machine do the same until their choices differ, so up to there choices are all that is
compared. From there on what each context (replayer/streams.py) did is laid beside what it did in the other run, until
one loads or stores something else. Runs of images that differ (a fix, another constant) are laid beside each other from
`ready` on; where the code differs, by function and line instead of by address.

Memory is bounded: a chunk of choices of each tape, some windows of events, and what contexts did that have not come as
far in the other run yet, `WAITING_MAX` events at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from machine import images
from machine.disassembly import INSTRUCTION_BYTES_MAX, disassemble
from machine.symbols import Frame, Symbols
from machine.unwind import Unwinder
from replayer.compare import first_difference
from replayer.streams import LOAD, STORE, Context, Splitter, Stream
from replayer.timeline import Timeline
from traces import Choices, Event, Events, Tape
from traces.chunks import Chunk
from traces.records import OPEN_STOPS
from traces.schema import HOLD, BoolArray, Op, RecordArray, U64Array, describe_record, step_counts

VALUES_MAX: Final = 8
"""Values that are told."""
WAITING_MAX: Final = 2_000_000
"""Events that wait for their like in the other run."""
BEHIND_STEPS: Final = 1 << 20
"""So far behind the first value that differs, others and parting control flow are looked for."""
_ALIGN_EVENTS: Final = 1 << 15
"""Within so many events control flow that has parted has to come together again."""
_ALIGN_SAME: Final = 4
"""Events in a row that have to be the same then."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Where:
    """A moment on a tape, for people. `step` can be jumped to.

    Attributes:
        step: the position.
        cpu: whose step it is.
        function, file, line: its innermost function outside of headers, "" and 0 if unknown.
        stack: names of the functions it is in, innermost first.
        instruction: its text; "" if unknown.
        what: what the CPU does there, in words.
    """

    step: int
    cpu: int
    function: str
    file: str
    line: int
    stack: tuple[str, ...]
    instruction: str
    what: str

    @property
    def place(self) -> str:
        """`acct_isolated () at mm/compaction.c:132`, or the function alone."""
        return f"{self.function} () at {self.file}:{self.line}" if self.file else self.function


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step that differs.

    Attributes:
        why: "choice" (another CPU goes on, an interrupt comes, a store drains), "event" (the same CPU does something
            else), "end" (one run ends).
        a, b: what each run does there; None: it has ended.
    """

    why: str
    a: Where | None
    b: Where | None


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store.

    Attributes:
        where: its moment.
        addr: linear address. phys: physical.
        value: what was loaded or stored.
        loaded: whether it is a load.
        made: of a load, the last write to what was loaded; None: there was none since reset.
    """

    where: Where
    loaded: bool
    addr: int
    phys: int
    value: int
    made: Where | None


@dataclass(frozen=True, slots=True)
class Value:
    """One access that both runs make, with another value or at another address.

    Attributes:
        context: who makes it, in words: a task, an interrupt handler.
        kind: "load" or "store" (or another event's name).
        size_bytes: of the access.
        name: what is accessed, as C would write it; its address if that has no name.
    """

    context: str
    kind: str
    size_bytes: int
    name: str
    a: Access
    b: Access


@dataclass(frozen=True, slots=True)
class Control:
    """The first place at which a context goes another way than in the other run; a, b: what it does there first."""

    context: str
    a: Where
    b: Where


@dataclass(frozen=True)
class Difference:
    """How two tapes compare.

    Attributes:
        headers: field -> (of a, of b), of what was run and on which machine, where they differ.
        images: "same"; "alike" (they load the same); "data" (the same code); "code".
        ready_step: positions from which the events were compared if the images differ.
        compared_to: positions up to which the runs were looked at.
        parting, control: None if there is none.
        values: the first one first; the others are for orientation.
        incomplete: why less was looked at than there is; "".
        in_step: whether the runs were compared step by step, so that they did the same in all before they part.
    """

    headers: dict[str, tuple[Any, Any]]
    images: str
    ready_step: tuple[int, int]
    compared_to: tuple[int, int]
    parting: Parting | None
    values: tuple[Value, ...]
    control: Control | None
    incomplete: str
    in_step: bool

    @property
    def same(self) -> bool:
        """Whether both runs did the same."""
        return self.parting is None and not self.values and self.control is None


def diff(a: Tape, b: Tape, progress: Progress | None = None, *, values_max: int = VALUES_MAX) -> Difference:
    """Compare two tapes. `progress` gets (steps, of how many). Raises TapeError, ReplayError, ImageError."""
    return _Comparison(a, b, progress or (lambda now, total: None), values_max).run()


# -- one tape --


class _Run:
    """One of the two runs: its tape, timeline and symbols."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.image = tape.image()
        self._timeline: Timeline | None = None
        self._symbols: Symbols | None = None
        self._unwinder: Unwinder | None = None

    @property
    def timeline(self) -> Timeline:
        """Made when it is needed first."""
        if self._timeline is None:
            self._timeline = Timeline(self.tape)
        return self._timeline

    @property
    def symbols(self) -> Symbols:
        """Of the image, over the memory of the CPU whose turn it is where the timeline stands."""
        if self._symbols is None:
            self._symbols = Symbols(self.image, self._read)
        return self._symbols

    def _read(self, address: int, size: int) -> bytes:
        return self.timeline.machine.read_linear(self._cpu, address, size)

    _cpu = 0

    @property
    def ready(self) -> int:
        return min(self.tape.header.ready_step, self.tape.end_step)

    def where(self, step: int, cpu: int, pc: int | None = None, what: str = "") -> Where:
        """The moment before `step`, as `cpu` sees it. `pc`: of the instruction meant, if it is not the next one."""
        self.timeline.seek(step)
        self._cpu = cpu
        registers = self.timeline.machine.registers(cpu)
        pc = registers["rip"] if pc is None else pc
        frames = self.symbols.frames(pc)
        frame = _outside_headers(frames)
        if self._unwinder is None:
            self._unwinder = Unwinder(self.symbols)
        stack = tuple(row.function for row in self._unwinder.backtrace(registers))
        return Where(step, cpu, frame.function, frame.file, frame.line, stack, self._instruction(pc, registers), what)

    def _instruction(self, pc: int, registers: dict[str, int]) -> str:
        bits = min(self.symbols.bits, max(32, registers["bits"]))
        for size_bytes in range(INSTRUCTION_BYTES_MAX, 0, -1):
            try:
                code = self._read(pc, size_bytes)
            except (LookupError, ValueError):
                continue
            (row,) = disassemble(
                code, pc, bits, count=1, name=self.symbols.symbolise, tracepoints=self.symbols.tracepoints()
            )
            return row.text
        return ""

    def write_before(self, phys: int, size_bytes: int, step: int) -> Where | None:
        """Who made these bytes what they are before `step`."""
        row = self.timeline.last_write_before(phys, size_bytes, step)
        if row is None:
            return None
        frame = _outside_headers(self.symbols.frames(row.pc))
        return Where(row.step, row.cpu, frame.function, frame.file, frame.line, (), "", f"{row.name} {row.value:#x}")

    def end(self) -> str:
        """Why it ends where it ends."""
        footer = self.tape.footer
        if self.tape.unfinished or footer is None:
            return "the tape is cut here"
        if footer.stop in OPEN_STOPS:
            return f"the recording stops here ({footer.stop})"
        return f"the run ends here ({footer.stop})"


def _outside_headers(frames: list[Frame]) -> Frame:
    """The innermost function outside of headers, which hold what everybody uses."""
    return next((row for row in frames if not row.file.startswith(("include/", "arch/x86/include/"))), frames[0])


# -- choices --


@dataclass(frozen=True, eq=False)
class _Stretches:
    """Choices as functions of the step: `key` holds from `first` up to the next one's, the last up to `end`."""

    first: U64Array
    end: int
    op: npt.NDArray[np.uint8]
    cpu: npt.NDArray[np.uint8]
    hold: BoolArray
    arg: U64Array

    @staticmethod
    def of(choices: Choices) -> _Stretches:
        records = choices.records
        counts = step_counts(records)
        records = records[counts > 0]
        ends = np.cumsum(counts[counts > 0]) + np.uint64(choices.first_step)
        first = np.concatenate([[np.uint64(choices.first_step)], ends[:-1]]).astype(np.uint64)
        many = (records["op"] == Op.RUN) | (records["op"] == Op.DRAIN)
        hold = (records["flags"] & HOLD) != 0
        return _Stretches(
            first, choices.end_step, records["op"], records["cpu"], hold, np.where(many, np.uint64(0), records["arg"])
        )

    def at(self, steps: U64Array) -> npt.NDArray[np.intp]:
        """Indices of the stretches that steps lie in."""
        found: npt.NDArray[np.intp] = np.searchsorted(self.first, steps, side="right") - 1
        return found


class _Choices:
    """The choices of a tape, a chunk in memory."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._number = 0
        self._chunk: Chunk | None = None
        self._stretches: _Stretches | None = None

    def chunk(self, step: int) -> Chunk | None:
        """The chunk that makes `step`, not before the one asked for last; None behind the last."""
        chunks = self._tape.choices_chunks
        while self._number < len(chunks) and chunks[self._number].end_step <= step:
            self._number += 1
        return chunks[self._number] if self._number < len(chunks) else None

    def stretches(self, chunk: Chunk) -> _Stretches:
        """What is in it."""
        if chunk is not self._chunk or self._stretches is None:
            self._chunk, self._stretches = chunk, _Stretches.of(self._tape.read_choices(chunk))
        return self._stretches

    def records_from(self, step: int) -> tuple[int, RecordArray] | None:
        """(steps already done of the first, the records from the one that makes `step` on); for describing it."""
        chunk = self.chunk(step)
        if chunk is None:
            return None
        choices = self._tape.read_choices(chunk)
        ends = np.cumsum(step_counts(choices.records)) + np.uint64(choices.first_step)
        index = int(np.searchsorted(ends, np.uint64(step), side="right"))
        return step, choices.records[index:]


def _same_chunk(a: Tape, one: Chunk, b: Tape, other: Chunk) -> bool:
    """Whether two chunks hold the same, by their checksums and then by their bytes."""
    same = (one.first_step, one.end_step, one.payload_bytes, one.payload_crc) == (
        other.first_step,
        other.end_step,
        other.payload_bytes,
        other.payload_crc,
    )
    return same and a.payload(one) == b.payload(other)


def first_choice(a: Tape, b: Tape, progress: Progress, *, held: bool) -> int | None:
    """The first step that another choice makes in `a` than in `b`; where one ends, if it is the other's beginning; None
    if the choices are the same.

    held: whether stores are held is a choice, too; else only who goes on.
    """
    one, other = _Choices(a), _Choices(b)
    step, end = 0, min(a.end_step, b.end_step)
    while step < end:
        progress(step, end)
        chunk_a, chunk_b = one.chunk(step), other.chunk(step)
        assert chunk_a is not None, "choices have no gaps"
        assert chunk_b is not None, "choices have no gaps"
        if chunk_a.first_step == step and _same_chunk(a, chunk_a, b, chunk_b):
            step = chunk_a.end_step
            continue
        x, y = one.stretches(chunk_a), other.stretches(chunk_b)
        stop = min(x.end, y.end)
        steps = np.union1d(x.first, y.first)
        steps = np.union1d(steps[(steps > step) & (steps < stop)], np.array([step], np.uint64))
        i, j = x.at(steps), y.at(steps)
        other_choice = (x.op[i] != y.op[j]) | (x.cpu[i] != y.cpu[j]) | (x.arg[i] != y.arg[j])
        if held:
            other_choice |= x.hold[i] != y.hold[j]
        if other_choice.any():
            return int(steps[int(np.argmax(other_choice))])
        step = stop
    return None if a.end_step == b.end_step else end


# -- the comparison --


@dataclass(eq=False)
class _Side:
    """One run on its way."""

    run: _Run
    splitter: Splitter
    windows: Iterator[Events]
    start: int
    step: int
    ended: bool = False

    @property
    def passed(self) -> int:
        """Steps looked at; beyond all bounds once it has ended."""
        return 1 << 62 if self.ended else self.step - self.start

    def advance(self) -> None:
        """The next window."""
        events = next(self.windows, None)
        if events is None:
            self.ended, self.step = True, self.run.tape.end_step
            self.splitter.finish()
        elif len(events):
            self.splitter.take(events)
            self.step = int(events.step[-1])


@dataclass(eq=False)
class _Pair:
    """One context in both runs."""

    differs: bool = False  # a value was found
    parted: tuple[Event, Event] | None = None
    lost: bool = False
    aligning: int = 0
    changed: set[int] = field(default_factory=set)  # addresses at which it has stored something else


class _Comparison:
    def __init__(self, a: Tape, b: Tape, progress: Progress, values_max: int) -> None:
        self._a, self._b = _Run(a), _Run(b)
        self._progress, self._values_max = progress, values_max
        self._pairs: dict[Context, _Pair] = {}
        self._found: list[tuple[Context, Event, Event]] = []
        self._control: tuple[Context, Event, Event] | None = None
        self._incomplete = ""
        self._start = (0, 0)
        self._kind = self._compare_images()
        self._exact = self._kind != "code"
        self._numbers: dict[tuple[str, str, int], int] = {}

    def run(self) -> Difference:
        a, b = self._a.tape, self._b.tape
        headers = self._headers()
        world = self._kind in ("same", "alike") and not headers.keys() & _WORLD
        start, parting = self._parting(world, headers)
        in_step = parting is not None
        if parting is not None or not world:
            self._compare_streams(start)
        values = tuple(self._value(*row) for row in self._first_values())
        if parting is None and (self._found or self._control is not None):
            parting = self._parting_of_streams()
        control = self._control
        return Difference(
            headers=headers,
            images=self._kind,
            ready_step=(self._a.ready, self._b.ready),
            compared_to=(a.end_step, b.end_step),
            parting=parting,
            values=values,
            control=None
            if control is None
            else Control(
                _context_name(control[0]),
                self._where(self._a, control[1]),
                self._where(self._b, control[2]),
            ),
            incomplete=self._incomplete,
            in_step=in_step,
        )

    # -- the first step --

    def _headers(self) -> dict[str, tuple[Any, Any]]:
        one, other = self._a.tape.header, self._b.tape.header
        names = ("scenario", "variant", "configuration", "cpus", "ram_bytes", "store_buffer", "command_line")
        more = ("strategy", "seed")
        rows = {name: (getattr(one, name), getattr(other, name)) for name in (*names, *more)}
        return {name: row for name, row in rows.items() if row[0] != row[1]}

    def _compare_images(self) -> str:
        one, other = self._a.image, self._b.image
        if one == other:
            return "same"
        if images.same_contents(one, other):
            return "alike"
        code = [[(row.vaddr, row.data) for row in Symbols(image).segments if row.executable] for image in (one, other)]
        return "data" if code[0] == code[1] else "code"

    def _parting(self, world: bool, headers: dict[str, tuple[Any, Any]]) -> tuple[tuple[int, int], Parting | None]:
        """(positions from which to compare streams, the first step that differs if that is known already)."""
        a, b = self._a.tape, self._b.tape
        ready = self._a.ready, self._b.ready
        if not self._exact or headers.keys() & _WORLD:
            return ready, None
        choice = first_choice(a, b, self._progress, held=True)
        if world:
            if choice is None:
                return ready, None
            begin, step = choice, self._first_step(choice)
        else:
            # Another constant somewhere: with equal choices, whatever is the first to differ is what has seen it.
            begin, step = ready[0], self._first_event(ready[0], choice)
        if step is None:
            return (begin, begin), None
        if step[0] >= min(a.end_step, b.end_step):
            return (begin, begin), Parting("end", *(self._at_end(run, step[0]) for run in (self._a, self._b)))
        return (step[0], step[0]), Parting(step[1], *(self._describe(run, step[0]) for run in (self._a, self._b)))

    def _first_step(self, choice: int) -> tuple[int, str] | None:
        """(step, why) of the first step at which equal machines do not do the same, given the first choice that
        differs. To hold stores is seen only when there is one."""
        a, b = self._a.tape, self._b.tape
        taken = first_choice(a, b, lambda now, total: None, held=False)
        if taken == choice:
            return choice, "choice"
        return self._first_event(choice, taken)

    def _first_event(self, begin: int, choice: int | None) -> tuple[int, str] | None:
        """The first step from `begin` on at which events differ, up to `choice`, which differs."""
        end = min(self._a.tape.end_step, self._b.tape.end_step) if choice is None else choice
        at = begin
        for first, last in _windows(begin, end):
            self._progress(at, end)
            if not self._same_events_chunk(first, last):
                error = first_difference(
                    self._a.timeline.events(first, last), self._b.timeline.events(first, last), complete=True
                )
                if error is not None:
                    return error.step, "event"
            at = last
        if choice is None:
            return None if self._a.tape.end_step == self._b.tape.end_step else (end, "end")
        return choice, "choice"

    def _same_events_chunk(self, first: int, last: int) -> bool:
        """Whether both tapes have the same chunks of events for these steps, so that none has to be decoded."""
        rows = [
            [c for c in run.tape.events_chunks if c.end_step > first and c.first_step <= last] for run in self._runs
        ]
        if len(rows[0]) != len(rows[1]) or not rows[0]:
            return False
        covered = rows[0][0].first_step <= first and rows[0][-1].end_step > last
        return covered and all(
            _same_chunk(self._a.tape, one, self._b.tape, other) for one, other in zip(*rows, strict=True)
        )

    @property
    def _runs(self) -> tuple[_Run, _Run]:
        return self._a, self._b

    def _describe(self, run: _Run, step: int) -> Where | None:
        """What `run` does in `step`."""
        if step >= run.tape.end_step:
            return None
        place = _Choices(run.tape).records_from(step)
        assert place is not None
        record = place[1][0]
        cpu, op = int(record["cpu"]), int(record["op"])
        words = {
            Op.RUN: f"cpu{cpu} runs",
            Op.DRAIN: f"cpu{cpu}'s oldest held store drains",
            Op.IRQ: f"cpu{cpu} takes interrupt {int(record['arg'])}",
        }
        what = words.get(Op(op), describe_record(record))
        if op == Op.RUN and int(record["flags"]) & HOLD:
            what += ", stores held"
        return run.where(step, cpu, what=what)

    def _at_end(self, run: _Run, step: int) -> Where | None:
        return self._describe(run, step) if step < run.tape.end_step else None

    def _parting_of_streams(self) -> Parting:
        """Of runs that cannot be compared step by step: the first thing that a context does otherwise."""
        rows = [*((row[1], row[2]) for row in self._found), *([self._control[1:]] if self._control else [])]
        one, other = min(rows, key=lambda row: self._when(*row))
        return Parting("event", self._where(self._a, one), self._where(self._b, other))

    # -- streams --

    def _compare_streams(self, start: tuple[int, int]) -> None:
        self._start = start
        sides = [self._side(run, at) for run, at in zip(self._runs, start, strict=True)]
        one, other = sides
        total = max(side.run.tape.end_step - side.start for side in sides)
        while not (one.ended and other.ended):
            min(sides, key=lambda side: side.passed).advance()
            self._progress(min(*(side.step - side.start for side in sides)), total)
            self._compare(one, other)
            if self._settled(one, other):
                return
            if sum(s.count for side in sides for s in side.splitter.streams.values()) > WAITING_MAX:
                self._incomplete = (
                    f"the runs go too far apart: compared up to @{one.step} of the one and @{other.step} of the other"
                )
                return
        self._compare(one, other)

    def _side(self, run: _Run, start: int) -> _Side:
        tracepoints = {name: number for number, name in run.symbols.tracepoints().items()}
        names: dict[int, str] = {}

        def function(pc: int) -> str:
            if pc not in names:
                names[pc] = run.symbols.frames(pc)[-1].function
            return names[pc]

        splitter = Splitter(
            run.tape.header.cpus,
            tracepoints.get("sched_switch"),
            self._token(run),
            function,
            run.symbols.is_code,
        )
        return _Side(run, splitter, run.timeline.events_in_windows(start, run.timeline.last_step), start, start)

    def _token(self, run: _Run) -> Callable[[U64Array], U64Array]:
        if self._exact:
            return lambda pc: pc
        known: dict[int, int] = {}

        def number(pc: int) -> int:
            frames = run.symbols.frames(pc)
            key = (frames[-1].function, frames[0].file, frames[0].line)
            return self._numbers.setdefault(key, len(self._numbers) + 1)

        def numbers(pcs: U64Array) -> U64Array:
            unique, back = np.unique(pcs, return_inverse=True)
            for pc in unique.tolist():
                if pc not in known:
                    known[pc] = number(pc)
            return np.array([known[pc] for pc in unique.tolist()], np.uint64)[back]

        return numbers

    def _compare(self, one: _Side, other: _Side) -> None:
        for context, stream in list(one.splitter.streams.items()):
            pair = self._pairs.setdefault(context, _Pair())
            facing = other.splitter.streams.setdefault(context, Stream())
            if pair.lost:
                stream.clear()
                facing.clear()
            while not pair.lost and self._compare_pair(context, pair, stream, facing, one.ended and other.ended):
                pass
        for context, facing in other.splitter.streams.items():
            if (pair_ := self._pairs.get(context)) is not None and pair_.lost:
                facing.clear()

    def _compare_pair(self, context: Context, pair: _Pair, one: Stream, other: Stream, last: bool) -> bool:
        """Compare what there is; whether it is worth to go on at once."""
        count = min(one.count, other.count)
        if not count or (pair.aligning and count < min(pair.aligning, _ALIGN_EVENTS) and not last):
            return False
        (a, tokens_a), (b, tokens_b) = one.all(), other.all()
        if pair.aligning:
            return self._align(pair, one, other, last)
        places = tokens_a[:count] != tokens_b[:count]
        end = int(np.argmax(places)) if places.any() else count
        self._look_for_values(context, pair, a[:end], b[:end])
        one.drop(end)
        other.drop(end)
        if end == count:
            return False
        rows = a.row(end), b.row(end)
        if pair.parted is None:
            pair.parted = rows
            passing = any(self._is_switch(run, row.pc) for run, row in zip(self._runs, rows, strict=True))
            if not passing and (self._control is None or self._when(*rows) < self._when(*self._control[1:])):
                self._control = (context, *rows)
        pair.aligning = 256
        return True

    def _align(self, pair: _Pair, one: Stream, other: Stream, last: bool) -> bool:
        """Find where both enter the same function again and do the same there."""
        (a, tokens_a), (b, tokens_b) = one.all(), other.all()
        found = None
        here = [
            self._entries(run, events, tokens)
            for run, events, tokens in zip(self._runs, (a, b), (tokens_a, tokens_b), strict=True)
        ]
        places: dict[bytes, int] = {}
        for index, key in here[0]:
            places.setdefault(key, index)
        for index, key in here[1]:
            if key in places and (found is None or index + places[key] < sum(found)):
                found = places[key], index
        if found is not None:
            one.drop(found[0])
            other.drop(found[1])
            pair.aligning = 0
            return True
        count = min(one.count, other.count)
        if last or count >= _ALIGN_EVENTS:
            pair.lost = True
            one.clear()
            other.clear()
        else:
            pair.aligning = max(2 * count, pair.aligning)
        return False

    def _entries(self, run: _Run, events: Events, tokens: U64Array) -> list[tuple[int, bytes]]:
        """(index, what is done from there) of each event that is the first of a function."""
        symbols = run.symbols
        starts = np.array(_function_starts(symbols), np.uint64)
        found = np.flatnonzero(np.isin(events.pc[:_ALIGN_EVENTS], starts)).tolist()
        return [(at, tokens[at : at + _ALIGN_SAME].tobytes()) for at in found if at + _ALIGN_SAME <= len(tokens)]

    def _look_for_values(self, context: Context, pair: _Pair, a: Events, b: Events) -> None:
        differs = (a.value != b.value) | (a.addr != b.addr)
        for index in np.flatnonzero(differs).tolist():
            one, other = a.row(index), b.row(index)
            if not self._exact and not self._really_differ(one, other):
                continue
            first = not pair.differs
            if one.kind == STORE:
                pair.changed |= {one.addr, other.addr}
            if self._is_switch(self._a, one.pc):
                continue
            if first or (
                one.kind == LOAD and one.addr == other.addr and one.addr not in pair.changed and pair.parted is None
            ):
                pair.differs = True
                self._found.append((context, one, other))
            if one.kind == LOAD:
                pair.changed.add(one.addr)  # once is enough

    def _is_switch(self, run: _Run, pc: int) -> bool:
        """Whether code is about two contexts, as finish_task_switch is: who was there before is no difference."""
        return any("switch" in row.function for row in run.symbols.frames(pc))

    def _really_differ(self, one: Event, other: Event) -> bool:
        """Of two images: not just because something lies elsewhere."""
        if one.kind not in (LOAD, STORE):
            return False
        names = self._a.symbols.name_of_data(one.addr, one.size), self._b.symbols.name_of_data(other.addr, other.size)
        if names[0] != names[1]:
            return False  # what is meant was decided before
        word = self._a.symbols.bits // 8
        if one.size < word:
            return one.value != other.value
        values = [_pointer(run.symbols, row.value) for run, row in zip(self._runs, (one, other), strict=True)]
        return values[0] != values[1]

    def _settled(self, one: _Side, other: _Side) -> bool:
        """Whether no earlier value can come any more, and later ones have been looked for long enough."""
        return bool(self._found) and min(one.passed, other.passed) > BEHIND_STEPS + min(
            self._when(row[1], row[2]) for row in self._found
        )

    def _when(self, one: Event, other: Event) -> int:
        """When both runs have come to a difference. What follows from it comes later in both."""
        return max(one.step - self._start[0], other.step - self._start[1])

    def _first_values(self) -> list[tuple[Context, Event, Event]]:
        """One for each place in memory."""
        rows: dict[int, tuple[Context, Event, Event]] = {}
        for row in sorted(self._found, key=lambda row: self._when(row[1], row[2])):
            rows.setdefault(row[1].phys, row)
        return list(rows.values())[: self._values_max]

    # -- in words --

    def _where(self, run: _Run, row: Event) -> Where:
        return run.where(row.step, row.cpu, row.pc, _event_words(row))

    def _value(self, context: Context, one: Event, other: Event) -> Value:
        sides = []
        for run, row in zip(self._runs, (one, other), strict=True):
            made = run.write_before(row.phys, row.size, row.step) if row.kind == LOAD else None
            sides.append(Access(self._where(run, row), row.kind == LOAD, row.addr, row.phys, row.value, made))
        name = self._a.symbols.name_of_data(one.addr, one.size) or f"{one.addr:#x}"
        return Value(_context_name(context), one.name, one.size, name, sides[0], sides[1])


_WORLD: Final = frozenset(("cpus", "ram_bytes", "store_buffer", "command_line"))
"""What the machine is; with the image all that a run depends on, but for the choices."""


def _function_starts(symbols: Symbols) -> list[int]:
    known: list[int] | None = getattr(symbols, "_diff_starts", None)
    if known is None:
        known = sorted({address for name in symbols.symbol_names() for address in symbols.entries(name)})
        symbols._diff_starts = known  # type: ignore[attr-defined]
    return known


def _pointer(symbols: Symbols, value: int) -> object:
    """What a word means if it points somewhere: what it is called, or that it is a pointer."""
    if symbols.is_code(value):
        return symbols.frames(value)[-1].function
    name = symbols.name_of_data(value)
    if name is not None:
        return name
    return "memory" if value >= images.LOAD_OFFSET[symbols.bits] else value


def _event_words(row: Event) -> str:
    if row.kind in (LOAD, STORE):
        return f"{row.name}s {row.value:#x} {'from' if row.kind == LOAD else 'to'} {row.addr:#x}"
    return row.name


def _context_name(context: Context) -> str:
    kind, number, owner = context
    if kind == "task":
        return f"task {number:#x}"
    if kind == "cpu":
        return f"the task that cpu{number} began with"
    return f"interrupt {number} on {_owner(owner)}"


def _owner(number: int) -> str:
    return f"the task that cpu{number} began with" if number < 8 else f"task {number:#x}"


def _windows(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """(first, last step), both included, of pieces that are compared at once."""
    size = 1 << 16
    while begin < end:
        stop = min(begin + size - begin % size, end)
        yield begin, stop - 1
        begin = stop
