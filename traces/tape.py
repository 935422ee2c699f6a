"""A tape as one asks it questions: by step, by place in memory, by name. Memory is bounded by a few chunks."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from operator import index as integer
from typing import Final

import numpy as np

from machine.errors import ExpressionError, TapeDamagedError, UsageError
from machine.symbols import Symbols
from traces.attach import SOURCE
from traces.calls import Call, CallFinder
from traces.chunks import Chunk, FormatError
from traces.columns import Event, Events
from traces.index import NEGATIVE, READ, WRITTEN, ChunkIndex
from traces.reader import TapeFile
from traces.schema import AD_UPDATE, DEVICE, KINDS, LOAD, BoolArray, describe_record, step_counts

_INDEX_CACHE_BYTES: Final = 64 << 20
_WALK: Final = KINDS["walk"]


@dataclass(frozen=True)
class Range:
    """`size_bytes` bytes of RAM from physical address `phys` on; `text` is what people call them."""

    phys: int
    size_bytes: int
    text: str

    def __post_init__(self) -> None:
        if self.size_bytes < 1 or self.phys < 0 or self.phys + self.size_bytes >= 1 << 64:
            raise UsageError(f"{self.text}: {self.size_bytes} bytes at {self.phys:#x} are no range of memory")


What = str | int | Range | tuple[int, int]
"""Memory: a C lvalue of the guest with a fixed place, an address, (address, size in bytes), or a `Range`."""


class Selection:
    """Some events of a tape, found as they are asked for. Iterating gives them one by one.

    Args:
        parts: makes an iterator over the events, a chunk at a time; backwards if its argument is True.
    """

    def __init__(self, parts: Callable[[bool], Iterator[Events]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Event]:
        for part in self._parts(False):
            yield from part.rows()

    def parts(self) -> Iterator[Events]:
        """The same as columns, a chunk at a time; none is empty."""
        return (part for part in self._parts(False) if len(part))

    def first(self) -> Event | None:
        """The first of them. Looks no further."""
        return next((part.row(0) for part in self.parts()), None)

    def last(self) -> Event | None:
        """The last of them. Looks from the end."""
        return next((part.row(-1) for part in self._parts(True) if len(part)), None)

    def count(self) -> int:
        """How many there are. Reads all of them."""
        return sum(len(part) for part in self.parts())

    def events(self) -> Events:
        """All of them, as columns. Takes memory for all."""
        return Events.concatenate(list(self.parts()))


class TapeEvents:
    """The events of a tape: `tape.events[a:b]` are those of steps a to b - 1, `tape.events[a]` those of step a.

    Iterating gives all of them, one by one.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __getitem__(self, steps: slice | int) -> Events:
        first, end = _steps(steps)
        return Events.concatenate(list(self._tape.events_in_chunks(first, end - 1)))

    def __iter__(self) -> Iterator[Event]:
        for part in self.parts():
            yield from part.rows()

    def parts(self, first_step: int = 0, end_step: int | None = None) -> Iterator[Events]:
        """Those of steps `first_step` to `end_step` - 1 as columns, a chunk at a time."""
        return self._tape.events_in_chunks(first_step, _U64_MAX if end_step is None else end_step - 1)


_U64_MAX: Final = (1 << 64) - 1


def _steps(steps: slice | int) -> tuple[int, int]:
    """(first step, end step). Raises UsageError for what is no ascending range."""
    if not isinstance(steps, slice):
        first = integer(steps)  # numpy's integers, too
        steps = slice(first, first + 1)
    if steps.step not in (None, 1):
        raise UsageError("steps are taken one after the other: tape.events[first:end]")
    first = 0 if steps.start is None else integer(steps.start)
    end = _U64_MAX if steps.stop is None else integer(steps.stop)
    if first < 0 or end < 0:
        raise UsageError("steps are counted from the start of the tape: none is negative")
    return min(first, _U64_MAX), min(end, _U64_MAX)


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task on a CPU: in steps `first_step` to `end_step` - 1.

    `task` is the address of its task_struct; None if that is not known. The step of the switch itself counts for the
    next one.
    """

    task: int | None
    cpu: int
    first_step: int
    end_step: int


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a tape.

    Attributes:
        step: its number; it leads from position `step` to `step` + 1.
        cpu: the CPU that takes it, or whose store drains, whose interrupt arrives.
        choice: the choice that it is part of, as people write it.
        events: what it did; empty where the tape has no events.
    """

    step: int
    cpu: int
    choice: str
    events: Events


class Tape(TapeFile):
    """A tape, open for questions: `TapeFile` with lazy, typed access to what is on it.

    `events` gives columns by step. What asks for memory takes a C lvalue of the guest (`vm_stat[NR_FREE_PAGES]`), a
    physical or linear address, (address, size in bytes), or a `Range`. Questions about memory leave out every chunk
    whose index says that it holds nothing of it; without indexes they take longer and give the same.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._indexes: OrderedDict[int, ChunkIndex] = OrderedDict()
        self._indexes_bytes = 0
        self._index_asked: ChunkIndex | None = None
        self._index_asked_bytes = 0
        self._ends = [c.end_step for c in self.events_chunks]

    @cached_property
    def events(self) -> TapeEvents:
        """The events, by step."""
        return TapeEvents(self)

    @cached_property
    def symbols(self) -> Symbols:
        """Names, types and source lines of the guest. Raises TapeError, ImageError."""

        def nothing(address: int, size_bytes: int) -> bytes:
            raise LookupError(address)

        return Symbols(self.image(), nothing, self.sources)

    @cached_property
    def sources(self) -> dict[str, bytes]:
        """The guest's source texts that are attached, by path. What is damaged is left out."""
        found: dict[str, bytes] = {}
        for chunk in self.attachment_chunks:
            with contextlib.suppress(TapeDamagedError):
                attachment = self.read_attachment(chunk)
                if attachment.type == SOURCE:
                    found[attachment.name] = attachment.data
        return found

    # -- memory --

    def range_of(self, what: What) -> Range:
        """Where something lies. Raises UsageError, ExpressionError if it has no fixed place in memory."""
        if isinstance(what, Range):
            return what
        if isinstance(what, str):
            try:
                lvalue = self.symbols.lvalue(what)
            except ExpressionError as error:
                if "cannot read guest memory" in str(error):
                    raise ExpressionError(
                        f"'{what}' lies where a pointer says, which depends on the moment; name something that does "
                        "not move, or give its address"
                    ) from None
                raise
            return Range(self.phys_of(lvalue.address), lvalue.size_bytes, what)
        address, size_bytes = (integer(number) for number in (what if isinstance(what, tuple) else (what, 1)))
        phys = self.phys_of(address)
        if size_bytes > self.header.ram_bytes - phys:
            raise UsageError(f"{size_bytes} bytes at {address:#x} reach beyond the end of RAM")
        return Range(phys, size_bytes, f"{address:#x}")

    def phys_of(self, address: int) -> int:
        """Physical address of a physical or kernel's linear address (its image's, or directly mapped). UsageError."""
        if 0 <= address < self.header.ram_bytes:
            return address
        for row in self.symbols.segments:
            if row.vaddr <= address < row.vaddr + row.size_bytes:
                return row.paddr + address - row.vaddr
        phys = address - _DIRECT_MAP[self.symbols.bits]
        if 0 <= phys < self.header.ram_bytes:
            return phys
        raise UsageError(f"{address:#x} is no address of RAM, nor one at which the guest's kernel maps it for good")

    def writes(self, what: What, first_step: int = 0, end_step: int | None = None) -> Selection:
        """Writes to `what` that become visible in steps `first_step` to `end_step` - 1 (None: to the end).

        A store counts at the step at which it reaches memory: its own if info has DRAINED, else that of its drain.
        """
        place = self.range_of(what)
        return self._select(place, WRITTEN, lambda e: e.writes(place.phys, place.size_bytes), first_step, end_step)

    def reads(self, what: What, first_step: int = 0, end_step: int | None = None) -> Selection:
        """Loads and page walks that read any byte of `what` in these steps."""
        place = self.range_of(what)

        def reads(events: Events) -> Events:
            of_ram = (events.kind == LOAD) & ((events.info & DEVICE) == 0) | (events.kind == _WALK)
            return events[of_ram & _touches(events, place)]

        return self._select(place, READ, reads, first_step, end_step)

    def last_write(self, what: What, before: int | None = None) -> Event | None:
        """The last write to `what` that becomes visible in a step before `before` (None: the end)."""
        place = self.range_of(what)
        stop = _U64_MAX if before is None else int(before)
        for chunk in reversed(self.events_chunks[: bisect_left(self._ends, stop) + 1]):
            if chunk.first_step >= stop:
                continue
            row = self._last_row(chunk, place) if chunk.end_step <= stop else None
            if row == -1:
                continue
            if row is not None:
                found = self._covering_write(chunk, row, place)
                if found is not None:
                    return found
            elif not self.may_hold(chunk, place, WRITTEN):
                continue
            events = self.read_events(chunk)[1].between(0, stop - 1).writes(place.phys, place.size_bytes)
            if len(events):
                return events.row(-1)
        return None

    def next_write(self, what: What, after: int) -> Event | None:
        """The first write to `what` that becomes visible in a step after `after`."""
        return self.writes(what, after + 1).first()

    def first_negative(self, what: What, first_step: int = 0) -> Event | None:
        """The first store or drain from `first_step` on after which the signed integer `what` is below zero.

        Says nothing of what was there before the first event. A/D updates are left out: they change no sign. Raises
        UsageError unless `what` has 1, 2, 4 or 8 bytes.
        """
        place = self.range_of(what)
        if place.size_bytes not in (1, 2, 4, 8):
            raise UsageError(f"{place.text} has {place.size_bytes} bytes, so it is no integer")
        top = place.phys + place.size_bytes - 1
        # An index knows the sign of what was written as a whole: enough unless a wider write covers a small integer.
        flags = NEGATIVE if place.size_bytes >= 4 and place.phys % place.size_bytes == 0 else WRITTEN

        def negative(events: Events) -> Events:
            found = events.writes(top, 1)
            found = found[found.kind != AD_UPDATE]
            shift = np.minimum(np.uint64(8) * (np.uint64(top) - found.phys) + np.uint64(7), np.uint64(63))
            return found[(found.value >> shift & np.uint64(1)).astype(bool)]

        return self._select(place, flags, negative, first_step, None).first()

    def calls(self, function: str, first_step: int = 0, end_step: int | None = None) -> Iterator[Call]:
        """Calls of `function` in steps `first_step` to `end_step` - 1, inlined ones too, by their first memory access.

        Inlined calls between which the surrounding function touches no memory count as one. Raises UsageError if there
        is no such function or its calls cannot be told.
        """
        return CallFinder(self, function).find(int(first_step), _U64_MAX if end_step is None else int(end_step))

    def events_of_kinds(self, kinds: Set[int] | None, first_step: int = 0, end_step: int | None = None) -> Selection:
        """Events of some kinds (None: of all) in steps `first_step` to `end_step` - 1."""
        first_step, end = int(first_step), _U64_MAX if end_step is None else int(end_step)
        wanted = np.array(sorted(kinds or ()), np.uint8)

        def parts(backwards: bool) -> Iterator[Events]:
            for chunk in reversed(self.events_chunks) if backwards else self.events_chunks:
                if chunk.end_step > first_step and chunk.first_step < end and self._may_have_kinds(chunk, kinds):
                    events = self.read_events(chunk)[1].between(first_step, end - 1)
                    yield events if kinds is None else events[np.isin(events.kind, wanted)]

        return Selection(parts)

    def traces(
        self, name: str, value: int | None = None, first_step: int = 0, end_step: int | None = None
    ) -> Selection:
        """Tracepoints of a name (`lock_acquire`, `sched_switch`, ...) in these steps, with this first operand if given.

        Raises UsageError if the guest has none of this name.
        """
        numbers = {text: number for number, text in self.symbols.tracepoints().items()}
        if name not in numbers:
            raise UsageError(f"the guest has no tracepoint '{name}'; it has {', '.join(sorted(numbers))}")
        if value is not None and not 0 <= value <= _U64_MAX:
            raise UsageError(f"{value} is no operand of 64 bits")
        identifier = numbers[name]
        first_step, end = int(first_step), _U64_MAX if end_step is None else int(end_step)

        def parts(backwards: bool) -> Iterator[Events]:
            for chunk in reversed(self.events_chunks) if backwards else self.events_chunks:
                if chunk.end_step > first_step and chunk.first_step < end and self._may_trace(chunk, identifier, value):
                    events = self.read_events(chunk)[1].between(first_step, end - 1)
                    chosen = (events.kind == KINDS["trace"]) & (events.phys == np.uint64(identifier))
                    yield events[chosen if value is None else chosen & (events.value == np.uint64(value))]

        return Selection(parts)

    def task_runs(self) -> Iterator[TaskRun]:
        """Which task ran on which CPU from when to when, as far as the tape has events, in the order of their ends.

        Told by the guest's `sched_switch`; a CPU that never switches runs a task that is not known.
        """
        first, end = self.events_range
        since = [first] * self.header.cpus
        runs: list[int | None] = [None] * self.header.cpus
        for row in self.traces("sched_switch"):
            yield TaskRun(row.value, row.cpu, since[row.cpu], row.step)
            since[row.cpu], runs[row.cpu] = row.step, row.addr
        for cpu, task in enumerate(runs):
            yield TaskRun(task, cpu, since[cpu], end)

    # -- steps --

    def at(self, step: int) -> Step:
        """One step. Raises UsageError outside the tape, TapeDamagedError."""
        step = int(step)
        number = bisect_right(self.choices_chunks, step, key=lambda chunk: chunk.end_step)
        if step < 0 or number == len(self.choices_chunks):
            raise UsageError(f"step {step} is outside the tape, which has steps 0 to {self.end_step - 1}")
        choices = self.read_choices(self.choices_chunks[number])
        ends = np.cumsum(step_counts(choices.records))
        record = choices.records[int(np.searchsorted(ends, np.uint64(step - choices.first_step), side="right"))]
        return Step(step, int(record["cpu"]), describe_record(record), self.events[step])

    # -- helpers --

    def _select(
        self, place: Range, flags: int, pick: Callable[[Events], Events], first_step: int, end_step: int | None
    ) -> Selection:
        first_step, end = int(first_step), _U64_MAX if end_step is None else int(end_step)

        def parts(backwards: bool) -> Iterator[Events]:
            for chunk in reversed(self.events_chunks) if backwards else self.events_chunks:
                if chunk.end_step > first_step and chunk.first_step < end and self.may_hold(chunk, place, flags):
                    yield pick(self.read_events(chunk)[1].between(first_step, end - 1))

        return Selection(parts)

    def _covering_write(self, chunk: Chunk, row: int, place: Range) -> Event | None:
        """Event `row` if it writes all of the range; an index knows words, so it may have written beside it."""
        with contextlib.suppress(TapeDamagedError):
            found = self.read_row(chunk, row)
            covers = found.phys <= place.phys and place.phys + place.size_bytes <= found.phys + found.size
            if covers and Events.from_rows([found]).is_write()[0]:
                return found
        return None

    def may_hold(self, chunk: Chunk, place: Range, flags: int) -> bool:
        """Whether a chunk may have events of the kind that one of the flags says (traces.index), in the range."""
        found = self._find(chunk, place)
        return found is None or bool(found[0] & flags)

    def _last_row(self, chunk: Chunk, place: Range) -> int | None:
        """Row of the last visible write to the words of the range, -1 if there is none; None if no index tells."""
        found = self._find(chunk, place)
        return None if found is None else found[1]

    def _find(self, chunk: Chunk, place: Range) -> tuple[int, int] | None:
        index = self.cached_index(chunk)
        try:
            return None if index is None else index.find(place.phys, place.size_bytes)
        except FormatError:
            return None

    def _may_trace(self, chunk: Chunk, identifier: int, value: int | None) -> bool:
        index = self.cached_index(chunk)
        with contextlib.suppress(FormatError):
            if index is not None:
                values = index.operands(identifier, 0)
                return bool(len(values) if value is None else (values == np.uint64(value)).any())
        return True

    def _may_have_kinds(self, chunk: Chunk, kinds: Set[int] | None) -> bool:
        index = None if kinds is None else self.cached_index(chunk)
        with contextlib.suppress(FormatError):
            if index is not None and kinds is not None:
                return not kinds.isdisjoint(index.kinds)
        return True

    def may_run(self, chunk: Chunk, low_pc: int, end_pc: int) -> bool:
        """Whether a chunk may have events of instructions at `low_pc` to `end_pc` - 1."""
        index = self.cached_index(chunk)
        with contextlib.suppress(FormatError):
            if index is not None:
                at = int(np.searchsorted(index.pcs, np.uint64(low_pc)))
                return at < len(index.pcs) and int(index.pcs[at]) < end_pc
        return True

    def cached_index(self, chunk: Chunk) -> ChunkIndex | None:
        """As `index_of`; the latest stay in memory, up to 64 MB."""
        self.looked_at = chunk.first_step
        # The index asked last may have grown by what it was asked.
        if self._index_asked is not None:
            grown = self._index_asked.memory_bytes
            self._indexes_bytes += grown - self._index_asked_bytes
            self._index_asked_bytes = grown
        index = self._indexes.get(chunk.offset)
        if index is None:
            index = self.index_of(chunk)
            if index is None:
                return None
            self._indexes[chunk.offset] = index
            self._indexes_bytes += index.memory_bytes
            while self._indexes_bytes > _INDEX_CACHE_BYTES and len(self._indexes) > 1:
                _, oldest = self._indexes.popitem(last=False)
                self._indexes_bytes -= oldest.memory_bytes
        else:
            self._indexes.move_to_end(chunk.offset)
        self._index_asked, self._index_asked_bytes = index, index.memory_bytes
        return index


_DIRECT_MAP: Final = {32: 0xC0000000, 64: 0xFFFF880000000000}
"""PAGE_OFFSET, from which on Linux 2.6.39 maps all of RAM (arch/x86/include/asm/page_{32,64}_types.h)."""


def _touches(events: Events, place: Range) -> BoolArray:
    mask: BoolArray = (events.phys < np.uint64(place.phys + place.size_bytes)) & (
        events.phys + events.size > np.uint64(place.phys)
    )
    return mask


def open(path: str | os.PathLike[str]) -> Tape:
    """Open a tape. Raises TapeError, TapeDamagedError."""
    return Tape(path)
