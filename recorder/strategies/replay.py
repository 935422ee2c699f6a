"""Replay: the exact choices of a tape, from its `ready` on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from machine import Machine
from traces import Choices, Tape
from traces.records import OPEN_STOPS
from traces.schema import RECORD, RecordArray, step_counts


class Replay:
    """See the module. Recording with it gives the tape's layer A again, and its layer B if that was dropped.

    Args:
        tape: must stay open while the strategy is used, and be of the same image, machine and command line.
    """

    exact = True
    visible = False

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.name = tape.header.strategy
        self.stop = tape.footer.stop if tape.footer is not None and tape.footer.stop in OPEN_STOPS else "steps"

    def new_run(self, machine: Machine, seed: int) -> None:
        """Go to the machine's position on the tape."""
        self._first_step = machine.step
        self._choices: Iterator[Choices] = self.tape.choices(machine.step)

    def choose(self, machine: Machine) -> RecordArray:
        """The records of the next chunk; empty behind the last. Raises TapeDamagedError."""
        choices = next(self._choices, None)
        if choices is None:
            return np.empty(0, RECORD)
        return drop_steps(choices.records, max(self._first_step - choices.first_step, 0))

    def answer(self, machine: Machine, cpu: int) -> int:
        """Never asked: a tape holds no AUTO."""
        raise AssertionError("a tape answers every choice by itself")


def drop_steps(records: RecordArray, step_count: int) -> RecordArray:
    """`records` without their first `step_count` steps."""
    if step_count == 0:
        return records
    ends = np.cumsum(step_counts(records))
    first = int(np.searchsorted(ends, np.uint64(step_count), side="right"))
    rest = records[first:].copy()
    done = step_count - (int(ends[first - 1]) if first else 0)
    if done and len(rest):
        rest["arg"][0] -= np.uint64(done)
    return rest
