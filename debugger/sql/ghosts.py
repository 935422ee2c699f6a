"""What the view `ghosts` needs beside its events: zones, and counters with their true counts at the check points.

Both depend on what memory holds when set-up is over, so the tape is replayed up to there; the counts also depend on all
events from there on, so these are read through, once, whatever a query asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from debugger.divergence import Query, mask
from debugger.ghosts import Account, Counter
from debugger.sql.source import Source
from debugger.zones import ZoneLayout
from machine.errors import ExpressionError
from machine.symbols import Symbols
from replayer import Timeline
from traces import Event, Events, Tape
from traces.columns import EVENTS_MAX
from traces.schema import KINDS, U64Array

ITEM_SHIFT = 24
"""A ghost's index operand is the item above this bit and the change, signed, below it (docs/platform.md)."""
_TRACE = KINDS["trace"]


@dataclass(frozen=True)
class Checks:
    """Counters at the tracepoints `vmstat`, ascending by step and item; arrays of one length."""

    step: U64Array
    item: U64Array
    value: npt.NDArray[np.int64]
    expected: npt.NDArray[np.int64]

    def find(self, step: U64Array, item: U64Array) -> npt.NDArray[np.intp]:
        """The number of the check at each (step, item); -1 where there is none. A step has one tracepoint at most."""
        if not len(self.step):
            return np.full(len(step), -1)
        at = np.searchsorted(self.step, step).clip(max=len(self.step) - 1)
        return np.where((self.step[at] == step) & (self.item[at] == item), at, -1)


class Ghosts:
    """Zones and check points of one tape. May be used by several threads."""

    def __init__(self, tape: Tape, source: Source) -> None:
        self._tape, self._source = tape, source
        self._lock = threading.Lock()
        self._timeline: Timeline | None = None
        self._layout: ZoneLayout | None = None
        self._checks: Checks | None = None

    def zone_names(self) -> list[str]:
        """Of the zones, by index; none in a guest without zones."""
        with self._lock:
            self._prepare()
            return [zone.name for zone in self._layout.zones] if self._layout else []

    def zones_of_pages(self, pages: U64Array) -> npt.NDArray[np.int64]:
        """Index of the zone that each `struct page` address belongs to, -1 if none."""
        return self._each(pages, lambda layout, page: layout.zone_of_page(page))

    def zones_at(self, addresses: U64Array) -> npt.NDArray[np.int64]:
        """Index of the zone whose `struct zone` is at each address, -1 if none."""

        def index(layout: ZoneLayout, address: int) -> int | None:
            return next((i for i, zone in enumerate(layout.zones) if zone.address == address), None)

        return self._each(addresses, index)

    def _each(self, values: U64Array, find: Callable[[ZoneLayout, int], int | None]) -> npt.NDArray[np.int64]:
        distinct, inverse = np.unique(values, return_inverse=True)
        with self._lock:
            layout = self._prepare()
            found = [find(layout, value) if layout is not None else None for value in distinct.tolist()]
        return np.array([-1 if row is None else row for row in found] or [-1], np.int64)[inverse]

    def checks(self) -> Checks:
        """All check points. Raises what reading and replaying the tape raises."""
        with self._lock:
            if self._checks is None:
                self._prepare()
                self._checks = self._follow()
            return self._checks

    def _prepare(self) -> ZoneLayout | None:
        if self._timeline is None:
            timeline = Timeline(self._tape)
            timeline.seek(timeline.ready_step)
            machine = timeline.machine
            try:
                symbols = Symbols(timeline.image, lambda address, size: machine.read_linear(0, address, size))
                self._layout = ZoneLayout(symbols, machine.cpus, lambda address: machine.translate(0, address))
            except ExpressionError:
                self._layout = None  # a guest without zones
            self._timeline = timeline
        return self._layout

    def _follow(self) -> Checks:
        found: list[tuple[int, int, int, int]] = []
        layout, timeline = self._layout, self._timeline
        assert timeline is not None
        names = {} if layout is None else {number: name for name, number in layout.items.items()}
        accounts = [self._account(timeline, names[item], item, found) for item in self._items() if item in names]
        into = Events.buffer(EVENTS_MAX)
        for piece in self._source.pieces if accounts else ():
            events = self._source.read(piece, into)
            events = events[events.step >= np.uint64(timeline.ready_step)]
            for account in accounts:
                account.follow(list(events[mask(events, [account])].rows()))
        found.sort()
        columns = list(zip(*found, strict=True)) or [()] * 4
        step, item = (np.array(column, np.uint64) for column in columns[:2])
        value, expected = (np.array(column, np.int64) for column in columns[2:])
        return Checks(step, item, value, expected)

    def _account(self, timeline: Timeline, name: str, item: int, found: list[tuple[int, int, int, int]]) -> Account:
        def note(event: Event, counter: Counter, value: int, expected: int) -> None:
            if counter.zone is not None:
                found.append((event.step, item, value, expected))

        account = Query(timeline, name).account()
        account.on_check = note
        return account

    def _items(self) -> list[int]:
        """The items that the tape's ghosts announce."""
        items: set[int] = set()
        numbers = [number for number, name in self._tape.symbols.tracepoints().items() if name == "ghost"]
        into = Events.buffer(EVENTS_MAX)
        for piece in self._source.pieces if numbers else ():
            events = self._source.read(piece, into)
            chosen = (events.kind == _TRACE) & np.isin(events.phys, np.array(numbers, np.uint64))
            items |= set((events.addr[chosen] >> np.uint64(ITEM_SHIFT)).tolist())
        return sorted(items)
