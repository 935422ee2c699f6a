"""How much a schedule differs from the default one, and all schedules that differ less.

What is fewest comes first: switches between CPUs where the one that runs could go on (and interrupts that would not
come yet), then stores that are held, then steps up to the last choice, then choices.

Whether fewer do is found out by running every schedule with 0, 1, 2, ... deviations at visible steps
(`_core.Explorer`), or one that is equivalent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from machine import Machine, Snapshot, _core
from recorder.hunt.checks import Failure
from recorder.hunt.systematic import FRAMES_MAX
from recorder.schedule import auto
from traces.schema import HOLD, ON, Op, RecordArray, records_of

_STEPS_MAX: Final = 3_000_000
"""Visible steps of all enumerations together: some seconds."""
_DRAINS_MAX: Final = 64
"""More stores than a buffer holds."""
_KEPT: Final = 4
"""Failing schedules of one number of deviations to go on with."""
_LOOKED_AT: Final = 256
"""Of so many the best are taken."""


class Cost(NamedTuple):
    """What a schedule should have little of, in this order.

    Attributes:
        switches: how often another CPU goes on than by default, or an interrupt comes earlier or later.
        held: runs whose stores are held, drains at chosen moments, lost translations.
        steps: up to the last choice.
        choices: how many.
    """

    switches: int
    held: int
    steps: int
    choices: int


@dataclass(frozen=True, slots=True)
class Level:
    """Failing schedules with one number of deviations, the best of them; `complete` if all of that number were run."""

    failing: list[RecordArray]
    complete: bool


class Fewest:
    """Measures schedules that start where `start` is, and enumerates those with few deviations.

    Args:
        machine: is moved. With `Machine.watch` said, or nothing can be enumerated.
        start: where schedules begin.
        step_max: where a run is given up.
        judge: says of a run that has just ended with this stop why it failed.
        runs_max: of all enumerations together.
    """

    def __init__(
        self,
        machine: Machine,
        start: Snapshot,
        *,
        step_max: int,
        judge: Callable[[str], Failure | None],
        runs_max: int,
    ) -> None:
        self._machine, self._start, self._step_max = machine, start, step_max
        self._judge, self._runs_each = judge, runs_max
        self._runs_max, self._steps_max = runs_max, _STEPS_MAX
        self.runs = self._steps = 0

    @property
    def cpus(self) -> int:
        """Of the machine."""
        return self._machine.cpus

    def cost(self, records: RecordArray) -> Cost:
        """Of the schedule that begins with these choices."""
        machine = self._begin()
        first, turn = machine.step, machine.auto_cpu
        begun, switches = turn, 0
        for record in records:
            op, cpu, arg = (int(record[name]) for name in ("op", "cpu", "arg"))
            if op in (Op.RUN, Op.IRQ):
                if op == Op.IRQ or cpu != turn:
                    switches += self._usual(turn) != (op, cpu, arg if op == Op.IRQ else 0)
                turn = cpu
            before = machine.step
            machine.execute(np.array([record]).tobytes(), step_max=self._step_max)
            if (
                op == Op.RUN
                and not int(record["flags"]) & ON
                and machine.step - before < arg
                and not machine.waiting(cpu)
            ):
                turn = (cpu + 1) % machine.cpus  # it has said PAUSE
        switches += self._usual(turn) != self._usual(begun)
        held = np.count_nonzero(records["flags"] & HOLD) + np.count_nonzero(
            np.isin(records["op"], (Op.DRAIN, Op.EVICT))
        )
        return Cost(switches, int(held), machine.step - first, len(records))

    def ticks(self, records: RecordArray) -> bool:
        """Whether a timer may tick in this schedule."""
        machine = self._begin()
        timers = {machine.timer_vector(cpu) for cpu in range(machine.cpus)}
        interrupts = set(records["arg"][records["op"] == Op.IRQ].tolist())
        return bool(interrupts) and (-1 in timers or bool(interrupts & timers))

    def instructions(self, records: RecordArray, index: int) -> int:
        """How many the CPU of this run completes in it."""
        machine, cpu = self._begin(), int(records["cpu"][index])
        machine.execute(records[:index].tobytes(), step_max=self._step_max)
        before = machine.registers(cpu)["retired"]
        machine.execute(records[index : index + 1].tobytes(), step_max=self._step_max)
        return machine.registers(cpu)["retired"] - before

    def more(self) -> None:
        """For another question: as many runs again."""
        self._runs_max, self._steps_max = self.runs + self._runs_each, self._steps + _STEPS_MAX

    def level(self, deviations: int, cause: str, *, tasks: bool, ticks: int, held: bool = True) -> Level:
        """The schedules with just so many deviations that fail for this cause.

        Args:
            tasks: words that only tasks of one CPU share are visible, too.
            ticks: timer ticks at most.
            held: whether stores may be held.
        """
        found: list[tuple[tuple[int, int], RecordArray]] = []
        looked_at = 0
        explorer = self._explorer(deviations, tasks, ticks, held)
        for stop in self._runs(explorer):
            if explorer.deviations != deviations or looked_at == _LOOKED_AT:
                continue
            failure = self._judge(stop)
            if failure is None or failure.cause != cause:
                continue
            looked_at += 1
            records = self._choices(explorer)
            found.append((_rank(records), records))
            found = sorted(found, key=lambda row: row[0])[:_KEPT]
        complete = not explorer.cut and not self._spent()
        return Level([records for _, records in found], complete)

    def _explorer(self, deviations: int, tasks: bool, ticks: int, held: bool) -> _core.Explorer:
        machine = self._begin()
        machine.choices_enabled = False
        return _core.Explorer(
            machine,
            bounded=True,
            tasks=tasks,
            eager=machine.cpus == 1 or not held,  # on one CPU nobody sees when a store drains
            bound=deviations,
            ticks=ticks,
            frames_max=FRAMES_MAX,
            step_max=self._step_max,
        )

    def _runs(self, explorer: _core.Explorer) -> Iterator[str]:
        """Why each run has ended, as long as the budget lasts."""
        before, steps = self.runs, self._steps
        while not self._spent():
            self._machine.console_take()
            stop = explorer.next()
            self.runs, self._steps = before + explorer.runs + explorer.blocked, steps + explorer.steps_made
            if stop is None:
                return
            if stop:
                yield stop

    def _spent(self) -> bool:
        return self.runs >= self._runs_max or self._steps >= self._steps_max

    def _choices(self, explorer: _core.Explorer) -> RecordArray:
        """Of the last run."""
        machine = self._machine
        machine.choices_enabled = True
        machine.choices_take()
        explorer.repeat()
        records = records_of(machine.choices_take())
        machine.choices_enabled = False
        return records

    def _begin(self) -> Machine:
        machine = self._machine
        machine.restore(self._start)
        machine.stop_at_trace = 0
        machine.tap = False
        return machine

    def _usual(self, turn: int) -> tuple[int, int, int] | None:
        """(op, cpu, vector) of what the default schedule does next but for drains, if it is the turn of this CPU."""
        machine = self._machine
        here = machine.snapshot()
        machine.choices_enabled = True
        machine.choices_take()
        machine.auto_cpu = turn
        usual = None
        for _ in range(_DRAINS_MAX):
            machine.execute(auto(1).tobytes(), step_max=self._step_max)
            log = records_of(machine.choices_take())
            if not len(log) or log["op"][0] != Op.DRAIN:
                usual = _said(log)
                break
        machine.choices_enabled = False
        machine.restore(here)
        return usual


def _said(log: RecordArray) -> tuple[int, int, int] | None:
    if not len(log):
        return None
    op, cpu, arg = (int(log[name][0]) for name in ("op", "cpu", "arg"))
    return op, cpu, arg if op == Op.IRQ else 0


def _rank(records: RecordArray) -> tuple[int, int]:
    """How many switches and interrupts there are in a whole run, and how late the last of them is."""
    runs = records[records["op"] == Op.RUN]
    changes = np.flatnonzero(runs["cpu"][1:] != runs["cpu"][:-1])
    late = int(runs["arg"][: changes[-1] + 1].sum()) if len(changes) else 0
    return len(changes) + int(np.count_nonzero(records["op"] == Op.IRQ)), late
