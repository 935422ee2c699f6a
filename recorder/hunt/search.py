"""Schedules by number: the same number is the same schedule, whoever runs it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from recorder.hunt.checks import Check, Failure
from recorder.hunt.trial import Trial
from recorder.profile import Manner
from recorder.record import Prepared
from recorder.strategies import Portfolio, strategy

_MASK: Final = (1 << 64) - 1


def schedule_seed(seed: int, number: int) -> int:
    """Seed of schedule `number` of a hunt: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    x = (seed + (number + 1) * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


Kind = tuple[str, int, bool, bool]
"""How a run was made: strategy, depth (0: has none), `tasks` and `eager` of its manner."""


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
        classes: hashes of the classes of equivalent runs (of strategies by visible steps), and the first schedule of
            each.
        pairs: a bit for each pair of conflicting instructions that were met on different CPUs, by hash.
        kinds: how many runs were made in which way: `Strategy.kind`, or its name.
        interrupted: whether Ctrl-C kept it from the rest.
    """

    schedules: int = 0
    steps: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    found: dict[str, Found] = field(default_factory=dict)
    states: set[int] = field(default_factory=set)
    classes: dict[int, int] = field(default_factory=dict)
    pairs: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    interrupted: bool = False

    def add(self, other: Tally) -> None:
        """Take in the schedules of `other`, which come after these."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.stops += other.stops
        self.states |= other.states
        self.classes = other.classes | self.classes
        self.pairs |= other.pairs
        self.kinds += other.kinds
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
        self.seed = seed
        self._ready_step = prepared.ready_step
        self._strategy = strategy(strategy_name)
        prepared.introduce(self._strategy)
        self._machine = prepared.machine
        self._trial = Trial(prepared, checks)

    def block(self, first: int, count: int, *, every: bool, deadline: float | None = None) -> Tally:
        """Run schedules `first` to `first + count - 1`; unless `every`, only up to the first failing one.

        deadline: of time.monotonic(); what is left then is not run.
        """
        tally = Tally()
        self._machine.pairs_take()
        for number in range(first, first + count):
            if deadline is not None and time.monotonic() >= deadline:
                break
            seed = schedule_seed(self.seed, number)
            ended = self._trial.run(self._strategy, seed)
            if ended.stop == "interrupted":
                tally.interrupted = True
                break
            tally.schedules += 1
            tally.steps += ended.steps - self._ready_step
            tally.stops[ended.stop] += 1
            tally.states.add(ended.state_hash)
            self._note(tally, number)
            if ended.failure is not None:
                tally.found.setdefault(ended.failure.cause, Found(number, seed, ended.failure, ended.steps))
                if not every:
                    break
        if self._strategy.visible:
            tally.pairs = int.from_bytes(self._machine.pairs_take(), "little")
        return tally

    def _note(self, tally: Tally, number: int) -> None:
        planner = self._strategy
        while isinstance(planner, Portfolio):
            planner = planner.chosen
        manner = getattr(planner, "manner", Manner())
        tally.kinds[planner.name, getattr(planner, "depth", 0), manner.tasks, manner.eager] += 1
        if planner.visible:
            tally.classes.setdefault(self._machine.class_hash, number)
