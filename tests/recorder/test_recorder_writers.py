"""Who made a word what it is: on three CPUs, with ticket locks, and words that others write again unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

import pytest
from agent_threads import machine

from debugger.waits import Waiting, Word, cycle, waits
from machine import Machine
from recorder.schedule import plan
from replayer import Timeline
from traces import Event, Events
from traces.schema import HOLD, KINDS, Op

Row = tuple[int, int, int] | tuple[int, int, int, int]


class Taped:
    """As much of a timeline as is asked about, of a machine that has run with the tap on."""

    def __init__(self, m: Machine, window: int) -> None:
        self.machine, self.step = m, m.step
        self._events, self._window = Events.from_tap(m.events_take()), window

    def events_in_windows(self, first_step: int, last_step: int, *, backwards: bool = False) -> Iterator[Events]:
        assert backwards
        rows = self._events[(self._events.step >= first_step) & (self._events.step <= last_step)]
        for end in range(len(rows), 0, -self._window):
            yield rows[max(end - self._window, 0) : end]


def waiting(*threads: str, schedule: tuple[Row, ...], window: int) -> list[Waiting]:
    m = machine(*threads).machine
    m.tap = True
    m.execute(plan(*schedule).tobytes())
    return waits(cast(Timeline, Taped(m, window)))


def turns(count: int, *cpus: int) -> tuple[Row, ...]:
    return tuple((Op.RUN, cpu, 4) for _ in range(count) for cpu in cpus)


TICKET = "mov $0x100, %eax; lock xaddw %ax, 0x8000; 1: cmpb %ah, 0x8000; jne 1b; "
SPIN = "1: cmpl $0, 0x8000; jne 1b; hlt"


@pytest.mark.parametrize("window", [1, 5, 10_000])
class TestWriters:
    """Whatever the windows of events are in which one looks back."""

    def test_of_a_ticket_lock(self, window: int) -> None:
        """The second byte is the next ticket: who takes one has not made the first what it is."""
        rows = waiting(
            TICKET + "incb 0x8000; hlt",  # the first, who has left
            TICKET + "1: jmp 1b",  # the second, who stays
            TICKET + "hlt",
            schedule=((Op.RUN, 0, 6), (Op.RUN, 1, 6), (Op.RUN, 2, 40)),
            window=window,
        )
        (word,) = [word for word in rows[2].words if word.read.phys == 0x8000]
        assert (word.read.value, word.read.size) == (1, 1)
        assert word.made is not None
        assert word.made.cpu == 0

    def test_of_a_word_that_was_written_again(self, window: int) -> None:
        rows = waiting(
            "movl $1, 0x8000; hlt",
            "mov $1, %ebx; 2: mov %ebx, %eax; xchg %eax, 0x8000; jmp 2b",
            SPIN,
            schedule=((Op.RUN, 0, 2), *turns(12, 1, 2)),
            window=window,
        )
        assert [word.made.cpu for word in rows[2].words if word.made] == [0]
        assert [word.made.cpu for word in rows[1].words if word.made] == [0]

    def test_of_bytes_by_several(self, window: int) -> None:
        """The last byte that became what was read counts."""
        rows = waiting(
            "movb $1, 0x8000; hlt",
            "movb $2, 0x8001; hlt",
            "movb $1, 0x8000; 1: cmpw $0, 0x8000; jne 1b; hlt",
            schedule=((Op.RUN, 0, 2), (Op.RUN, 1, 2), (Op.RUN, 2, 40)),
            window=window,
        )
        (word,) = rows[2].words
        assert word.read.value == 0x201
        assert word.made is not None
        assert word.made.cpu == 1

    def test_of_what_only_the_reader_has_seen(self, window: int) -> None:
        rows = waiting(
            "movl $5, 0x8000; hlt",
            f"movl $1, 0x8000; {SPIN}",
            schedule=((Op.RUN, 0, 2), (Op.RUN, 1, 40, HOLD)),
            window=window,
        )
        (word,) = rows[1].words
        assert (word.read.value, word.made) == (1, None)


def test_many_words_of_few_writers_are_looked_through_at_once() -> None:
    """Four CPUs that each read a thousand words that the next one wrote, and no cycle."""

    def event(cpu: int) -> Event:
        return Event(0, 0, 0, 0, 0, KINDS["load"], cpu, 4, 0)

    rows = [Waiting(cpu, "spins", 0, (Word(event(cpu), event(cpu + 1)),) * 1000) for cpu in range(4)]
    rows.append(Waiting(4, "halt", 0))
    begin = time.process_time()
    assert cycle(rows) == []
    assert time.process_time() - begin < 5
