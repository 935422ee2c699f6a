"""The schedule that still fails and differs least from the default one.

First, delta debugging over the choices of a failing run:

Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 2002. A candidate is a list of choices
with the default schedule behind them; it is run, and kept if the run fails for the same cause. In the end no single
choice can be left out (1-minimal), no held store let go, no run made one step shorter.

That may be a local optimum. So then all schedules with fewer deviations are run (recorder/fewest.py), and what fails
among them is made smaller in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from machine.errors import UsageError
from recorder.fewest import Cost, Fewest
from recorder.hunt.checks import Failure
from recorder.hunt.trial import Ended
from recorder.schedule import FOREVER, plan
from recorder.strategies.script import Script
from traces.schema import HOLD, ON, Op, RecordArray

RUNS_MAX: Final = 20_000
"""Most candidates to run, unless told otherwise."""

_LET_GO_MAX: Final = 4
"""So many instructions are taken off at most where a store is let go."""
_DRAINS_MAX: Final = 4
"""So many stores drain at most of those that are held to save a switch."""
_BEYOND: Final = 2
"""Fewer switches may take more held stores: so many deviations more than there are now are looked at."""

Progress = Callable[[int, int], None]
"""Called with (runs so far, choices left)."""


class Runs(Protocol):
    """Makes runs and judges them, as `recorder.hunt.trial.Trial` does."""

    def run(self, strategy: Script, seed: int) -> Ended:
        """One run."""


@dataclass(frozen=True, slots=True)
class Minimal:
    """What minimising came to.

    Attributes:
        records: the choices, dtype `RECORD`.
        before: how many there were.
        runs: candidates that were run.
        failure: of the last candidate kept.
        complete: False if the budget of runs was spent before the list was 1-minimal.
        cost: what there is least of; None if nobody could measure it.
        proved: whether every schedule with fewer deviations has been run.
        deviations: up to so many all have been run; -1: not even the default one.
        enumerated: how many that were.
        without_held: what the best failing schedule costs in which no store is held, if stores are held in this one and
            such a one was found.
        without_held_deviations: up to so many all of these have been run.
    """

    records: RecordArray
    before: int
    runs: int
    failure: Failure
    complete: bool
    cost: Cost | None = None
    proved: bool = False
    deviations: int = -1
    enumerated: int = 0
    without_held: Cost | None = None
    without_held_deviations: int = -1

    @property
    def switches(self) -> int:
        """How often another CPU goes on, or an interrupt comes, than by default; else than before in the list."""
        if self.cost is not None:
            return self.cost.switches
        cpus = self.records["cpu"][self.records["op"] == Op.RUN]
        return int(np.count_nonzero(cpus[1:] != cpus[:-1]))

    @property
    def held(self) -> int:
        """Runs whose stores are held."""
        return int(np.count_nonzero(self.records["flags"] & HOLD))


def script_records(records: RecordArray) -> RecordArray:
    """The exact choices of a tape as choices of a script: the same, but passed over where they do not apply."""
    out = records.copy()
    runs = out["op"] == Op.RUN
    out["flags"] = np.where(runs, out["flags"] & HOLD | ON, 0)
    return out


class Minimiser:
    """Minimises one failing schedule.

    Args:
        trial: of the scenario; its machine is moved.
        runs_max: most candidates to run.
        fewest: measures schedules and enumerates those with few deviations; None: 1-minimal is enough.
    """

    def __init__(
        self,
        trial: Runs,
        *,
        runs_max: int = RUNS_MAX,
        progress: Progress | None = None,
        fewest: Fewest | None = None,
    ) -> None:
        self._trial, self._runs_max, self._progress = trial, runs_max, progress
        self._fewest = fewest
        self._runs = 0
        self._known: dict[
            bytes, bool
        ] = {}  # by hash: a list may have a hundred thousand bytes, and there are thousands
        self._most: tuple[int, int] | None = None
        """More switches and held runs than these will not do."""
        self._cause = ""

    def minimise(self, records: RecordArray) -> Minimal:
        """Raises UsageError if the schedule does not fail."""
        first = self._run(records)
        if first.failure is None:
            raise UsageError(f"there is nothing to minimise: this schedule does not fail ({first.stop})")
        self._cause = first.failure.cause
        best = self._reduced(self._plain_prefix(records))
        cost, proved, level = None, False, -1
        without, without_level = None, -1
        if self._fewest is not None:
            best, cost = self._with_less(best, self._fewest)
            # With ticks there are many more schedules: first it is seen whether it can do without them.
            if self._fewest.cpus > 1:
                best, cost, level = self._least(best, cost, self._fewest, tasks=False)
            if self._fewest.cpus == 1 or self._fewest.ticks(best):
                best, cost, level = self._least(best, cost, self._fewest, tasks=True)
            proved = level >= cost.switches + cost.held - 1
            if cost.held:
                without, without_level = self._without_held(cost, self._fewest)
        ended = self._trial.run(Script(best), 0)  # no candidate, but what the answer says
        if ended.stop == "interrupted":
            raise KeyboardInterrupt
        failure = ended.failure
        assert failure is not None
        return Minimal(
            best,
            len(records),
            self._runs,
            failure,
            self._has_budget(),
            cost=cost,
            proved=proved,
            deviations=level,
            enumerated=0 if self._fewest is None else self._fewest.runs,
            without_held=without,
            without_held_deviations=without_level,
        )

    def _reduced(self, records: RecordArray) -> RecordArray:
        """1-minimal; where `_most` is set, among what costs no more."""
        best, before = records, -1
        while before != _size(best) and self._has_budget():
            before = _size(best)
            best = self._collapsed(best)
            best = _merged(self._without(best))
            best = self._weakened(best)
        return best

    def _with_less(self, records: RecordArray, fewest: Fewest) -> tuple[RecordArray, Cost]:
        """With fewer switches, by letting CPUs go on until they wait; and 1-minimal among what has as few."""
        best, cost = records, fewest.cost(records)
        for i in reversed(range(len(records))):
            if best["op"][i] != Op.RUN or best["arg"][i] >= FOREVER:
                continue
            for candidate in _going_on(best, i, fewest.cpus):
                if self._fails(candidate):
                    candidate_cost = fewest.cost(candidate)
                    if candidate_cost[:2] < cost[:2]:
                        best, cost = candidate, candidate_cost
                        break
        self._most = cost[:2]
        best = self._reduced(best)
        self._most = None
        return best, fewest.cost(best)

    def _least(self, records: RecordArray, cost: Cost, fewest: Fewest, *, tasks: bool) -> tuple[RecordArray, Cost, int]:
        """The schedule that costs least among this one and those with as many deviations or fewer; up to how many all
        have been run.

        tasks: with words that only tasks of one CPU share, and with ticks.
        """
        done = -1
        while done < cost.switches + cost.held + _BEYOND and self._has_budget():
            level = fewest.level(done + 1, self._cause, tasks=tasks, ticks=done + 1 if tasks else 0)
            for found in level.failing:
                plain = self._plain_prefix(script_records(found))
                candidate, candidate_cost = self._with_less(plain, fewest)
                if candidate_cost < cost:
                    records, cost = candidate, candidate_cost
            if not level.complete:
                break
            done += 1
        return records, cost, done

    def _without_held(self, cost: Cost, fewest: Fewest) -> tuple[Cost | None, int]:
        """What it costs if stores drain at once; up to how many deviations all such schedules have been run."""
        fewest.more()
        done, best = -1, None
        while best is None and done < cost.switches + cost.held + _BEYOND:
            level = fewest.level(done + 1, self._cause, tasks=False, ticks=0, held=False)
            for found in level.failing:
                records = script_records(found)
                records = _with_holds(records[records["op"] != Op.DRAIN], 0)
                if self._fails(records):
                    candidate = fewest.cost(self._plain_prefix(records))
                    best = candidate if best is None else min(best, candidate)
            if not level.complete:
                break
            done += 1
        return best, done

    def _run(self, records: RecordArray) -> Ended:
        self._runs += 1
        ended = self._trial.run(Script(records), 0)
        if ended.stop == "interrupted":
            raise KeyboardInterrupt
        return ended

    def _has_budget(self) -> bool:
        return self._runs < self._runs_max

    def _fails(self, records: RecordArray) -> bool:
        """Whether this candidate fails for the same cause. Nothing does once the budget is spent."""
        key = blake2b(records.tobytes() + repr(self._most).encode(), digest_size=16).digest()
        known = self._known.get(key)
        if known is not None or not self._has_budget():
            return bool(known)
        failure = self._run(records).failure
        fails = failure is not None and failure.cause == self._cause
        if fails and self._most is not None and self._fewest is not None:
            fails = self._fewest.cost(records)[:2] <= self._most
        self._known[key] = fails
        if self._progress is not None:
            self._progress(self._runs, len(records))
        return fails

    def _shortest_prefix(self, records: RecordArray) -> RecordArray:
        """A prefix that fails, found by bisection: what comes after the damage is done is not needed."""
        low, high = 0, len(records)  # records[:high] fails
        while low < high:
            middle = (low + high) // 2
            if self._fails(records[:middle]):
                high = middle
            else:
                low = middle + 1
        return records[:high]

    def _plain_prefix(self, records: RecordArray) -> RecordArray:
        """Of a whole run, what is needed at most. Once it is cut in the middle of something, its stores may have to be
        held."""
        return _merged(self._plain(self._shortest_prefix(_merged(self._plain(records)))))

    def _plain(self, records: RecordArray) -> RecordArray:
        """Without any held store and the drains that go with them, without lost translations, without interrupts,
        each if it fails all the same."""
        for op in (Op.EVICT, Op.IRQ):
            candidate = records[records["op"] != op]
            records = candidate if self._fails(candidate) else records
        candidate = records[records["op"] != Op.DRAIN]
        candidate["flags"] &= ~np.uint16(HOLD)
        return candidate if self._fails(candidate) else records

    def _collapsed(self, records: RecordArray) -> RecordArray:
        """Fewer switches: in larger and smaller windows, let each CPU do at once what it does in the window, with all
        stores held or none."""
        size = len(records)
        while size > 1:
            end = len(records)
            while end > 0:
                start = max(end - size, 0)
                window = records[start:end]
                single = np.concatenate([window[window["cpu"] == cpu] for cpu in _in_order(window["cpu"])])
                for instead in (_with_holds(single, 0), _with_holds(single, HOLD), single):
                    candidate = np.concatenate([records[:start], _merged(instead), records[end:]])
                    if len(candidate) < len(records) and self._fails(candidate):
                        records = candidate
                        break
                end = start
            size = min(size // 2, len(records))
        return records

    def _without(self, records: RecordArray) -> RecordArray:
        """ddmin's complements: leave out pieces, smaller and smaller ones, the last first."""
        size = max(len(records) // 2, 1)
        while len(records):
            end, removed = len(records), False
            while end > 0:
                start = max(end - size, 0)
                candidate = np.concatenate([records[:start], records[end:]])
                if self._fails(candidate):
                    records, removed = candidate, True
                end = start
            if size == 1 and not removed:
                break
            if not removed:
                size = max(size // 2, 1)
            size = min(size, max(len(records) // 2, 1))
        return records

    def _weakened(self, records: RecordArray) -> RecordArray:
        """Let held stores go, and shorten runs: halve them as long as that goes, then take off less and less."""
        records = records.copy()
        for i in range(len(records)):
            if records["op"][i] != Op.RUN:
                continue
            if records["flags"][i] & HOLD:
                self._let_go(records, i)
            if records["arg"][i] >= FOREVER:
                continue
            cut = int(records["arg"][i]) // 2
            while cut:
                if not self._change(records, i, "arg", int(records["arg"][i]) - cut):
                    cut //= 2
                cut = min(cut, int(records["arg"][i]) - 1)
        return records

    def _let_go(self, records: RecordArray, index: int) -> None:
        """Hold no stores in this run: then no step goes into making room, and perhaps it has to end before one."""
        before, flags = int(records["arg"][index]), int(records["flags"][index])
        arg = before if self._fewest is None else self._fewest.instructions(records, index)
        records["flags"][index] = flags & ~HOLD
        for steps in dict.fromkeys((before, *range(arg, max(arg - _LET_GO_MAX, 0), -1))):
            if self._change(records, index, "arg", steps):
                return
        records["flags"][index] = flags

    def _change(self, records: RecordArray, index: int, field: str, value: int) -> bool:
        before = records[field][index]
        records[field][index] = value
        if self._fails(records):
            return True
        records[field][index] = before
        return False


def _going_on(records: RecordArray, index: int, cpus: int) -> Iterator[RecordArray]:
    """The same, but that the CPU of a run goes on until it waits: or so that its stores are held, some drain, and the
    others run, which the default schedule would let wait for the rest of the drains."""
    goes_on = records.copy()
    goes_on["arg"][index] = FOREVER
    goes_on["flags"][index] &= ~np.uint16(ON)
    yield goes_on
    if cpus == 1:
        return  # nobody sees when a store drains
    cpu = int(records["cpu"][index])
    held = goes_on.copy()
    held["flags"][index] |= np.uint16(HOLD)
    others = plan(*((Op.RUN, (cpu + i) % cpus, FOREVER) for i in range(1, cpus)))
    for drains in range(_DRAINS_MAX + 1):
        drain = plan((Op.DRAIN, cpu, drains)) if drains else others[:0]
        yield np.concatenate([held[: index + 1], drain, held[index + 1 :], others])


def _in_order(cpus: npt.NDArray[np.uint8]) -> list[int]:
    """The different ones, in the order in which they first come."""
    return list(dict.fromkeys(cpus.tolist()))


def _with_holds(records: RecordArray, hold: int) -> RecordArray:
    """The same with stores held in all runs or in none, and without the drains."""
    out: RecordArray = records[records["op"] != Op.DRAIN]
    runs = out["op"] == Op.RUN
    out["flags"][runs] &= ~np.uint16(HOLD)
    out["flags"][runs] |= np.uint16(hold)
    return out


def _size(records: RecordArray) -> int:
    steps = records["arg"][(records["op"] == Op.RUN) & (records["arg"] < FOREVER)].sum()
    return int(len(records) + steps + np.count_nonzero(records["flags"] & HOLD))


def _merged(records: RecordArray) -> RecordArray:
    """Neighbouring runs of one CPU as one."""
    keep: list[int] = []
    out = records.copy()
    for i in range(len(out)):
        last = out[keep[-1]] if keep else None
        same = last is not None and all(last[name] == out[name][i] for name in ("op", "cpu", "flags"))
        if last is not None and same and last["op"] == Op.RUN:
            last["arg"] = min(int(last["arg"]) + int(out["arg"][i]), FOREVER)
        else:
            keep.append(i)
    return out[keep]
