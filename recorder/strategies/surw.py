"""SURW, selectively uniform random walk: each agent as probable as it has steps left.

Zhao, Wolff, Mathur, Roychoudhury, "Selectively uniform concurrency testing", ASPLOS 2025. If agents are chosen in
proportion to how many steps they still have to take, all interleavings of these steps are equally probable: a narrow
window in a long run is hit as often as one in a short run.

Where this departs from the paper:

* The steps selected are the visible steps (`recorder.sharing`), counted in one random run; store buffers and pending
  interrupts are agents with counts of their own.
* Where the counts are used up and a run is not over, those that are left are equally probable.
* Whether stores drain at once is drawn (every other run), and whether words count that only tasks of one CPU share (one
  run in four; on one CPU always). Timer ticks come at random moments.
"""

from __future__ import annotations

from machine import Machine, _core
from recorder.profile import Manner, Profile
from recorder.schedule import pick
from recorder.strategies.draws import Draws
from traces.schema import RecordArray


class Surw:
    """See the module."""

    name = "surw"
    exact = False
    visible = True
    stop = "steps"

    def __init__(self) -> None:
        self._profile = Profile(1)
        self.manner = Manner()

    def expect(self, profile: Profile) -> None:
        """The weights."""
        self._profile = profile

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw the manner; agents are as probable as they have steps of this kind."""
        self._draws = Draws(seed)
        self.manner = manner = self._draws.manner(machine)
        machine.weights(self._profile.visible.get((manner.tasks, manner.eager), (0,) * _core.AGENT_COUNT))

    def choose(self, machine: Machine) -> RecordArray:
        """All the rest of the run."""
        return pick(_core.PICK_WALK, self._draws.word(), self.manner, steps=self._profile.visible_steps(self.manner))

    def answer(self, machine: Machine, cpu: int) -> int:
        """0 or 1: legal wherever there is a choice at all, but the recorder falls back to 0."""
        return self._draws.below(2)
