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
from recorder.strategies.picked import Picked


class Surw(Picked):
    """See the module."""

    name = "surw"
    policy = _core.PICK_WALK

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw the manner; agents are as probable as they have steps in a run of this kind."""
        super().new_run(machine, seed)
        known = self.profile.visible.get((self.manner.tasks, self.manner.eager), (0,) * _core.AGENT_COUNT)
        machine.weights(known)
