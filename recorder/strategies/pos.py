"""POS, partial order sampling: random priorities, drawn anew where steps race.

Yuan, Yang, Gu, "Partial order aware concurrency sampling", CAV 2018. Each agent's next step has a random priority; the
highest that is enabled is taken; the agent's next step, and the next steps of others that race with the one taken,
draw anew. So orders of independent steps are not told apart, and every class of runs has a fair chance.

Where this departs from the paper:

* Agents are the CPUs, their store buffers and the interrupts pending at them; steps are visible steps
  (`recorder.sharing`). What a step will touch is known by its first access only.
* Whether stores drain at once is drawn (every other run). Timer ticks come at random moments.
"""

from __future__ import annotations

from machine import Machine, _core
from recorder.profile import Profile
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
        self.steps = (1, 1)

    def expect(self, profile: Profile) -> None:
        """Over how many steps ticks are spread."""
        self.steps = (profile.visible_steps(True), profile.visible_steps(False))

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw whether stores are held, and ticks; the core draws priorities."""
        self._draws = Draws(seed)
        self.eager = self._draws.flip()
        self.ticks = self._draws.ticks(machine)

    def choose(self, machine: Machine) -> RecordArray:
        """All the rest of the run."""
        steps = self.steps[0 if self.eager else 1]
        return pick(_core.PICK_POS, self._draws.word(), eager=self.eager, ticks=self.ticks, steps=steps)

    def answer(self, machine: Machine, cpu: int) -> int:
        """0 or 1: legal wherever there is a choice at all, but the recorder falls back to 0."""
        return self._draws.below(2)
