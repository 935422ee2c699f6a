"""The default schedule: the lowest runnable CPU until it blocks, stores drain at once, no interrupt until all idle.

It is what the core's AUTO does; schedules are written as deviations from it.
"""

from __future__ import annotations

from machine import Machine
from recorder.schedule import auto
from traces.schema import RecordArray


class Default:
    """See the module. Answers 0 to every choice; the seed has no meaning."""

    name = "default"
    exact = False
    visible = False
    stop = "steps"

    def new_run(self, machine: Machine, seed: int) -> None:
        """Nothing to prepare."""

    def choose(self, machine: Machine) -> RecordArray:
        """AUTO until the run ends."""
        return auto()

    def answer(self, machine: Machine, cpu: int) -> int:
        """Always the first alternative."""
        return 0
