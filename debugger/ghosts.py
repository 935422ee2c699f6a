"""Counters against their ghosts: follows one tape's events and finds where a zone counter first goes wrong.

A *ghost* is the true count, kept from tracepoints (docs/platform.md): `ghost` announces that a page's true state
changes, before the counter does; `vmstat` marks the moment at which the same task has brought the counter up to date.
In between the task is *in flight*: neither its announced pages nor what it has already added counts for anybody else.
A task is one context per nesting depth of interrupts, because a handler may count in the middle of the task's work.

The value of a counter is what memory will hold once all store buffers have drained; on SMP that is the zone's word
plus every CPU's differential. This module knows no symbols: places and zones come in as numbers (debugger/zones.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from traces import Event
from traces.schema import DEVICE, DRAINED, KINDS

LOAD, STORE, DRAIN, TRACE = (KINDS[name] for name in ("load", "store", "drain", "trace"))
ENTRIES = tuple(KINDS[name] for name in ("interrupt", "fault", "soft_interrupt"))
IRET = KINDS["iret"]

Context = tuple[Hashable, int]
"""(task, interrupt depth)."""


@dataclass
class Place:
    """One word or byte of a counter, with the stores to it that still wait in buffers.

    Attributes:
        phys: physical address.
        size_bytes: 1, 2, 4 or 8.
        memory: unsigned value in RAM.
        held: waiting stores in the order of issue: (cpu, phys, size in bytes, value).
        signed: whether its top bit is a sign.
    """

    phys: int
    size_bytes: int
    memory: int = 0
    held: list[tuple[int, int, int, int]] = field(default_factory=list)
    signed: bool = True

    def touches(self, phys: int, size_bytes: int) -> bool:
        """Whether an access overlaps this place."""
        return phys < self.phys + self.size_bytes and self.phys < phys + size_bytes

    def _laid_over(self, value: int, phys: int, size_bytes: int, stored: int) -> int:
        data = bytearray(value.to_bytes(self.size_bytes, "little"))
        for offset, byte in enumerate(stored.to_bytes(size_bytes, "little"), phys - self.phys):
            if 0 <= offset < self.size_bytes:
                data[offset] = byte
        return int.from_bytes(data, "little")

    def store(self, row: Event) -> None:
        """A store event: visible at once, or held."""
        if row.info & DRAINED:
            self.memory = self._laid_over(self.memory, row.phys, row.size, row.value)
        else:
            self.held.append((row.cpu, row.phys, row.size, row.value))

    def drain(self, row: Event) -> None:
        """A drain event: the CPU's oldest held store reaches memory."""
        for index, entry in enumerate(self.held):
            if entry[0] == row.cpu:
                del self.held[index]
                break
        self.memory = self._laid_over(self.memory, row.phys, row.size, row.value)

    @property
    def value(self) -> int:
        """The value once every held store has drained."""
        value = self.memory
        for _cpu, phys, size_bytes, stored in self.held:
            value = self._laid_over(value, phys, size_bytes, stored)
        top = 1 << (8 * self.size_bytes - 1)
        return value - 2 * top if self.signed and value & top else value


@dataclass
class Counter:
    """A counter: the sum of its places.

    Attributes:
        name: for people.
        zone: index of the zone it counts for; None: all zones together.
        places: the word first, then per-CPU differentials.
        watched: whether it may become a finding (others only stand in the final table).
    """

    name: str
    zone: int | None
    places: list[Place]
    watched: bool = True

    @property
    def value(self) -> int:
        """Signed sum of all places."""
        return sum(place.value for place in self.places)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at one event: value and, where a ghost exists, the expected value."""

    event: Event
    counter: Counter
    value: int
    expected: int | None


@dataclass
class Tracepoints:
    """Identifiers of the tracepoints that matter here; 0 where the image has none of that name."""

    ghost: int = 0
    vmstat: int = 0
    sched_switch: int = 0


@dataclass
class _Work:
    """What one context has announced and changed since its last check point."""

    announced: list[tuple[int, int]] = field(default_factory=list)
    changed: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    wrote: dict[int, Event] = field(default_factory=dict)


class Account:
    """Follows events and keeps the first findings.

    Args:
        counters: with their places' memory as of the first event.
        item: number of the vmstat item, None for a counter without ghost.
        zones: index of a zone by the address of its `struct zone`.
        zone_of_page: index of the zone that a `struct page` address belongs to, None if it is no page.
        tracepoints: identifiers.
        smp: whether readers clamp negative values to 0 and per-CPU differentials exist.
        owner: names the function (not an accounting helper of a header) that an instruction belongs to.
    Attributes:
        divergence, negative: the first of each, or None.
        ghost: true count by zone index, relative to the counters' start values.
        announced: whether any ghost of the item was seen.
        on_check: called at each check point with the event and each counter that it is about, of one zone or of all
            together: what it is and what it should be.
    """

    def __init__(
        self,
        counters: Sequence[Counter],
        *,
        item: int | None,
        zones: dict[int, int],
        zone_of_page: Callable[[int], int | None],
        tracepoints: Tracepoints,
        smp: bool,
        owner: Callable[[int], Hashable],
    ) -> None:
        self.counters = list(counters)
        self.divergence: Finding | None = None
        self.negative: Finding | None = None
        self.ghost: dict[int, int] = {row.zone: row.value for row in counters if row.zone is not None}
        # Whatever the whole counts beyond its parts at the start (nothing, in a sound guest) is not a finding.
        self._global_start = {
            index: row.value - sum(self.ghost.values()) for index, row in enumerate(counters) if row.zone is None
        }
        self.announced = False
        self.on_check: Callable[[Event, Counter, int, int], None] | None = None
        # A differential counts for its zone and for all zones together, but it is one byte.
        self._places = list({id(place): place for row in self.counters for place in row.places}.values())
        self._item, self._zones, self._zone_of_page = item, zones, zone_of_page
        self._ids, self._smp, self._owner = tracepoints, smp, owner
        self._task: dict[int, Hashable] = {}
        self._depth: dict[Hashable, int] = defaultdict(int)
        self._work: dict[Context, _Work] = {}
        self._negative_candidates: dict[tuple[Context, int], Finding] = {}
        self._misled: dict[Hashable, Finding] = {}
        self._writers: set[Hashable] = set()

    @property
    def identifiers(self) -> tuple[int, ...]:
        """Of the tracepoints that `follow` wants to see."""
        return self._ids.ghost, self._ids.vmstat, self._ids.sched_switch

    # -- events --

    def follow(self, rows: list[Event]) -> None:
        """Take the events of whole steps, in order."""
        for index, row in enumerate(rows):
            if row.kind == STORE and not row.info & DEVICE:
                self._write(row)
            elif row.kind == DRAIN:
                self._drain(row)
            elif row.kind == LOAD and not row.info & DEVICE:
                self._load(row, rows, index)
            elif row.kind == TRACE:
                self._trace(row)
            elif row.kind in ENTRIES:
                self._depth[self._current(row.cpu)] += 1
            elif row.kind == IRET:
                task = self._current(row.cpu)
                # The interrupt that this IRET ends may lie before the first event.
                self._depth[task] = max(0, self._depth[task] - 1)

    def misled(self) -> Finding | None:
        """The first load of a wrong value by code that does not itself update the counter."""
        found = [row for owner, row in self._misled.items() if owner not in self._writers]
        return min(found, key=lambda row: row.event.step, default=None)

    def finish(self) -> None:
        """After the last event: settle what no check point decided."""
        for (_context, index), row in sorted(self._negative_candidates.items(), key=lambda pair: pair[1].event.step):
            if self.negative is None and self.counters[index].value < 0:
                self.negative = row

    def expected(self, index: int) -> int:
        """What counter `index` should be by the ghosts of everybody who is not in flight."""
        zone = self.counters[index].zone
        return sum(self.ghost.values()) + self._global_start[index] if zone is None else self.ghost[zone]

    def settled(self, index: int, but: Context | None = None) -> int:
        """The value of counter `index` without what contexts in flight (other than `but`) have changed."""
        return self.counters[index].value - sum(
            work.changed.get(index, 0)
            for context, work in self._work.items()
            # Folding a differential into its zone announces nothing and has two halves: in flight on SMP only.
            if context != but and (work.announced or self._smp)
        )

    # -- who --

    def _current(self, cpu: int) -> Hashable:
        return self._task.get(cpu, ("cpu", cpu))

    def _context(self, cpu: int) -> Context:
        task = self._current(cpu)
        return task, self._depth[task]

    def _switch(self, row: Event) -> None:
        """The first switch on a CPU tells who was running on it until then."""
        unknown = ("cpu", row.cpu)
        if row.cpu not in self._task:
            self._depth[row.value] = self._depth.pop(unknown, 0)
            for task, depth in [key for key in self._work if key[0] == unknown]:
                self._work[(row.value, depth)] = self._work.pop((task, depth))
        self._task[row.cpu] = row.addr

    # -- what --

    def _trace(self, row: Event) -> None:
        if row.phys == self._ids.sched_switch:
            self._switch(row)
        elif self._item is None:
            return
        elif row.phys == self._ids.ghost and row.addr >> 24 == self._item:
            zone = self._zone_of_page(row.value)
            delta = row.addr & 0xFFFFFF
            if zone is not None:
                self.announced = True
                work = self._work.setdefault(self._context(row.cpu), _Work())
                work.announced.append((zone, delta - (1 << 24) if delta & 0x800000 else delta))
        elif row.phys == self._ids.vmstat and row.addr == self._item and row.value in self._zones:
            self._check(row, self._zones[row.value])

    def _write(self, row: Event) -> None:
        touched = self._touched(row)
        if not touched:
            return
        before = {index: self.counters[index].value for index in touched}
        for place in self._places:
            if place.touches(row.phys, row.size):
                place.store(row)
        context = self._context(row.cpu)
        for index in touched:
            self._wrote(context, index, row, before[index])

    def _touched(self, row: Event) -> list[int]:
        return [
            index
            for index, counter in enumerate(self.counters)
            if any(place.touches(row.phys, row.size) for place in counter.places)
        ]

    def _wrote(self, context: Context, index: int, row: Event, before: int) -> None:
        counter = self.counters[index]
        work = self._work.setdefault(context, _Work())
        work.changed[index] += counter.value - before
        work.wrote[index] = row
        if counter.places[0].touches(row.phys, row.size):
            self._writers.add(self._owner(row.pc))
        if not counter.watched or counter.value >= 0 or self.negative is not None:
            return
        finding = Finding(row, counter, counter.value, self._expected_by(index, work))
        if self._smp and self._item is not None:
            # A differential and its zone change in two stores; the sum between them says nothing.
            self._negative_candidates.setdefault((context, index), finding)
        else:
            self.negative = finding

    def _expected_by(self, index: int, work: _Work) -> int | None:
        """The expected value once `work` is done; None without ghosts."""
        if self._item is None or not self._has_ghost(index):
            return None
        zone = self.counters[index].zone
        return self.expected(index) + sum(delta for where, delta in work.announced if zone in (None, where))

    def _has_ghost(self, index: int) -> bool:
        zone = self.counters[index].zone
        return zone is None or zone in self.ghost

    def _drain(self, row: Event) -> None:
        for place in self._places:
            if place.touches(row.phys, row.size):
                place.drain(row)

    def _check(self, row: Event, zone: int) -> None:
        context = self._context(row.cpu)
        work = self._work.setdefault(context, _Work())
        for where, delta in work.announced:
            self.ghost[where] = self.ghost.get(where, 0) + delta
        work.announced.clear()
        for index, counter in enumerate(self.counters):
            if counter.zone not in (None, zone):
                continue
            value = self.settled(index, but=context)
            if self.on_check is not None:
                self.on_check(row, counter, value, self.expected(index))
            work.changed.pop(index, None)
            cause = self._cause(index, value, work.wrote.pop(index, row))
            candidate = self._negative_candidates.pop((context, index), None)
            if not counter.watched:
                continue
            if self.divergence is None and value != self.expected(index):
                self.divergence = Finding(cause, counter, value, self.expected(index))
            if self.negative is None and candidate is not None and value < 0:
                self.negative = Finding(candidate.event, counter, value, self.expected(index))
        if not work.changed:
            del self._work[context]

    def _cause(self, index: int, value: int, own: Event) -> Event:
        """The write to blame: the checking task's own, unless somebody's unannounced writes explain the difference."""
        others = [work for work in self._work.values() if index in work.wrote and not work.announced]
        strays = [work.wrote[index] for work in others if work.changed.get(index)]
        explained = sum(work.changed.get(index, 0) for work in others)
        if self._smp or not strays or value - explained != self.expected(index):
            return own
        return min(strays, key=lambda row: row.step)

    def _load(self, row: Event, rows: list[Event], index: int) -> None:
        """Remember the first load per function that gets a wrong value."""
        if self._item is None:
            return
        for number, counter in enumerate(self.counters):
            word = counter.places[0]
            if not counter.watched or (row.phys, row.size) != (word.phys, word.size_bytes):
                continue
            error = self.settled(number) - self.expected(number)
            if not error or _updates(rows, index, word):
                continue
            seen, right = row.value, self.expected(number)
            if self._smp:
                top = 1 << (8 * row.size - 1)
                value = row.value - 2 * top if row.value & top else row.value
                seen = max(0, value)
                # Differentials make a right counter read a little off; that alone misleads nobody.
                if seen == max(0, value - error):
                    continue
            if seen != right:
                self._misled.setdefault(self._owner(row.pc), Finding(row, counter, seen, right))


def _updates(rows: list[Event], index: int, word: Place) -> bool:
    """Whether the load at `index` belongs to an instruction that also stores the word."""
    row = rows[index]
    for other in rows[index + 1 : index + 8]:
        if other.step != row.step:
            return False
        if other.kind == STORE and other.cpu == row.cpu and word.touches(other.phys, other.size):
            return True
    return False
