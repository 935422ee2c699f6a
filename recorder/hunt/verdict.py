"""A whole hunt: schedules in blocks, in this process or in several, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
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
from recorder.hunt.systematic import DPOR, SYSTEMATIC, Extent, Systematic
from recorder.profile import Manner
from recorder.record import Prepared, prepare
from recorder.session import Made, deferred_interrupt
from recorder.strategies import Pct, strategy

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
        bound: of strategy "bounded": most deviations; None: as many as the budget allows.
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
    bound: int | None = None
    cluster: str | None = None

    def prepare(self) -> Prepared:
        """The scenario at `ready`. Raises UsageError, ImageError."""
        return prepare(self.scenario, self.variant, self.configuration, step_max=self.step_max)

    @property
    def is_systematic(self) -> bool:
        """Whether the schedules are not drawn, but gone through."""
        return self.strategy in SYSTEMATIC

    def search(self, prepared: Prepared) -> Search:
        """What runs the schedules, for a scenario prepared by `prepare`, if they are drawn. Raises UsageError."""
        return Search(prepared, self.strategy, self.seed, self.checks(prepared))


@dataclass(frozen=True, slots=True)
class PctBound:
    """What PCT promises for bugs of one depth, after all its runs of that depth.

    Attributes:
        runs: of this depth and kind.
        agents, steps: n and k of its bound.
        escaped: most probable with which a bug of this depth has escaped all of them.
    """

    depth: int
    runs: int
    agents: int
    steps: int
    escaped: float


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
        exhausted: of a systematic hunt: whether there were no more schedules within its bound.
        extent: of a systematic hunt: what was searched.
        made: of a systematic hunt: the failing runs by their number.
    """

    hunt: Hunt
    prepared: Prepared
    tally: Tally = field(default_factory=Tally)
    resumed: int = 0
    seconds: float = 0.0
    first_failure_seconds: float | None = None
    interrupted: bool = False
    exhausted: bool = False
    extent: Extent | None = None
    made: Mapping[int, Made] = field(default_factory=dict)

    @property
    def result(self) -> Literal["failed", "exhausted", "budget"]:
        """ "failed"; "exhausted": nothing failed in all schedules of the bound (`extent`); "budget": nothing failed
        in as many schedules as were made. With inconclusive schedules, or some cut short, nothing is exhausted."""
        if self.tally.found:
            return "failed"
        inconclusive = self.tally.stops["steps"] or (self.extent is not None and self.extent.cut)
        return "exhausted" if self.exhausted and not inconclusive else "budget"

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

    def new_classes(self, last: int) -> int:
        """Classes of equivalent runs that came up for the first time in so many last schedules."""
        return sum(number >= self.tally.schedules - last for number in self.tally.classes.values())

    def pct_bounds(self) -> list[PctBound]:
        """By depth, for the kind of run (stores held or not, words of CPUs or tasks) that promises most."""
        found: dict[int, PctBound] = {}
        for (name, depth, tasks, eager), runs in sorted(self.tally.kinds.items()):
            if name != Pct.name:
                continue
            agents = self.prepared.machine.cpus * (1 if eager else 2)
            steps = self.prepared.profile(visible=True).visible_steps(Manner(tasks, eager)) * 5 // 4
            row = PctBound(depth, runs, agents, steps, (1.0 - Pct.bound(agents, steps, depth)) ** runs)
            if depth not in found or row.escaped < found[depth].escaped:
                found[depth] = row
        return [found[depth] for depth in sorted(found)]


def hunt(what: Hunt, progress: Progress | None = None) -> Verdict:
    """Run schedules until one fails (or, with `every`, to the end of the budget).

    Schedules count in the order of their numbers whoever ran them: those behind the first failing one do not.

    Raises UsageError, ImageError, RacetapeError if a process died or a cluster is gone.
    """
    if what.strategy == "default":
        raise UsageError("the default strategy makes no random choice: its one schedule is what `racetape record` runs")
    if what.jobs < 1 or what.schedules < 1:
        raise UsageError("a hunt takes at least one schedule and one process")
    if what.is_systematic:
        return _go_through(what, progress)
    if what.bound is not None:
        raise UsageError("--bound says how many deviations there may be: it goes with --strategy bounded")
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


def _go_through(what: Hunt, progress: Progress | None) -> Verdict:
    """A systematic hunt: one process, one block after the other. A budget of schedules ends it like any other."""
    if what.cluster is not None or (what.resume is not None and what.strategy == DPOR):
        raise UsageError(
            f"strategy {what.strategy} goes on from state to state: --cluster is for drawn schedules, "
            "--resume for those and for bounded"
        )
    prepared = what.prepare()
    search = Systematic(prepared, what.strategy, what.bound, checks=what.checks(prepared))
    verdict = Verdict(what, prepared, made=search.made)
    journal = None if what.resume is None else _journal(what, what.resume, verdict, search)
    started = time.monotonic() - verdict.seconds
    deadline = None if what.seconds is None else time.monotonic() + what.seconds
    over = bool(verdict.tally.found) and not what.every
    try:
        while not over and not search.exhausted and verdict.tally.schedules < what.schedules:
            first = verdict.tally.schedules
            block = search.block(
                first, min(BLOCK_SCHEDULES, what.schedules - first), every=what.every, deadline=deadline
            )
            with deferred_interrupt() as interrupted:
                _count(verdict, block, time.monotonic() - started)
                over = bool(block.found) and not what.every
                if journal is not None and (over or search.level_ended):
                    journal.levels = search.levels()
                    journal.save(verdict)
            if interrupted:
                raise KeyboardInterrupt
            if progress is not None:
                progress(verdict.tally)
            over |= deadline is not None and time.monotonic() >= deadline
    except KeyboardInterrupt:
        verdict.interrupted = True
    verdict.seconds = time.monotonic() - started
    verdict.exhausted, verdict.extent = search.exhausted, search.extent()
    return verdict


def _journal(what: Hunt, path: Path, verdict: Verdict, search: Systematic) -> Journal:
    """The file of a bounded hunt, which has what was done with whole numbers of deviations; `search` goes on behind."""
    first = Systematic(verdict.prepared, what.strategy, 0, checks=what.checks(verdict.prepared))
    asked = identity(what, verdict.prepared, first)
    extent = search.extent()
    asked["shared_words"] = [extent.words, extent.learned_from]
    journal = Journal(path, asked, verdict)
    if journal.levels is not None:
        try:
            search.go_on(journal.levels)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path} is damaged: it holds no bounded hunt ({error!r})") from error
    return journal


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
