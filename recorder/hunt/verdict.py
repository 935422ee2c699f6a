"""A whole hunt: schedules in blocks, in this process or in several, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal

from machine.errors import UsageError
from recorder.hunt.checks import Checks, endings_only
from recorder.hunt.cluster import Cluster
from recorder.hunt.crew import Alone, Crew, Pool, TimeIsUp, in_order
from recorder.hunt.identity import identity
from recorder.hunt.resume import Journal
from recorder.hunt.search import Found, Search, Tally
from recorder.record import Prepared, prepare
from recorder.session import deferred_interrupt
from recorder.strategies import strategy

BLOCK_SCHEDULES: Final = 32

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
        cluster: address of a Dask scheduler whose workers run the schedules; None: `jobs` processes here.
        resume: file that keeps the state of the hunt; if it exists, the hunt goes on from there.
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
    resume: Path | None = None
    cluster: str | None = None

    def prepare(self) -> Prepared:
        """The scenario at `ready`. Raises UsageError, ImageError."""
        return prepare(self.scenario, self.variant, self.configuration, step_max=self.step_max)

    def search(self, prepared: Prepared) -> Search:
        """What runs the schedules, for a scenario prepared by `prepare`. Raises UsageError."""
        return Search(prepared, self.strategy, self.seed, self.checks(prepared))


@dataclass(slots=True)
class Verdict:
    """What a hunt came to.

    Attributes:
        hunt: what was asked for.
        prepared: the scenario as it was hunted in.
        tally: of all schedules up to the end of the hunt.
        resumed: how many of them were taken over from the file of an earlier command.
        seconds: how long it took, without set-up; with earlier commands.
        first_failure_seconds: when the first failure was found, None if none was.
        interrupted: whether Ctrl-C ended it.
    """

    hunt: Hunt
    prepared: Prepared
    tally: Tally = field(default_factory=Tally)
    resumed: int = 0
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

    Raises UsageError, ImageError, RacetapeError if a process died or a cluster is gone.
    """
    if what.strategy == "default":
        raise UsageError("the default strategy makes no random choice: its one schedule is what `racetape record` runs")
    if what.jobs < 1 or what.schedules < 1:
        raise UsageError("a hunt takes at least one schedule and one process")
    strategy(what.strategy)  # complains about what does not exist before anything takes long
    prepared = what.prepare()
    search = what.search(prepared)
    verdict = Verdict(what, prepared)
    asked = {} if what.resume is None and what.cluster is None else identity(what, prepared, search)
    journal = None if what.resume is None else Journal(what.resume, asked, verdict)
    started = time.monotonic() - verdict.seconds
    deadline = None if what.seconds is None else time.monotonic() + what.seconds
    try:
        with closing(_blocks(what, search, asked, deadline, verdict.tally)) as blocks:
            for block in blocks:
                with deferred_interrupt() as interrupted:
                    _count(verdict, block, time.monotonic() - started)
                    if journal is not None:
                        journal.note(verdict)
                if interrupted:
                    raise KeyboardInterrupt
                if progress is not None:
                    progress(verdict.tally)
                verdict.interrupted = block.interrupted
                over = deadline is not None and time.monotonic() >= deadline
                if over or block.interrupted or (block.found and not what.every):
                    break
    except KeyboardInterrupt:
        verdict.interrupted = True
    except TimeIsUp:
        pass
    finally:
        verdict.seconds = time.monotonic() - started
        if journal is not None:
            journal.save(verdict)
    return verdict


def _count(verdict: Verdict, block: Tally, seconds: float) -> None:
    verdict.tally.add(block)
    verdict.seconds = seconds
    if block.found and verdict.first_failure_seconds is None:
        verdict.first_failure_seconds = seconds


def _blocks(
    what: Hunt, search: Search, asked: dict[str, Any], deadline: float | None, done: Tally
) -> Generator[Tally, None, None]:
    """The blocks in order, behind what is done. The first is run here in any case: many bugs are in it, and others take
    long to start."""
    if done.found and not what.every:
        return
    ranges = (
        (first, min(BLOCK_SCHEDULES, what.schedules - first))
        for first in range(done.schedules, what.schedules, BLOCK_SCHEDULES)
    )
    with ExitStack() as stack:
        here = Alone(what, search, deadline)
        crew: Crew | None = None
        if what.cluster is not None:  # first of all: whoever gave a wrong address wants to know now
            crew = stack.enter_context(closing(Cluster(what.cluster, what, asked, deadline)))
        yield from in_order(here, islice(ranges, 1))
        following = next(ranges, None)
        if following is None:
            return
        if crew is None:
            crew = here if what.jobs == 1 else stack.enter_context(closing(Pool(what, deadline)))
        yield from in_order(crew, chain((following,), ranges))
