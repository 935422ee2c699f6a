"""What tasks are called."""

from __future__ import annotations

from collections.abc import Iterable

import drgn

from machine.errors import RacetapeError
from machine.symbols import Symbols
from replayer import Timeline
from traces import Tape


def task_names(tape: Tape, tasks: Iterable[int]) -> dict[int, str]:
    """task_struct address -> its `comm` at the end of the tape; without those that cannot be read. Replays the tape."""
    timeline = Timeline(tape)
    timeline.seek(timeline.last_step)
    machine = timeline.machine
    symbols = Symbols(timeline.image, lambda address, size: machine.read_linear(0, address, size))
    found = {}
    for task in tasks:
        try:
            comm = symbols.evaluate(f"((struct task_struct *){task})->comm").string_()
        except (RacetapeError, drgn.FaultError, TypeError):
            continue
        found[task] = comm.decode("ascii", "replace")
    return found
