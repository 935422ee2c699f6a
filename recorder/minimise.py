"""The shortest schedule that still fails: delta debugging over the choices of a failing run.

Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 2002. A candidate is a list of choices
with the default schedule behind them; it is run, and kept if the run fails for the same cause. In the end no single
choice can be left out (1-minimal), no held store let go, no run made one step shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from machine.errors import UsageError
from recorder.hunt.checks import Failure
from recorder.hunt.trial import Ended, Trial
from recorder.strategies.script import Script
from traces.schema import HOLD, ON, Op, RecordArray

RUNS_MAX: Final = 20_000
"""Most candidates to run, unless told otherwise."""

Progress = Callable[[int, int], None]
"""Called with (runs so far, choices left)."""


@dataclass(frozen=True, slots=True)
class Minimal:
    """What minimising came to.

    Attributes:
        records: the choices, dtype `RECORD`.
        before: how many there were.
        runs: candidates that were run.
        failure: of the last candidate kept.
        complete: False if the budget of runs was spent before the list was 1-minimal.
    """

    records: RecordArray
    before: int
    runs: int
    failure: Failure
    complete: bool

    @property
    def switches(self) -> int:
        """How often another CPU goes on than before, within the list."""
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
    """

    def __init__(self, trial: Trial, *, runs_max: int = RUNS_MAX, progress: Progress | None = None) -> None:
        self._trial, self._runs_max, self._progress = trial, runs_max, progress
        self._runs = 0
        self._known: dict[
            bytes, bool
        ] = {}  # by hash: a list may have a hundred thousand bytes, and there are thousands
        self._failure: Failure | None = None
        self._cause = ""

    def minimise(self, records: RecordArray) -> Minimal:
        """Raises UsageError if the schedule does not fail."""
        first = self._run(records)
        if first.failure is None:
            raise UsageError(f"there is nothing to minimise: this schedule does not fail ({first.stop})")
        self._cause, self._failure = first.failure.cause, first.failure
        best, before = self._plain(self._shortest_prefix(records)), -1
        while before != _size(best) and self._has_budget():
            before = _size(best)
            best = self._collapsed(best)
            best = _merged(self._without(best))
            best = self._weakened(best)
        assert self._failure is not None
        return Minimal(best, len(records), self._runs, self._failure, self._has_budget())

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
        key = blake2b(records.tobytes(), digest_size=16).digest()
        known = self._known.get(key)
        if known is not None or not self._has_budget():
            return bool(known)
        failure = self._run(records).failure
        fails = failure is not None and failure.cause == self._cause
        if fails:
            self._failure = failure
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
                self._change(records, i, "flags", int(records["flags"][i]) & ~HOLD)
            cut = int(records["arg"][i]) // 2
            while cut:
                if not self._change(records, i, "arg", int(records["arg"][i]) - cut):
                    cut //= 2
                cut = min(cut, int(records["arg"][i]) - 1)
        return records

    def _change(self, records: RecordArray, index: int, field: str, value: int) -> bool:
        before = records[field][index]
        records[field][index] = value
        if self._fails(records):
            return True
        records[field][index] = before
        return False


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
    return int(len(records) + records["arg"][records["op"] == Op.RUN].sum() + np.count_nonzero(records["flags"] & HOLD))


def _merged(records: RecordArray) -> RecordArray:
    """Neighbouring runs of one CPU as one."""
    keep: list[int] = []
    out = records.copy()
    for i in range(len(out)):
        last = out[keep[-1]] if keep else None
        same = last is not None and all(last[name] == out[name][i] for name in ("op", "cpu", "flags"))
        if last is not None and same and last["op"] == Op.RUN:
            last["arg"] += out["arg"][i]
        else:
            keep.append(i)
    return out[keep]
