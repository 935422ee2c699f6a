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
import numpy.typing as npt

from replayer import Timeline
from traces import Event, Events
from traces.schema import AD_UPDATE, DEVICE, FORWARDED, KINDS

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
    after = {row.cpu: dict.fromkeys(word.made.cpu for word in row.words if word.made is not None) for row in rows}

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
    """With who made it what it is: the write with which the last of its bytes became what was read. Writes of what was
    there already do not count; before the first write of a byte it is taken to have been another."""
    if read.info & FORWARDED:
        return Word(read, None)  # no other CPU has seen it yet
    oldest: list[Event | None] = [None] * read.size  # by byte: of the writes that wrote what was read
    for window in timeline.events_in_windows(0, read.step - 1, backwards=True):
        writes: Events = window.writes(read.phys, read.size)
        covers, other = _bytes_written(writes, read)
        differing = np.flatnonzero(other.any(axis=1))
        first = int(differing[-1]) + 1 if len(differing) else 0
        for byte in range(read.size):
            if len(found := np.flatnonzero(covers[first:, byte])):
                oldest[byte] = writes.row(first + int(found[0]))
        if first:
            became = [oldest[byte] for byte in np.flatnonzero(other[first - 1])]
            return _made(read, became)
    return _made(read, oldest)


def _made(read: Event, rows: list[Event | None]) -> Word:
    made = max((row for row in rows if row is not None), key=lambda row: row.step, default=None)
    return Word(read, made if made is not None and made.cpu != read.cpu else None)


def _bytes_written(writes: Events, read: Event) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each write and each byte of `read`: whether it wrote that byte, and whether something else than was read."""
    size = np.where(writes.kind == AD_UPDATE, np.maximum(writes.size, 4), writes.size).astype(np.int64)
    at = np.int64(read.phys) + np.arange(read.size) - writes.phys.astype(np.int64)[:, None]
    covers = (at >= 0) & (at < size[:, None])
    shift = (np.where(covers, at, 0) * 8).astype(np.uint64)
    value = writes.value[:, None] >> shift & np.uint64(0xFF)
    expected = np.uint64(read.value) >> (np.arange(read.size, dtype=np.uint64) * np.uint64(8)) & np.uint64(0xFF)
    return covers, covers & (value != expected)
