"""A whole hunt: schedules in blocks, in this process or in several, and what came of it."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final, Literal

from machine.errors import UsageError
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
        tally: of all schedules up to the end of the hunt.
        seconds: how long it took, without set-up.
        first_failure_seconds: when the first failure was found, None if none was.
        interrupted: whether Ctrl-C ended it.
    """

    hunt: Hunt
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

    Raises UsageError, ImageError.
    """
    if what.strategy not in STRATEGIES:
        raise UsageError(f"unknown strategy {what.strategy!r}; there are {', '.join(sorted(STRATEGIES))}")
    if what.strategy == "default":
        raise UsageError("the default strategy makes no random choice: its one schedule is what `racetape record` runs")
    if what.jobs < 1 or what.schedules < 1:
        raise UsageError("a hunt takes at least one schedule and one process")
    verdict = Verdict(what)
    with _blocks(what) as blocks:
        started = time.monotonic()
        try:
            for block in blocks(started + what.seconds if what.seconds is not None else None):
                verdict.tally.add(block)
                verdict.seconds = time.monotonic() - started
                if block.found and verdict.first_failure_seconds is None:
                    verdict.first_failure_seconds = verdict.seconds
                if progress is not None:
                    progress(verdict.tally)
                verdict.interrupted = block.interrupted
                if block.interrupted or (block.found and not what.every):
                    break
        except KeyboardInterrupt:
            verdict.interrupted = True
        verdict.seconds = time.monotonic() - started
    return verdict


Blocks = Callable[[float | None], Iterator[Tally]]


@contextmanager
def _blocks(what: Hunt) -> Iterator[Blocks]:
    """Gives what yields the blocks in order up to a deadline."""
    ranges = [
        (first, min(BLOCK_SCHEDULES, what.schedules - first)) for first in range(0, what.schedules, BLOCK_SCHEDULES)
    ]
    if what.jobs == 1:
        search = _search(what)
        yield lambda deadline: (search.block(*row, every=what.every, deadline=deadline) for row in ranges)
        return
    # Spawned: a fork would copy threads' locks, and start from a machine somebody may be using.
    pool = ProcessPoolExecutor(what.jobs, get_context("spawn"), _start, (what,))
    try:
        list(pool.map(_ready, range(what.jobs)))
        yield lambda deadline: _in_order(pool, ranges, what, deadline)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, ranges: list[tuple[int, int]], what: Hunt, deadline: float | None
) -> Iterator[Tally]:
    waiting: deque[Future[Tally]] = deque()
    for first, count in ranges:
        waiting.append(pool.submit(_block, first, count, what.every, deadline))
        if len(waiting) >= _AHEAD * what.jobs:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _search(what: Hunt) -> Search:
    prepared = what.prepare()
    return Search(prepared, what.strategy, what.seed, what.checks(prepared))


# In the processes of a pool: each has a search of its own, made when it starts.
_own: list[Search] = []


def _start(what: Hunt) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gave the work
    _own.append(_search(what))


def _ready(_number: int) -> bool:
    return bool(_own)


def _block(first: int, count: int, every: bool, deadline: float | None) -> Tally:
    return _own[0].block(first, count, every=every, deadline=deadline)
