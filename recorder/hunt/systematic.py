"""Systematic hunts: every schedule within a bound, or one of each class; if none fails, that says something.

bounded: all schedules with 0, 1, 2, ... deviations from the default order of agents, in this order (iterative context
    bounding: Musuvathi, Qadeer, PLDI 2007; delay bounding: Emmi, Qadeer, Rakamaric, POPL 2011). A deviation lets
    another agent take the next visible step, puts a drain off, or makes the timer tick.
dpor: one schedule at least of each class of equivalent ones (Abdulla, Aronis, Jonsson, Sagonas, POPL 2014).

Both are about the words that the learning runs have shown to be shared, and say so.
"""

from __future__ import annotations

import math
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final

from machine import _core
from machine.errors import UsageError
from recorder.hunt.checks import Check
from recorder.hunt.search import Found, Tally
from recorder.hunt.trial import Trial
from recorder.record import Prepared
from recorder.session import Made, Stretch
from traces.schema import records_of

BOUNDED: Final = "bounded"
DPOR: Final = "dpor"
SYSTEMATIC: Final = (BOUNDED, DPOR)
DESCENTS_MAX, DESCENT_STEPS_MAX = 512, 20_000
"""Descents of an estimate: so many, or as many as come to so many visible steps."""
FRAMES_MAX: Final = 1 << 20
"""Most visible steps of a run."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many classes of equivalent schedules there are, by random descents (Knuth, Mathematics of Computation 29,
    1975). Few descents come by the rare branches on which most of a large number stands: take it for its magnitude.

    Attributes:
        schedules: mean of the descents.
        error: its standard error.
        descents: how many.
    """

    schedules: float
    error: float
    descents: int


@dataclass(frozen=True, slots=True)
class Extent:
    """What a systematic hunt has searched.

    Attributes:
        strategy: "bounded" or "dpor".
        deviations: all schedules with so many were made; -1: not even the default one; None for dpor.
        words: shared words (of 4 bytes) whose accesses are visible steps.
        learned_from: runs that have shown them.
        tasks: whether these are words that tasks share, too.
        held: whether stores may be held.
        ticks: timer ticks at most.
        visible_steps: most visible steps of a run.
        given_up: runs that were begun and would have repeated what was seen.
        cut: why schedules may be missing within the bound, "" if none can be.
        estimate: of dpor, how many schedules there are to make, before the first was made; else None.
    """

    strategy: str
    deviations: int | None
    words: int
    learned_from: int
    tasks: bool
    held: bool
    ticks: int
    visible_steps: int
    given_up: int
    cut: str
    estimate: Estimate | None = None


def estimate(explorer: _core.Explorer) -> Estimate:
    """How many schedules `explorer` has to make; it must not have made one."""
    found: list[float] = []
    visible_steps = 0
    while len(found) < 2 or (len(found) < DESCENTS_MAX and visible_steps < DESCENT_STEPS_MAX):
        found.append(explorer.descend(len(found)))
        visible_steps += explorer.depth
    return Estimate(mean(found), stdev(found) / math.sqrt(len(found)), len(found))


class Systematic:
    """A systematic search of one prepared scenario, from `ready`. Its blocks come one after the other.

    Args:
        strategy: "bounded" or "dpor".
        bound: deviations at most; None: as many as the budget allows.
        ticks: timer ticks at most; None: as many as deviations on one CPU, else none.
        checks: what else fails a run than its ending.
    Attributes:
        exhausted: whether there are no more runs.
        level_ended: whether the last block ended because all runs with that number of deviations are made.
        explorer: the core's search, while there is one.
        made: the failing runs by number.
    Raises UsageError.
    """

    def __init__(
        self,
        prepared: Prepared,
        strategy: str,
        bound: int | None,
        ticks: int | None = None,
        checks: Sequence[Check] = (),
    ) -> None:
        if strategy == DPOR and (bound is not None or ticks):
            raise UsageError("dpor knows neither deviations nor ticks: --bound goes with --strategy bounded")
        self.prepared, self.strategy, self.bound = prepared, strategy, bound
        self.profile = prepared.profile(visible=True)
        self.exhausted = self.level_ended = False
        self.made: dict[int, Made] = {}
        self._tasks = prepared.machine.cpus == 1
        self._ticks = ticks
        self._trial = Trial(prepared, checks)
        self._done = 0
        self._level = 0
        self._cut = ""
        self._levels_done = -1
        self._visible_steps = self._given_up = 0
        self._news = False
        self._causes: set[str] = set()
        self._estimate: Estimate | None = None
        self.explorer: _core.Explorer | None = None

    def block(self, first: int, count: int, *, every: bool, deadline: float | None = None) -> Tally:
        """Make the next `count` runs, the first of which is number `first`; fewer if there are no more of them with as
        many deviations."""
        assert first == self._done, "one after the other"
        tally = Tally()
        self.level_ended = False
        while tally.schedules < count and not self.exhausted and not self.level_ended:
            if deadline is not None and time.monotonic() >= deadline:
                break
            stop = self._next()
            if stop is None:
                continue
            self._judge(stop, tally)
            if tally.found and not every:
                break
        return tally

    def levels(self) -> dict[str, Any]:
        """What `go_on` needs to go on behind the last number of deviations that was done; plain values."""
        return {
            "levels_done": self._levels_done,
            "schedules": self._done,
            "cut": self._cut,
            "visible_steps": self._visible_steps,
            "given_up": self._given_up,
            "over": not self._news,
            "causes": sorted(self._causes),
            "made": {
                str(number): {
                    "stop": run.stop,
                    "end_step": run.stretches[-1].end_step,
                    "state_hash": run.stretches[-1].state_hash,
                    "records": b64encode(run.stretches[-1].records.tobytes()).decode(),
                }
                for number, run in self.made.items()
            },
        }

    def go_on(self, levels: dict[str, Any]) -> None:
        """Take over what `levels` of another search of the same hunt said; nothing may have been made yet.

        Raises KeyError, TypeError or ValueError if it is not what `levels` says.
        """
        assert self._done == 0
        self._levels_done, self._done = int(levels["levels_done"]), int(levels["schedules"])
        self._level = self._levels_done + 1
        self._cut, self._causes = str(levels["cut"]), set(levels["causes"])
        self._visible_steps, self._given_up = int(levels["visible_steps"]), int(levels["given_up"])
        for number, run in levels["made"].items():
            records = records_of(b64decode(run["records"]))
            self.made[int(number)] = Made(run["stop"], [Stretch(records, run["end_step"], run["state_hash"])])
        self.exhausted = bool(levels["over"]) or (self.bound is not None and self._levels_done >= self.bound)

    def extent(self) -> Extent:
        """What has been searched so far."""
        return Extent(
            strategy=self.strategy,
            deviations=self._levels_done if self.strategy == BOUNDED else None,
            words=self.profile.task_words if self._tasks else self.profile.cpu_words,
            learned_from=self.profile.runs,
            tasks=self._tasks,
            held=self.prepared.machine.cpus > 1,
            ticks=self._ticks_of(self._levels_done),
            visible_steps=self._visible_steps,
            given_up=self._given_up + (self.explorer.blocked if self.explorer is not None else 0),
            cut=self._cut or (self.explorer.cut if self.explorer is not None else ""),
            estimate=self._estimate,
        )

    def _ticks_of(self, level: int) -> int:
        if self.strategy == DPOR:
            return 0
        return max(level, 0) if self._tasks and self._ticks is None else self._ticks or 0

    def _next(self) -> str | None:
        """Make a run; why it ended. None: it was made before, or there is none left on this level."""
        machine = self.prepared.machine
        if self.explorer is None:
            machine.restore(self.prepared.at_ready)
            machine.stop_at_trace = 0
            machine.choices_enabled = False
            self._news = False
            self.explorer = _core.Explorer(
                machine,
                bounded=self.strategy == BOUNDED,
                tasks=self._tasks,
                eager=machine.cpus == 1,  # on one CPU nobody sees when a store drains
                bound=self._level,
                ticks=self._ticks_of(self._level),
                frames_max=FRAMES_MAX,
                step_max=self.prepared.step_max,
            )
            if self.strategy == DPOR:
                self._estimate = estimate(self.explorer)
        explorer = self.explorer
        machine.console_take()
        stop = explorer.next()
        if stop is None:
            self._end_level(explorer)
            return None
        if not stop:
            return None
        if self.strategy == BOUNDED and explorer.deviations < self._level:
            return None  # a level is made of its own runs and, on the way, those of the levels before
        self._news = True
        self._visible_steps = max(self._visible_steps, explorer.depth)
        return stop

    def _end_level(self, explorer: _core.Explorer) -> None:
        self._cut = self._cut or explorer.cut
        self._given_up += explorer.blocked
        self.explorer = None
        if self.strategy == BOUNDED:
            self._levels_done = self._level
            self._level += 1
        self.level_ended = True
        self.exhausted = self.strategy == DPOR or self._level - 1 == self.bound or not self._news

    def _judge(self, stop: str, tally: Tally) -> None:
        machine, number = self.prepared.machine, self._done
        console = machine.console_take().decode("ascii", "replace")
        state_hash, steps = machine.state_hash(), machine.step
        failure = self._trial.failure(stop, console)
        self._done += 1
        tally.schedules += 1
        tally.steps += steps - self.prepared.ready_step
        tally.stops[stop] += 1
        tally.states.add(state_hash)
        if failure is None or failure.cause in self._causes:
            return
        self._causes.add(failure.cause)
        tally.found[failure.cause] = Found(number, 0, failure, steps)
        self.made[number] = self._again(stop)

    def _again(self, stop: str) -> Made:
        """The choices of the last run, all from `ready` on."""
        machine = self.prepared.machine
        assert self.explorer is not None
        machine.choices_enabled = True
        machine.choices_take()
        self.explorer.repeat()
        choices = records_of(machine.choices_take())
        end = Stretch(choices, machine.step, machine.state_hash())
        machine.choices_enabled = False
        return Made(stop, [end])
