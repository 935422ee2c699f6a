"""`first-divergence`: the first event at which a counter and the truth disagree, and what followed from it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from debugger.endings import ending_of
from debugger.frames import is_helper, outside_headers
from debugger.ghosts import ENTRIES, IRET, TRACE, Account, Counter, Finding, Tracepoints
from debugger.progress import progress
from debugger.report import Balance, DivergenceReport, Moment, family
from debugger.zones import Target, ZoneLayout, counter_lvalue, place_of, read_places
from machine import images
from machine.errors import ExpressionError, ImageError, TapeError, UsageError
from machine.symbols import Symbols
from machine.unwind import Unwinder
from replayer import Timeline
from traces import Events, Tape
from traces.schema import DRAIN, LOAD, STORE, BoolArray

PARTNERS: Final = {"NR_ISOLATED_ANON": "NR_ISOLATED_FILE", "NR_ISOLATED_FILE": "NR_ISOLATED_ANON"}
"""Items between which a page can be counted in as one and out as the other."""


class Query:
    """One question to one tape. Moves the timeline; `first_divergence` puts it back."""

    def __init__(self, timeline: Timeline, counter: str) -> None:
        self._timeline = timeline
        self._machine = timeline.machine
        self._cpu = 0
        self._text = counter.strip()
        self._symbols = Symbols(
            timeline.image, lambda addr, size: self._machine.read_linear(self._cpu, addr, size), timeline.tape.sources
        )
        self._unwinder = Unwinder(self._symbols)
        self._notes: list[str] = []
        self._reached = timeline.ready_step
        ready_step = timeline.tape.header.ready_step
        if timeline.last_step < ready_step:
            raise TapeError(
                f"{timeline.tape.path} ends at step {timeline.last_step}, before set-up is over (step {ready_step}): "
                "there is nothing to look at"
            )
        timeline.seek(timeline.ready_step)
        self._layout: ZoneLayout | None = None
        try:
            self._layout = ZoneLayout(self._symbols, self._machine.cpus, self._phys_of)
        except ExpressionError:
            # A guest without zones has counters all the same, but nothing announces their truth.
            self._notes.append("this guest has no zones as Linux has them; only negative values can be found")
        self._smp = self._layout.smp if self._layout else False

    def _phys_of(self, address: int) -> int:
        return self._machine.translate(0, address)

    def answer(self) -> DivergenceReport:
        """Run the whole query. Raises ExpressionError, UsageError for a counter that does not exist."""
        target = self._target()
        account = self._account(target, watched=True)
        partner = self._partner(target)
        accounts = [account, partner] if partner else [account]
        with progress("reading events", lambda: self._reached, self._timeline.last_step):
            self._follow(accounts)
        return self._report(target, account, partner)

    def account(self) -> Account:
        """The counter's account with what it holds at `ready`, for whoever follows it on their own."""
        return self._account(self._target(), watched=True)

    def _target(self) -> Target:
        try:
            if self._layout is not None:
                return self._layout.target(self._text)
            return Target(self._text, None, lvalue=counter_lvalue(self._symbols, self._text))
        except ExpressionError as error:
            raise ExpressionError(
                f"{error}; a counter is a vmstat item such as NR_ISOLATED_FILE or an integer lvalue of the guest"
            ) from error

    def _partner(self, target: Target) -> Account | None:
        if self._layout is None or target.item is None or target.item[1] not in PARTNERS:
            return None
        name = PARTNERS[target.item[1]]
        if name not in self._layout.items:
            return None
        return self._account(Target(name, (self._layout.items[name], name)), watched=False)

    # -- events --

    def _account(self, target: Target, *, watched: bool) -> Account:
        counters = self._counters(target)
        for row in counters:
            row.watched = row.watched and watched
        names = {name: number for number, name in self._symbols.tracepoints().items()}
        ids = Tracepoints(*(names.get(name, 0) for name in ("ghost", "vmstat", "sched_switch")))
        zones = self._layout.zones if self._layout else []
        return Account(
            counters,
            item=target.item[0] if target.item else None,
            zones={row.address: index for index, row in enumerate(zones)},
            zone_of_page=self._layout.zone_of_page if self._layout else lambda _page: None,
            tracepoints=ids,
            smp=self._smp,
            owner=self._owner,
        )

    def _counters(self, target: Target) -> list[Counter]:
        """The target's counters with what memory and store buffers hold now."""
        if target.item is None or self._layout is None:
            assert target.lvalue is not None
            place = place_of(target.lvalue, self._phys_of, signed=target.lvalue.signed)
            counters = [Counter(target.text, None, [place])]
        else:
            counters = self._layout.counters(target.item, target.watched_zone, whole=target.whole)
        places = list({id(place): place for row in counters for place in row.places}.values())
        for place in places:
            if place.phys + place.size_bytes > self._machine.ram_bytes:
                raise UsageError(f"'{target.text}' lies at physical {place.phys:#x}, which is no RAM")
        read_places(places, self._machine)
        return counters

    def _owner(self, pc: int) -> Hashable:
        """The innermost function outside of headers: what a reader or writer of a counter is called by people."""
        row = outside_headers(self._symbols.frames(pc))
        return row.function, row.file

    def _follow(self, accounts: list[Account]) -> None:
        first, last = self._timeline.ready_step, self._timeline.last_step
        for events in self._timeline.events_in_windows(first, last):
            rows = list(events[mask(events, accounts)].rows())
            for account in accounts:
                account.follow(rows)
            if len(events):
                self._reached = int(events.step[-1])
        for account in accounts:
            account.finish()

    # -- the answer --

    def _report(self, target: Target, account: Account, partner: Account | None) -> DivergenceReport:
        has_ghost = target.item is not None and (account.announced or self._declared(target.item[1]))
        if target.item is not None and not has_ghost:
            self._notes.append(f"nothing on this tape announces the true {target.item[1]}; only negatives can be found")
        elif target.lvalue is not None and target.item is None and not target.lvalue.signed:
            self._notes.append(f"{target.text} has no ghost and is unsigned, so never negative: nothing can be found")
        elif target.item is None and self._layout is not None:
            self._notes.append(f"{target.text} has no ghost; only negative values can be found")
        divergence = account.divergence if has_ghost else None
        negative = account.negative
        if negative is not None and not has_ghost:
            negative = replace(negative, expected=None)
        misled = account.misled() if has_ghost else None
        balances = self._balances(account) if has_ghost else self._balances(account, ghost=False)
        if has_ghost:
            self._conclude(account, balances, self._balances(partner) if partner else [], misled)
        return DivergenceReport(
            counter=self._text,
            tape=self._timeline.tape.path,
            smp=self._smp,
            cpus=self._machine.cpus,
            steps=self._timeline.last_step,
            has_ghost=has_ghost,
            ending=ending_of(self._timeline.tape).why,
            scope=self._scope(target),
            first_divergence=self._moment(divergence),
            first_negative=self._moment(negative),
            first_misled_reader=self._moment(misled),
            balances=balances,
            notes=self._notes,
        )

    def _scope(self, target: Target) -> str | None:
        if target.whole:
            return "the global sum"
        if target.watched_zone is None or self._layout is None:
            return None
        return f"zone {self._layout.zones[target.watched_zone].name}"

    def _declared(self, item: str) -> bool:
        """Whether the scenario promises that the guest announces every true change of the item: none is an answer."""
        name = self._timeline.tape.header.scenario
        rows = [row for row in images.scenarios() if row.name == name]
        return any(item in (*row.counters, *row.counters_more) for row in rows)

    def _conclude(
        self, account: Account, balances: list[Balance], partners: list[Balance], misled: Finding | None
    ) -> None:
        kind = family(balances, partners)
        if kind is not None:
            self._notes.append(kind)
        elif account.divergence is not None:
            self._notes.append("transient: every zone's counter is right again at the end of the tape")
        if account.divergence is None or not self._smp:
            return
        hidden = [row.zone for row in balances if row.zone is not None and row.value < 0]
        where = f" (here {', '.join(hidden)})" if hidden else ""
        self._notes.append(
            f"zone_page_state() clamps negative values to 0 on SMP: where the counter is below 0{where} readers see 0"
            + (" and nobody is misled on this tape," if misled is None else ",")
            + " while the ghost diverges all the same"
        )

    def _balances(self, account: Account, *, ghost: bool = True) -> list[Balance]:
        found = []
        for index, row in enumerate(account.counters):
            expected = account.expected(index) if ghost else None
            found.append(Balance(row.name, self._zone_name(row), account.settled(index), expected))
        return found

    def _zone_name(self, counter: Counter) -> str | None:
        return None if counter.zone is None or self._layout is None else self._layout.zones[counter.zone].name

    def _moment(self, finding: Finding | None) -> Moment | None:
        """The source behind an event: the machine goes there, because calls are on its stack."""
        if finding is None:
            return None
        event = finding.event
        self._timeline.seek(event.step)
        self._cpu = event.cpu
        frames = self._unwinder.backtrace(self._machine.registers(event.cpu))
        at = next((i for i, row in enumerate(frames) if not is_helper(row.file)), 0)
        return Moment(
            step=event.step,
            cpu=event.cpu,
            function=frames[at].function,
            file=frames[at].file,
            line=frames[at].line,
            zone=self._zone_name(finding.counter),
            value=finding.value,
            expected=finding.expected,
            pc=event.pc,
            source=self._source(frames[at].file, frames[at].line),
            via=frames[:at],
            backtrace=frames,
        )

    def _source(self, file: str, line: int) -> str:
        try:
            return self._symbols.source(file, line, 0)[0][1] if line else ""
        except ImageError:
            return ""


def mask(events: Events, accounts: Sequence[Account]) -> BoolArray:
    """The rows that any account looks at."""
    accesses = np.isin(events.kind, (LOAD, STORE, DRAIN))
    touched = np.zeros(len(events), dtype=np.bool_)
    end = events.phys + events.size
    for place in (place for account in accounts for row in account.counters for place in row.places):
        touched |= (events.phys < np.uint64(place.phys + place.size_bytes)) & (end > np.uint64(place.phys))
    traces = (events.kind == TRACE) & np.isin(events.phys, [row for a in accounts for row in a.identifiers])
    marks: BoolArray = (accesses & touched) | traces | np.isin(events.kind, (IRET, *ENTRIES))
    return marks


def first_divergence(tape: Tape | Timeline, counter: str) -> DivergenceReport:
    """Where `counter` first goes wrong, computed from the tape's events.

    Args:
        tape: an open tape, or a timeline (whose position is the same afterwards).
        counter: a vmstat item (`NR_ISOLATED_FILE`: every zone is watched) or a C lvalue of the guest. Of an lvalue
            that is no zone counter, only negative values can be found.
    Raises:
        ExpressionError, UsageError: there is no such counter.
        TapeError, ReplayError: the tape cannot be read or replayed.
    """
    timeline = tape if isinstance(tape, Timeline) else Timeline(tape)
    here = timeline.step
    try:
        return Query(timeline, counter).answer()
    finally:
        timeline.seek(here)
