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

from machine import _core
from recorder.strategies.picked import Picked


class Pos(Picked):
    """See the module."""

    name = "pos"
    policy = _core.PICK_POS
