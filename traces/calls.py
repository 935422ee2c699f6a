"""Calls of a function, told by the events of its code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from machine.disassembly import INSTRUCTION_BYTES_MAX
from machine.symbols import CallSite
from traces.columns import Event, Events
from traces.schema import STORE, BoolArray, U64Array

if TYPE_CHECKING:
    from traces.tape import Tape


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function.

    Attributes:
        step: that of its first memory access.
        cpu: who calls.
        pc: linear address of the instruction that made this access.
        inlined: whether the function is inlined here.
        return_address: where the caller goes on; None if inlined, and where it cannot be told (an interrupt came
            between, or the events begin here).
    """

    step: int
    cpu: int
    pc: int
    inlined: bool
    return_address: int | None


class CallFinder:
    """Finds calls, chunk by chunk.

    A function that is not inlined is entered once for each run over its first memory access. Where it is inlined, a
    call begins with the first event inside after one of the same CPU in the surrounding function, but outside.
    """

    def __init__(self, tape: Tape, function: str) -> None:
        self._tape = tape
        self._sites = tape.symbols.call_sites(function)
        # Whether the CPU's latest event in the function was at this site; missing: not known yet.
        self._inside: dict[tuple[CallSite, int], bool] = {}

    def find(self, first_step: int, end_step: int) -> Iterator[Call]:
        """Those in steps `first_step` to `end_step` - 1."""
        chunks = self._tape.events_chunks
        for number, chunk in enumerate(chunks):
            if chunk.end_step <= first_step or chunk.first_step >= end_step:
                continue
            sites = [s for s in self._sites if self._tape.may_run(chunk, s.function, s.function_end)]
            if not sites:
                continue
            events = self._tape.read_events(chunk)[1]
            found = sorted({(at, site.inlined) for site in sites for at in self._entries(site, events, number)})
            for at, inlined in found:
                row = events.row(at)
                if not first_step <= row.step < end_step:
                    continue
                before = None if inlined else _latest_of(events[:at], row.cpu)
                if before is None and number and not inlined:
                    before = _latest_of(self._tape.read_events(chunks[number - 1])[1], row.cpu)
                back = None if before is None else self._return_address(before)
                yield Call(row.step, row.cpu, row.pc, inlined, back)

    def _entries(self, site: CallSite, events: Events, number: int) -> Iterator[int]:
        """Rows of the events of chunk `number` with which a call begins at one site."""
        here = np.flatnonzero((events.pc >= np.uint64(site.function)) & (events.pc < np.uint64(site.function_end)))
        for cpu in np.unique(events.cpu[here]).tolist():
            rows = here[events.cpu[here] == cpu]
            pc = events.pc[rows]
            inside = _within(pc, site.ranges)
            enters = _within(pc, (site.entry,))
            if site.inlined:
                if (site, cpu) not in self._inside:
                    self._inside[site, cpu] = bool(enters[0]) and self._was_inside(site, cpu, number)
                before = np.concatenate(([self._inside[site, cpu]], inside[:-1]))
            else:
                # An instruction may make several events, all in its step.
                step = events.step[rows]
                before = np.concatenate(([False], step[1:] == step[:-1]))
            self._inside[site, cpu] = bool(inside[-1])
            yield from rows[enters & ~before].tolist()

    def _was_inside(self, site: CallSite, cpu: int, number: int) -> bool:
        """Whether the last event of a CPU in the function before chunk `number` was at the site."""
        for chunk in reversed(self._tape.events_chunks[:number]):
            if self._tape.may_run(chunk, site.function, site.function_end):
                events = self._tape.read_events(chunk)[1]
                pc = events.pc[events.cpu == cpu]
                pc = pc[_within(pc, ((site.function, site.function_end),))]
                if len(pc):
                    return bool(_within(pc[-1:], site.ranges)[0])
        return False

    def _return_address(self, event: Event) -> int | None:
        """What an event pushed, if it is that of a CALL."""
        width = self._tape.symbols.bits // 8
        pushed = event.kind == STORE and event.size == width and 2 <= event.value - event.pc <= INSTRUCTION_BYTES_MAX
        return event.value if pushed else None


def _within(pc: U64Array, ranges: tuple[tuple[int, int], ...]) -> BoolArray:
    mask: BoolArray = np.zeros(len(pc), np.bool_)
    for low, end in ranges:
        mask |= (pc >= np.uint64(low)) & (pc < np.uint64(end))
    return mask


def _latest_of(events: Events, cpu: int) -> Event | None:
    """The last event of a CPU."""
    rows = np.flatnonzero(events.cpu == cpu)
    return events.row(int(rows[-1])) if len(rows) else None
