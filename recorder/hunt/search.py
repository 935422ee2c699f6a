"""Schedules by number: the same number is the same schedule, whoever runs it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from machine.symbols import Frame, Symbols
from recorder.hunt.checks import Check, Failure, ending_failure
from recorder.record import Prepared
from recorder.session import Session
from recorder.strategies import strategy

_MASK: Final = (1 << 64) - 1


def schedule_seed(seed: int, number: int) -> int:
    """Seed of schedule `number` of a hunt: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    x = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


@dataclass(frozen=True, slots=True)
class Found:
    """A failing schedule: its number, the seed its strategy had, and what failed at which step."""

    number: int
    seed: int
    failure: Failure
    steps: int


@dataclass(slots=True)
class Tally:
    """What a block of schedules came to.

    Attributes:
        schedules: how many were run.
        steps: of all of them, after set-up.
        stops: how they ended, as in a tape's footer; "steps" is inconclusive.
        found: the failing ones, by cause the first.
        states: hashes of their final states.
        interrupted: whether Ctrl-C kept it from the rest.
    """

    schedules: int = 0
    steps: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    found: dict[str, Found] = field(default_factory=dict)
    states: set[int] = field(default_factory=set)
    interrupted: bool = False

    def add(self, other: Tally) -> None:
        """Take in the schedules of `other`, which come after these."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.stops += other.stops
        self.states |= other.states
        for cause, found in other.found.items():
            self.found.setdefault(cause, found)


class Search:
    """Runs schedules of one prepared scenario under one strategy, each from `ready`.

    Args:
        seed: of the hunt.
        checks: what else fails a run than its ending.
    Raises UsageError for an unknown strategy.
    """

    def __init__(self, prepared: Prepared, strategy_name: str, seed: int, checks: Sequence[Check] = ()) -> None:
        self.prepared, self.seed, self.checks = prepared, seed, checks
        self._strategy = strategy(strategy_name)
        prepared.introduce(self._strategy)

    def block(self, first: int, count: int, *, every: bool, deadline: float | None = None) -> Tally:
        """Run schedules `first` to `first + count - 1`; unless `every`, only up to the first failing one.

        deadline: of time.monotonic(); what is left then is not run.
        """
        tally = Tally()
        for number in range(first, first + count):
            if deadline is not None and time.monotonic() >= deadline:
                break
            failure = self._run(number, tally)
            if tally.interrupted or (failure is not None and not every):
                break
        return tally

    def _run(self, number: int, tally: Tally) -> Failure | None:
        prepared, machine = self.prepared, self.prepared.machine
        machine.restore(prepared.at_ready)
        machine.stop_at_trace = 0
        session = Session(machine, None, step_max=prepared.step_max, tap=False, keep=False)
        seed = schedule_seed(self.seed, number)
        self._strategy.new_run(machine, seed)
        stop = session.run(self._strategy)
        if stop == "interrupted":
            tally.interrupted = True
            return None
        tally.schedules += 1
        tally.steps += machine.step - prepared.ready_step
        tally.stops[stop] += 1
        tally.states.add(machine.state_hash())
        failure = self._failure(stop, session.console.decode("ascii", "replace"))
        if failure is not None:
            tally.found.setdefault(failure.cause, Found(number, seed, failure, machine.step))
        return failure

    def _failure(self, stop: str, console: str) -> Failure | None:
        machine = self.prepared.machine
        failure = ending_failure(stop, machine.exit_status if stop == "exit" else 0, console, self._frame_of)
        if failure is not None or stop == "steps":
            return failure
        return next((found for check in self.checks if (found := check(machine)) is not None), None)

    @cached_property
    def _symbols(self) -> Symbols:
        return Symbols(self.prepared.image)

    def _frame_of(self, address: int) -> Frame:
        return self._symbols.frames(address)[0]
