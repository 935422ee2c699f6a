"""Which moments of a machine to keep."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import Final

from machine import Machine, Snapshot

GRID_MAX: Final = 64
NEAR_MAX: Final = 24
INTERVAL_STEPS: Final = 1 << 16


class Snapshots:
    """At most `GRID_MAX` snapshots evenly over all that was visited, and `NEAR_MAX` close before recent targets.

    The grid makes any seek cost at most a fraction of the tape: when it is full, every other one goes and the interval
    doubles. The near ones, at distances that grow eightfold, make stepping back a few steps at a time cost next
    to nothing. A snapshot costs the pages written since the one before.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.interval_steps = INTERVAL_STEPS
        self._kept: dict[int, Snapshot] = {machine.step: machine.snapshot()}
        self._steps: list[int] = [machine.step]
        self._near: list[int] = []

    def before(self, step: int) -> int:
        """The last kept position at or before `step`."""
        return self._steps[bisect_right(self._steps, step) - 1]

    def restore(self, step: int) -> None:
        """Put the machine back to the kept position `step`."""
        self.machine.restore(self._kept[step])

    def stops(self, target: int) -> list[int]:
        """Positions behind the machine's at which `take` should be called on the way to `target`, ascending."""
        here = self.machine.step
        first = (here // self.interval_steps + 1) * self.interval_steps
        grid = range(first, target + 1, self.interval_steps)
        near = (target - (8 << 3 * i) for i in range(5))
        return sorted({s for s in (*grid, *near) if here < s <= target and s not in self._kept})

    def take(self) -> None:
        """Keep the machine's position."""
        step = self.machine.step
        if step in self._kept:
            return
        self._kept[step] = self.machine.snapshot()
        insort(self._steps, step)
        if step % self.interval_steps:
            self._near.append(step)
            if len(self._near) > NEAR_MAX:
                self._drop(self._near.pop(0))
        while len(self._steps) - len(self._near) > GRID_MAX:
            self._thin()

    def forget_behind(self, step: int) -> None:
        """Keep nothing of the positions behind `step`."""
        for kept in [s for s in self._steps if s > step]:
            self._drop(kept)
        self._near = [s for s in self._near if s <= step]

    def _thin(self) -> None:
        """Keep every other position of the grid."""
        self.interval_steps *= 2
        near = set(self._near)
        for step in self._steps[1:]:
            if step % self.interval_steps and step not in near:
                self._drop(step)

    def _drop(self, step: int) -> None:
        del self._kept[step]
        self._steps.remove(step)
