"""A tape as a Perfetto trace: who ran where in which function, what waited in store buffers, counters.

One step is one nanosecond. Each CPU has a track of nested slices (task, interrupts, functions) with instants for what
is rare, and one of its store buffer with a slice for each held store, from its issue to its drain. Flow arrows go from
the store to its drain, and on to the first load of another CPU that sees it. Counters of the scenario have two tracks
for each zone: the counter and the true count.

Functions are seen by what they do to memory: a CALL stores its return address, the RET loads it. Functions that are
inlined are part of the one around them; who was called before the trace begins is read from the stacks.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from debugger.divergence import Query, mask
from debugger.ghosts import Account
from debugger.track_events import BEGIN, END, INSTANT, Annotations, TraceWriter
from machine import images
from machine.errors import RacetapeError, TapeError, UsageError
from machine.symbols import Symbols
from machine.unwind import Unwinder
from replayer import Timeline
from traces import Event, Events, Tape
from traces.schema import (
    AD_UPDATE,
    DEVICE,
    DRAIN,
    DRAINED,
    FORWARDED,
    IMPLICIT,
    KINDS,
    LOAD,
    STORE,
    BoolArray,
    U64Array,
)

READERS_MAX: Final = 1 << 16
"""Drained stores that wait for a first reader; beyond, the oldest are given up."""
_CALL_BYTES: Final = 7
"""Length of the longest CALL."""
_PATIENCE: Final = 4096
_WORD: Final = 8

_TRACE, _IRET, _HALT = KINDS["trace"], KINDS["iret"], KINDS["halt"]
_ENTERING: Final = {
    KINDS["interrupt"]: "interrupt {}",
    KINDS["nmi"]: "NMI",
    KINDS["fault"]: "exception {}",
    KINDS["soft_interrupt"]: "INT {}",
}
_INSTANTS: Final = frozenset(
    KINDS[name]
    for name in ("trace", "ipi", "choice", "port_out", "halt", "exit", "control", "start", "shutdown", "tlb_invalidate")
)
_TURNS: Final = np.isin(np.arange(256), [*_ENTERING, _IRET, *_INSTANTS])

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        first_step, end_step: of which steps.
        slices, instants: on the tracks of CPUs.
        held_stores: slices on the tracks of store buffers.
        read: of these, how many another CPU has read.
        counter_values: on the tracks of counters.
        size_bytes: of the file.
    """

    first_step: int
    end_step: int
    slices: int
    instants: int
    held_stores: int
    read: int
    counter_values: int
    size_bytes: int


def export(
    tape: Tape,
    path: str | os.PathLike[str],
    *,
    first: str = "ready",
    end: str = "end",
    progress: Progress | None = None,
) -> Exported:
    """Write steps `first` to before `end` of `tape` to `path` as a Perfetto trace. Both are positions as people write
    them; an `end` of `+2000` is 2000 steps behind `first`.

    Memory is bounded by windows of events. Raises UsageError for positions that are none or in the wrong order,
    TapeError if `path` cannot be written, and what replaying raises.
    """
    timeline = Timeline(tape)
    first_step = timeline.position(first)
    timeline.seek(first_step)  # from where `+2000` counts
    end_step = timeline.position(end)
    if first_step >= end_step:
        raise UsageError(f"nothing lies between the positions {first} and {end}")
    if Path(path).exists() and Path(path).samefile(tape.path):
        raise TapeError(f"{path} is the tape itself: give another name for the trace")
    try:
        with open(path, "wb") as stream:
            try:
                writer = TraceWriter(stream)
                run = _Export(timeline, writer, first_step, end_step)
                run.follow(progress or (lambda now, total: None))
                writer.finish()
                stream.flush()
            except BaseException:
                # Half a trace would be taken for a whole one. Ctrl-C comes here, too.
                if Path(path).is_file():
                    Path(path).unlink()
                raise
    except OSError as error:
        raise TapeError(f"cannot write {path}: {error.strerror}") from None
    return Exported(
        first_step,
        end_step,
        slices=sum(cpu.slices for cpu in run.cpus),
        instants=sum(cpu.instants for cpu in run.cpus),
        held_stores=sum(buffer.count for buffer in run.buffers),
        read=run.read,
        counter_values=run.counters.count,
        size_bytes=Path(path).stat().st_size,
    )


# -- who runs --


@dataclass(slots=True)
class _Frame:
    """A slice that is open: a function, or an interrupt (`boundary`).

    returns: (linear address of the return address, return address); None if it was not seen.
    switching: of an interrupt, the switch between tasks that it came into.
    """

    name: str
    boundary: bool = False
    returns: tuple[int, int] | None = None
    switching: str | None = None


@dataclass(slots=True)
class _Task:
    name: str
    frames: list[_Frame] = field(default_factory=list)


class _CpuTrack:
    """The slices of one CPU. A task's slices are closed when it is left and opened anew when it goes on."""

    def __init__(self, writer: TraceWriter, track: int, tasks: dict[int, _Task], task: _Task, step: int) -> None:
        self._writer, self._track, self._tasks = writer, track, tasks
        self._task = task
        self._known = False  # which task structure it is
        self._called: tuple[int, int, int] | None = None  # step, address of the return address, return address
        self._switching: str | None = None
        self._patience = 0
        self.slices = self.instants = 0
        self._open_all(step)

    def instant(self, row: Event, name: str, annotations: Annotations, **flows: Iterable[int]) -> None:
        """Something at one step."""
        self.instants += 1
        self._writer.event(INSTANT, self._track, row.step, name, category="event", annotations=annotations, **flows)

    def step(self, row: Event, function: str, names: _Names) -> None:
        """What an event says about who runs."""
        if row.kind in (LOAD, STORE) and row.info & IMPLICIT:
            return  # an interrupt's frame, which nobody pushes
        if self._switching is not None:
            self._pass(row, function, names)
            return
        if self._called is not None:
            # The next thing the CPU does is done by who was called, or interrupts it.
            step, *returns = self._called
            self._called = None
            self._begin(step, _Frame(function, returns=(returns[0], returns[1])))
        elif row.kind != _IRET and not self._inside(function):
            self._enter(row.step, function)
        if row.kind == STORE and 2 <= row.value - row.pc <= _CALL_BYTES:
            self._called = (row.step, row.addr, row.value)
        elif row.kind == LOAD:
            self._return(row)
        elif row.kind in _ENTERING:
            self._interrupt(row)
        elif row.kind == _IRET:
            self._leave_interrupt(row.step)

    def switch(self, row: Event, function: str) -> None:
        """The task before and the one after, as the tracepoint says."""
        if not self._known:
            # Whoever ran here from the beginning has a name now.
            self._tasks.setdefault(row.value, self._task)
            self._known = True
        self._close_all(row.step + 1)
        self._task = self._tasks.setdefault(row.addr, _Task(f"task {row.addr:#x}"))
        self._open_all(row.step + 1)
        self._switching, self._patience, self._called = function, _PATIENCE, None

    def finish(self, step: int) -> None:
        """Nothing is open any more."""
        self._close_all(step)

    def _pass(self, row: Event, function: str, names: _Names) -> None:
        """Between the announcement of a switch and the return from it, what is done is neither task's."""
        self._patience -= 1
        if row.kind in _ENTERING:
            self._interrupt(row)
        elif row.kind == LOAD and self._is_switching(function) and names.is_code(row.value):
            self._return(row)
            if not self._is_switching(names.function(row.value)):
                self._switching = None
        if self._patience <= 0:
            self._switching = None

    def _is_switching(self, function: str) -> bool:
        return function == self._switching or "switch" in function

    def _inside(self, function: str) -> bool:
        frames = self._task.frames
        return bool(frames) and not frames[-1].boundary and frames[-1].name == function

    def _enter(self, step: int, function: str) -> None:
        """A function that nobody was seen to call: one that goes on after others have returned, or one further down."""
        frames = self._task.frames
        low = max((i + 1 for i, row in enumerate(frames) if row.boundary), default=0)
        same = [i for i in range(low, len(frames)) if frames[i].name == function]
        while len(frames) > (same[-1] + 1 if same else low):
            self._end(step)
        if not same:
            self._begin(step, _Frame(function))

    def _return(self, row: Event) -> None:
        """A load of a return address from where it was stored ends the function, and what it has called."""
        frames = self._task.frames
        for index in range(len(frames) - 1, -1, -1):
            if frames[index].boundary:
                return
            if frames[index].returns == (row.addr, row.value):
                while len(frames) > index:
                    self._end(row.step + 1)
                return

    def _interrupt(self, row: Event) -> None:
        frame = _Frame(_ENTERING[row.kind].format(row.info), boundary=True, switching=self._switching)
        self._begin(row.step, frame)
        self._switching = None

    def _leave_interrupt(self, step: int) -> None:
        frames = self._task.frames
        if any(row.boundary for row in frames):
            while not frames[-1].boundary:
                self._end(step + 1)
            self._switching, self._patience = frames[-1].switching, _PATIENCE
            self._end(step + 1)

    def _begin(self, step: int, frame: _Frame) -> None:
        self._task.frames.append(frame)
        self._open(step, frame.name, "interrupt" if frame.boundary else "function")

    def _end(self, step: int) -> None:
        self._task.frames.pop()
        self._writer.event(END, self._track, step)

    def _open(self, step: int, name: str, category: str) -> None:
        self.slices += 1
        self._writer.event(BEGIN, self._track, step, name, category=category)

    def _open_all(self, step: int) -> None:
        self._open(step, self._task.name, "task")
        for row in self._task.frames:
            self._open(step, row.name, "interrupt" if row.boundary else "function")

    def _close_all(self, step: int) -> None:
        for _ in range(len(self._task.frames) + 1):
            self._writer.event(END, self._track, step)


# -- store buffers --


@dataclass(slots=True)
class _Held:
    number: int
    slot: int
    phys: int
    size_bytes: int


class _BufferTrack:
    """The held stores of one CPU: a track for each entry of its store buffer, as slices of a track may not overlap."""

    def __init__(self, writer: TraceWriter, name: str, parent: int) -> None:
        self._writer = writer
        self._track = writer.track(name, parent)
        self._slots: list[int] = []
        self._free: list[int] = []
        self.queue: deque[_Held] = deque()
        self.count = 0

    def hold(self, step: int, number: int, name: str, row: tuple[int, int], annotations: Annotations) -> None:
        """A store of (phys, size in bytes) that memory does not see yet."""
        if not self._free:
            self._free.append(len(self._slots))
            self._slots.append(self._writer.track(f"entry {len(self._slots)}", self._track))
        slot = self._free.pop(0)
        self.queue.append(_Held(number, slot, *row))
        self.count += 1
        self._writer.event(
            BEGIN, self._slots[slot], step, name, category="held store", annotations=annotations, flows=[number]
        )

    def drain(self, step: int) -> _Held | None:
        """The oldest one reaches memory."""
        if not self.queue:
            return None
        held = self.queue.popleft()
        track = self._slots[held.slot]
        self._writer.event(INSTANT, track, step, "drain", category="held store", flows=[held.number])
        self._writer.event(END, track, step + 1)
        self._free.append(held.slot)
        self._free.sort()
        return held

    def finish(self, step: int) -> None:
        """The trace ends with stores still held."""
        for held in self.queue:
            self._writer.event(END, self._slots[held.slot], step)


class _Readers:
    """Drained stores that no other CPU has read yet, by the words that they lie in."""

    def __init__(self) -> None:
        self._rows: OrderedDict[int, tuple[int, int, int]] = OrderedDict()  # number -> CPU, phys, size
        self._words: dict[int, list[int]] = {}

    @property
    def words(self) -> U64Array:
        """The words that matter now."""
        return np.fromiter(self._words, np.uint64, len(self._words))

    def drained(self, cpu: int, held: _Held) -> None:
        """Memory has it now."""
        self._rows[held.number] = (cpu, held.phys, held.size_bytes)
        for word in _words(held.phys, held.size_bytes):
            self._words.setdefault(word, []).append(held.number)
        if len(self._rows) > READERS_MAX:
            self._forget(next(iter(self._rows)))

    def written(self, phys: int, size_bytes: int) -> None:
        """Other bytes are there now: nobody can read what was."""
        for number in self._touched(phys, size_bytes):
            _, low, length = self._rows[number]
            if phys <= low and low + length <= phys + size_bytes:
                self._forget(number)

    def read(self, row: Event) -> list[int]:
        """The stores of other CPUs that a load is the first to see."""
        found = [number for number in self._touched(row.phys, row.size) if self._rows[number][0] != row.cpu]
        for number in found:
            self._forget(number)
        return found

    def _touched(self, phys: int, size_bytes: int) -> list[int]:
        numbers = {number for word in _words(phys, size_bytes) for number in self._words.get(word, ())}
        rows = ((number, *self._rows[number]) for number in sorted(numbers))
        return [number for number, _, low, length in rows if low < phys + size_bytes and phys < low + length]

    def _forget(self, number: int) -> None:
        _, phys, size_bytes = self._rows.pop(number)
        for word in _words(phys, size_bytes):
            self._words[word].remove(number)
            if not self._words[word]:
                del self._words[word]


def _words(phys: int, size_bytes: int) -> range:
    return range(phys // _WORD, (phys + max(size_bytes, 1) - 1) // _WORD + 1)


# -- counters --


class _Counters:
    """The scenario's counters and what they should be."""

    def __init__(self, timeline: Timeline, writer: TraceWriter, parent: int) -> None:
        self._writer = writer
        self._accounts: list[Account] = []
        self._tracks: list[list[tuple[int, int]]] = []
        self._shown: dict[int, int] = {}
        self.count = 0
        for name in _scenario_counters(timeline.tape):
            try:
                account = Query(timeline, name).account()
            except RacetapeError:
                continue  # a guest without such a counter
            self._accounts.append(account)
            self._tracks.append(
                [
                    (
                        writer.track(row.name, parent, counter=True),
                        writer.track(f"{row.name}, true count", parent, counter=True),
                    )
                    for row in account.counters
                ]
            )

    def follow(self, events: Events, first_step: int) -> None:
        """Show what changes at steps from `first_step` on; earlier ones, from `ready` on, count as well."""
        if not self._accounts:
            return
        for row in events[mask(events, self._accounts)].rows():
            for account in self._accounts:
                account.follow([row])
            if row.step >= first_step:
                self.show(row.step)

    def show(self, step: int) -> None:
        """What they are, where they have changed."""
        for account, tracks in zip(self._accounts, self._tracks, strict=True):
            for index, pair in enumerate(tracks):
                for track, value in zip(pair, (account.counters[index].value, account.expected(index)), strict=True):
                    if self._shown.get(track) != value:
                        self._shown[track] = value
                        self.count += 1
                        self._writer.counter(track, step, value)


def _scenario_counters(tape: Tape) -> tuple[str, ...]:
    return next((row.counters for row in images.scenarios() if row.name == tape.header.scenario), ())


# -- all of it --


class _Names:
    """Names of places, each looked up once."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self.tracepoints = symbols.tracepoints()
        self._functions: dict[int, str] = {}
        self._places: dict[int, str] = {}
        self._data: dict[tuple[int, int], str] = {}

    def function(self, pc: int) -> str:
        """The function at `pc` that is not inlined."""
        if pc not in self._functions:
            self._functions[pc] = self._symbols.frames(pc)[-1].function
        return self._functions[pc]

    def place(self, pc: int) -> str:
        """`mm/compaction.c:231`; the address if unknown."""
        if pc not in self._places:
            self._places[pc] = self._symbols.frames(pc)[0].place or f"{pc:#x}"
        return self._places[pc]

    def data(self, addr: int, size_bytes: int) -> str:
        """What lies there, as C would write it; else its address."""
        key = addr, size_bytes
        if key not in self._data:
            if len(self._data) > 1 << 16:
                self._data.clear()
            self._data[key] = self._symbols.name_of_data(addr, size_bytes) or f"{addr:#x}"
        return self._data[key]

    def is_code(self, address: int) -> bool:
        """Whether an address is the guest's code."""
        return self._symbols.is_code(address)

    def numbers(self, pcs: U64Array) -> U64Array:
        """Equal numbers for equal functions."""
        unique, back = np.unique(pcs, return_inverse=True)
        numbers: dict[str, int] = {}
        rows = [numbers.setdefault(self.function(pc), len(numbers)) for pc in unique.tolist()]
        return np.array(rows, np.uint64)[back]


class _Export:
    """One tape on its way into one trace."""

    def __init__(self, timeline: Timeline, writer: TraceWriter, first_step: int, end_step: int) -> None:
        self._timeline, self._writer = timeline, writer
        self._first, self._end = first_step, end_step
        self._cpu = 0
        machine = timeline.machine
        self._symbols = Symbols(timeline.image, lambda address, size: machine.read_linear(self._cpu, address, size))
        self._names = _Names(self._symbols)
        names = {name: number for number, name in self._names.tracepoints.items()}
        self._switch = names.get("sched_switch", -1)
        ranges = [(row.vaddr, row.vaddr + row.size_bytes) for row in self._symbols.segments if row.executable]
        self._code = min((row[0] for row in ranges), default=0), max((row[1] for row in ranges), default=0)
        self._last_function = [-1] * machine.cpus
        self._number = 0
        self._readers = _Readers()
        self.read = 0
        header = timeline.tape.header
        root = writer.track(f"{header.scenario} ({header.variant}, {header.configuration}); 1 ns is 1 step")
        tasks: dict[int, _Task] = {}
        tracks = [
            (writer.track(f"cpu{cpu}", root), _BufferTrack(writer, f"cpu{cpu} store buffer", root))
            for cpu in range(machine.cpus)
        ]
        self.counters = _Counters(timeline, writer, writer.track("counters", root))
        timeline.seek(first_step)
        self.cpus = [
            _CpuTrack(writer, track, tasks, self._first_task(cpu), first_step) for cpu, (track, _) in enumerate(tracks)
        ]
        self.buffers = [buffer for _, buffer in tracks]
        for cpu, buffer in enumerate(self.buffers):
            for addr, phys, size_bytes, value, pc in machine.store_buffer_entries(cpu):
                notes = self._access(value, pc) | {"issued": "before the trace begins"}
                buffer.hold(first_step, self._next(), self._names.data(addr, size_bytes), (phys, size_bytes), notes)

    def _first_task(self, cpu: int) -> _Task:
        """Who runs on a CPU at the beginning, with the functions on its stack."""
        self._cpu = cpu
        registers = self._timeline.machine.registers(cpu)
        rows = [row for row in Unwinder(self._symbols).backtrace(registers) if not row.inlined]
        word = self._symbols.bits // 8
        frames = []
        for row, caller in zip(rows, [*rows[1:], None], strict=True):
            returns = (row.cfa - word, caller.pc) if caller is not None and row.cfa else None
            frames.append(_Frame(row.function, returns=returns))
        if self._timeline.machine.waiting(cpu) in ("start", "off"):
            frames = []
        return _Task(f"first task of cpu{cpu}", frames[::-1])

    def follow(self, progress: Progress) -> None:
        """All events."""
        begin = min(self._first, self._timeline.ready_step)
        shown = False
        for events in self._timeline.events_in_windows(begin, self._end - 1):
            if not len(events):
                continue
            self._take(events.between(self._first, self._end - 1))
            if not shown and int(events.step[-1]) >= self._first:
                # What came before, from `ready` on, is counted silently.
                before = events.between(0, self._first - 1)
                self.counters.follow(before[before.step >= np.uint64(self._timeline.ready_step)], self._end)
                self.counters.show(max(self._first, self._timeline.ready_step))
                events, shown = events.between(self._first, self._end - 1), True
            counted = events[events.step >= np.uint64(self._timeline.ready_step)]
            self.counters.follow(counted, self._first)
            progress(int(events.step[-1]) if len(events) else self._first, self._end)
        for track in self.cpus:
            track.finish(self._end)
        for buffer in self.buffers:
            buffer.finish(self._end)

    def _take(self, events: Events) -> None:
        if not len(events):
            return
        for row in events[self._wanted(events)].rows():
            track = self.cpus[row.cpu]
            function = self._names.function(row.pc)
            if row.kind == DRAIN:
                self._drain(row)
                continue
            if row.kind == AD_UPDATE:
                self._readers.written(row.phys, row.size or 4)
                continue
            track.step(row, function, self._names)
            if row.kind == STORE:
                self._store(row, track)
            elif row.kind == LOAD:
                self._load(row, track)
            elif row.kind in _INSTANTS:
                self._instant(row, track)
                if row.kind == _TRACE and row.phys == self._switch:
                    track.switch(row, function)

    def _wanted(self, events: Events) -> BoolArray:
        """The rows that say something: calls, returns, other functions, held stores and who may read them, and what is
        rare."""
        kind, value, pc = events.kind, events.value, events.pc
        stores, loads = kind == STORE, kind == LOAD
        wanted: BoolArray = _TURNS[kind] | (kind == DRAIN)
        wanted |= stores & ((value - pc) >= np.uint64(2)) & ((value - pc) <= np.uint64(_CALL_BYTES))
        wanted |= loads & (value >= np.uint64(self._code[0])) & (value < np.uint64(self._code[1]))
        wanted |= stores & ((events.info & DRAINED) == 0)
        drained = np.unique(events.phys[kind == DRAIN] // np.uint64(_WORD))
        words = np.concatenate([drained, drained + np.uint64(1), self._readers.words])
        if len(words):
            seen = np.isin(events.phys // np.uint64(_WORD), words)
            seen |= np.isin((events.phys + events.size) // np.uint64(_WORD), words)
            wanted |= seen & (loads | stores | (kind == AD_UPDATE))
        return wanted | self._other_function(events)

    def _other_function(self, events: Events) -> BoolArray:
        """The first event of each CPU in another function than its event before, and the one after each call."""
        numbers = self._names.numbers(events.pc)
        found = np.zeros(len(events), np.bool_)
        own_doing = events.kind != DRAIN  # whose pc is that of the store
        for cpu in range(len(self.cpus)):
            own = np.flatnonzero((events.cpu == cpu) & own_doing)
            if not len(own):
                continue
            found[own[0]] = True  # numbers are of this window only
            found[own[1:]] |= numbers[own[1:]] != numbers[own[:-1]]
            calls = (events.kind[own] == STORE) & ((events.value[own] - events.pc[own]) <= np.uint64(_CALL_BYTES))
            found[own[1:][calls[:-1]]] = True
        return found

    # -- events --

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _access(self, value: int, pc: int) -> Annotations:
        return {"value": value, "at": self._names.place(pc)}

    def _store(self, row: Event, track: _CpuTrack) -> None:
        if row.info & DRAINED:
            if not row.info & DEVICE:
                self._readers.written(row.phys, row.size)
            return
        name, number = self._names.data(row.addr, row.size), self._next()
        notes = self._access(row.value, row.pc)
        track.instant(row, f"store {name}", notes, flows=[number])
        self.buffers[row.cpu].hold(row.step, number, name, (row.phys, row.size), notes)

    def _drain(self, row: Event) -> None:
        held = self.buffers[row.cpu].drain(row.step)
        if not row.info & DEVICE:
            self._readers.written(row.phys, row.size)
            if held is not None:
                self._readers.drained(row.cpu, held)

    def _load(self, row: Event, track: _CpuTrack) -> None:
        if row.info & (DEVICE | FORWARDED):
            return
        stores = self._readers.read(row)
        if stores:
            self.read += len(stores)
            name = self._names.data(row.addr, row.size)
            track.instant(row, f"load {name}", self._access(row.value, row.pc), ended_flows=stores)

    def _instant(self, row: Event, track: _CpuTrack) -> None:
        name = row.name
        if row.kind == _TRACE:
            name = self._names.tracepoints.get(row.phys, f"tracepoint {row.phys}")
        notes: Annotations = {"at": self._names.place(row.pc)}
        if row.kind != _HALT:
            notes |= {"value": row.value, "addr": row.addr}
        track.instant(row, name, notes)
