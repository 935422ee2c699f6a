"""POS, partial order sampling: random priorities, drawn anew where steps race.

Yuan, Yang, Gu, "Partial order aware concurrency sampling", CAV 2018. Each agent's next step has a random priority; the
highest that is enabled is taken; the agent's next step, and the next steps of others that race with the one taken,
draw anew. So orders of independent steps are not told apart, and every class of runs has a fair chance.

Where this departs from the paper:

* Agents are the CPUs, their store buffers and the interrupts pending at them; steps are visible steps
  (`recorder.sharing`). What a step will touch is known by its first access only.
* Whether stores drain at once is drawn (every other run), and whether words count that only tasks of one CPU share (one
  run in four; on one CPU always). Timer ticks come at random moments.
"""

from __future__ import annotations

from machine import Machine, _core
from recorder.profile import Manner, Profile
from recorder.schedule import pick
from recorder.strategies.draws import Draws
from traces.schema import RecordArray


class Pos:
    """See the module."""

    name = "pos"
    exact = False
    visible = True
    stop = "steps"

    def __init__(self) -> None:
        self._profile = Profile(1)
        self.manner = Manner()

    def expect(self, profile: Profile) -> None:
        """Over how many steps ticks are spread."""
        self._profile = profile

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw the manner; the core draws priorities."""
        self._draws = Draws(seed)
        self.manner = self._draws.manner(machine)

    def choose(self, machine: Machine) -> RecordArray:
        """All the rest of the run."""
        return pick(_core.PICK_POS, self._draws.word(), self.manner, steps=self._profile.visible_steps(self.manner))

    def answer(self, machine: Machine, cpu: int) -> int:
        """0 or 1: legal wherever there is a choice at all, but the recorder falls back to 0."""
        return self._draws.below(2)
