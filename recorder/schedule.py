"""A schedule is what a strategy says, batch by batch; the core executes it, Python is not asked per step."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import numpy as np

from machine import Machine, _core
from recorder.profile import Manner, Profile
from traces.schema import RECORD, Op, RecordArray

_VECTORS: Final = range(32, 256)

FOREVER: Final = (1 << 62) - 1
"""An AUTO of this many steps never ends by itself."""


class Strategy(Protocol):
    """Plans a schedule. Nothing but the seed and the machine may influence what it says.

    Attributes:
        name: what the tape's header says.
        exact: its batches are exact choices (of a tape); where one does not apply, the run has diverged.
        visible: plans by visible steps: the machine must know which words are shared, and its tap must be off.
        stop: of an exact one: the footer's stop if the machine could still go on behind the last batch.
    """

    name: str
    exact: bool
    visible: bool
    stop: str

    def new_run(self, machine: Machine, seed: int) -> None:
        """Start over: `machine` stands at the position from which on `choose` is asked."""

    def choose(self, machine: Machine) -> RecordArray:
        """The next batch of plan records, dtype `RECORD`; what does not apply is skipped unless `exact`.

        An empty batch means that there is nothing more to say, and ends the run.
        """

    def answer(self, machine: Machine, cpu: int) -> int:
        """What to answer to `cpu`, which waits at the choice port while nobody else can run. 0 is always legal."""


@runtime_checkable
class Profiled(Protocol):
    """A strategy that wants to know more about the scenario."""

    def expect(self, profile: Profile) -> None:
        """Called once, before the first run. If the strategy is `visible`, the profile knows of visible steps."""


def plan(*rows: tuple[int, int, int] | tuple[int, int, int, int]) -> RecordArray:
    """Records from (op, cpu, arg) or (op, cpu, arg, flags)."""
    return np.array([(op, cpu, rest[0] if rest else 0, 0, arg) for op, cpu, arg, *rest in rows], RECORD)


def auto(step_count: int = FOREVER) -> RecordArray:
    """The default schedule for at most `step_count` steps."""
    return plan((Op.AUTO, 0, step_count))


def deliverable(machine: Machine) -> list[tuple[int, int]]:
    """(cpu, vector) of every interrupt that could come now: the armed timer's, and pending ones."""
    return [(c, vector) for c in range(machine.cpus) for vector in _VECTORS if machine.can_interrupt(c, vector)]


def pick(policy: int, seed: int, manner: Manner, *, depth: int = 1, steps: int = 1) -> RecordArray:
    """The rest of the run by a random choice among agents at each visible step (`_core.PICK`).

    Args:
        policy: PICK_WALK, PICK_POS or PICK_PCT of the core.
        depth: of PCT, 1 to 7.
        steps: visible steps that a run is thought to have.
    """
    flags = policy | depth << _core.PICK_DEPTH_SHIFT | manner.ticks << _core.PICK_TICKS_SHIFT
    flags |= (_core.PICK_EAGER if manner.eager else 0) | (_core.PICK_TASKS if manner.tasks else 0)
    return np.array([(Op.PICK, 0, flags, min(steps, 0xFFFFFFFF), seed)], RECORD)
