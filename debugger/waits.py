"""Who waits for what: CPUs that halt, CPUs that go in circles and the words they look at, and who made these what
they are.

A CPU goes in circles if the last steps it has taken are the same ones again and again, with the same values. It waits
for one of the words that it reads in each turn to change; whoever made such a word what it is may have to change it,
and if that one waits as well, and so on back to the first, this is the cycle of a deadlock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from replayer import Timeline
from traces import Event, Events
from traces.schema import DEVICE, KINDS

LOAD: Final = KINDS["load"]
EVENTS_MAX: Final = 2048
"""Events of a CPU that are looked at for a circle."""
TURNS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Word:
    """What a CPU looks at in each turn.

    Attributes:
        read: its last load.
        made: the write of another CPU that made the word what it is; None: nobody has since the tape began, or it did
            so itself.
    """

    read: Event
    made: Event | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A CPU at a position.

    Attributes:
        state: "runs", "spins", or why it waits: "halt", "start", "choice", "off".
        pc: its next instruction.
        words: of one that spins.
    """

    cpu: int
    state: str
    pc: int
    words: tuple[Word, ...] = ()


def waits(timeline: Timeline) -> list[Waiting]:
    """All CPUs, where `timeline` stands."""
    out = []
    for cpu in range(timeline.machine.cpus):
        state = timeline.machine.waiting(cpu)
        pc = timeline.machine.registers(cpu)["rip"]
        turn = [] if state else _circle(timeline, cpu)
        words = tuple(_word(timeline, row) for row in _shared(turn))
        out.append(Waiting(cpu, state or ("spins" if turn else "runs"), pc, words))
    return out


def cycle(rows: list[Waiting]) -> list[int]:
    """CPUs that wait for each other in a circle, each for the next one and the last for the first; empty if none do."""
    after = {row.cpu: [word.made.cpu for word in row.words if word.made is not None] for row in rows}

    def paths(path: list[int]) -> Iterator[list[int]]:
        for cpu in after[path[-1]]:
            if cpu == path[0]:
                yield path
            elif cpu not in path:
                yield from paths([*path, cpu])

    return next((path for row in rows for path in paths([row.cpu])), [])


def _circle(timeline: Timeline, cpu: int) -> list[Event]:
    """The events of the last turn, oldest first; none if the CPU does not go in circles."""
    rows: list[Event] = []
    for window in timeline.events_in_windows(0, timeline.step - 1, backwards=True):
        own = window[np.flatnonzero(window.cpu == cpu)[-EVENTS_MAX:]]
        rows = [own.row(index) for index in range(len(own))] + rows
        if len(rows) >= EVENTS_MAX:
            break
    rows = rows[-EVENTS_MAX:]
    keys = [(row.kind, row.pc, row.phys, row.value) for row in rows]
    for length in range(1, len(rows) // TURNS_MIN + 1):
        turn = keys[-length:]
        if all(keys[-length * (n + 1) : -length * n or None] == turn for n in range(1, TURNS_MIN)):
            return rows[-length:]
    return []


def _shared(turn: list[Event]) -> list[Event]:
    """The last load of each place in RAM."""
    return list({row.phys: row for row in turn if row.kind == LOAD and not row.info & DEVICE}.values())


def _word(timeline: Timeline, read: Event) -> Word:
    """With who made it what it is: the oldest of the last writes of this value."""
    made: Event | None = None
    value = read.value & (1 << 8 * read.size) - 1
    for window in timeline.events_in_windows(0, read.step - 1, backwards=True):
        writes: Events = window.writes(read.phys, read.size)
        for index in range(len(writes) - 1, -1, -1):
            row = writes.row(index)
            if (row.phys, row.size, row.value) != (read.phys, read.size, value):
                if made is None:
                    made = row  # it wrote some of the bytes
                return Word(read, made if made.cpu != read.cpu else None)
            made = row
    return Word(read, made if made is not None and made.cpu != read.cpu else None)
