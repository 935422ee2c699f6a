"""A whole hunt: schedules in blocks, in this process or in several, and what came of it."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final, Literal

from machine.errors import RacetapeError, UsageError
from recorder.hunt.checks import Checks, endings_only
from recorder.hunt.search import Found, Search, Tally
from recorder.record import Prepared, prepare
from recorder.strategies import STRATEGIES

BLOCK_SCHEDULES: Final = 32
_AHEAD: Final = 3
"""Blocks given to each process at a time."""

Progress = Callable[[Tally], None]


@dataclass(frozen=True, slots=True)
class Hunt:
    """What to hunt for.

    Attributes:
        scenario, variant, configuration: as for `prepare`.
        strategy: name of a strategy that draws from its seed.
        seed: all schedules follow from it.
        schedules: most schedules to run.
        seconds: most time to take, None for any.
        every: go on after a failure, and collect one failing schedule for each cause.
        jobs: processes. The verdict does not depend on it, unless `seconds` ends the hunt.
        step_max: a run that takes more steps is inconclusive; None: the scenario's own limit.
    """

    scenario: str
    variant: str | None = None
    configuration: str | None = None
    strategy: str = "portfolio"
    seed: int = 0
    schedules: int = 10_000
    seconds: float | None = None
    every: bool = False
    jobs: int = 1
    step_max: int | None = None
    checks: Checks = endings_only

    def prepare(self) -> Prepared:
        """The scenario at `ready`. Raises UsageError, ImageError."""
        return prepare(self.scenario, self.variant, self.configuration, step_max=self.step_max)


@dataclass(slots=True)
class Verdict:
    """What a hunt came to.

    Attributes:
        hunt: what was asked for.
        prepared: the scenario as it was hunted in.
        tally: of all schedules up to the end of the hunt.
        seconds: how long it took, without set-up.
        first_failure_seconds: when the first failure was found, None if none was.
        interrupted: whether Ctrl-C ended it.
    """

    hunt: Hunt
    prepared: Prepared
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    first_failure_seconds: float | None = None
    interrupted: bool = False

    @property
    def result(self) -> Literal["failed", "budget"]:
        """ "failed", or "budget": nothing failed in as many schedules as there were."""
        return "failed" if self.tally.found else "budget"

    @property
    def found(self) -> list[Found]:
        """The failing schedules, one for each cause, the earliest first."""
        return sorted(self.tally.found.values(), key=lambda row: row.number)

    def rate_ruled_out(self, confidence: float) -> float:
        """If none failed: bugs that one schedule hits with at least this probability would have been found with
        probability `confidence`.

        After m runs a bug of rate p has escaped with probability (1 - p)^m. Inconclusive runs do not count.
        """
        conclusive = self.tally.schedules - self.tally.stops["steps"]
        return float(1.0 - (1.0 - confidence) ** (1.0 / conclusive)) if conclusive else 1.0


def hunt(what: Hunt, progress: Progress | None = None) -> Verdict:
    """Run schedules until one fails (or, with `every`, to the end of the budget).

    Schedules count in the order of their numbers whoever ran them: those behind the first failing one do not.

    Raises UsageError, ImageError, RacetapeError if a process died.
    """
    if what.strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy {what.strategy!r}; there are {', '.join(sorted(STRATEGIES))}")
    if what.strategy == "default":
        raise UsageError("the default strategy makes no random choice: its one schedule is what `racetape record` runs")
    if what.jobs < 1 or what.schedules < 1:
        raise UsageError("a hunt takes at least one schedule and one process")
    prepared = what.prepare()
    search = Search(prepared, what.strategy, what.seed, what.checks(prepared))
    verdict = Verdict(what, prepared)
    started = time.monotonic()
    deadline = None if what.seconds is None else started + what.seconds
    try:
        with closing(_blocks(what, search, deadline)) as blocks:
            for block in blocks:
                verdict.tally.add(block)
                verdict.seconds = time.monotonic() - started
                if block.found and verdict.first_failure_seconds is None:
                    verdict.first_failure_seconds = verdict.seconds
                if progress is not None:
                    progress(verdict.tally)
                verdict.interrupted = block.interrupted
                over = deadline is not None and time.monotonic() >= deadline
                if over or block.interrupted or (block.found and not what.every):
                    break
    except KeyboardInterrupt:
        verdict.interrupted = True
    except BrokenProcessPool:
        raise RacetapeError("a process of the hunt died; with --jobs 1 there is only this one") from None
    verdict.seconds = time.monotonic() - started
    return verdict


def _blocks(what: Hunt, search: Search, deadline: float | None) -> Generator[Tally, None, None]:
    """The blocks in order. The first is run here in any case: many bugs are in it, and a pool takes long to start."""
    ranges = (
        (first, min(BLOCK_SCHEDULES, what.schedules - first)) for first in range(0, what.schedules, BLOCK_SCHEDULES)
    )
    here = what.schedules if what.jobs == 1 else BLOCK_SCHEDULES
    for first, count in ranges:
        yield search.block(first, count, every=what.every, deadline=deadline)
        if first + count >= here:
            break
    if here >= what.schedules:
        return
    # Spawned: a fork would copy threads' locks, and start from a machine somebody may be using.
    pool = ProcessPoolExecutor(what.jobs, get_context("spawn"), _start, (what,))
    waiting: deque[Future[Tally]] = deque()
    try:
        for first, count in ranges:
            waiting.append(pool.submit(_block, first, count, what.every, deadline))
            if len(waiting) >= _AHEAD * what.jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# In the processes of a pool: each has a search of its own, made when it starts.
_own: list[Search] = []


def _start(what: Hunt) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gave the work
    prepared = what.prepare()
    _own.append(Search(prepared, what.strategy, what.seed, what.checks(prepared)))


def _block(first: int, count: int, every: bool, deadline: float | None) -> Tally:
    return _own[0].block(first, count, every=every, deadline=deadline)
