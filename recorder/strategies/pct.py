"""PCT, probabilistic concurrency testing: random priorities, lowered at a few random moments.

Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler with probabilistic guarantees of finding bugs",
ASPLOS 2010. The agent of the highest priority that is enabled goes on; at each of d - 1 change points the one that was
about to run gets the lowest priority. A bug that needs d ordering constraints is hit with probability at least
1 / (n * k^(d - 1)), n agents, k steps: `bound`.

Where this departs from the paper:

* Agents are the CPUs, their store buffers and the interrupts pending at them: that a buffer drains or an interrupt
  comes early or late is a matter of priority, too.
* Steps are visible steps (`recorder.sharing`), and k is how many a random run had, and a quarter more.
* d is drawn as well: 1, 2 and 3 in the proportion 1 : 2 : 2. So is whether stores drain at once (every other run): most
  bugs do not need held stores, and without them there are half as many agents.
* Whether words count that only tasks of one CPU share is drawn (one run in four; on one CPU always). Timer ticks come
  at random moments, some in every run of that kind.
* A CPU that spins is passed over until what it reads changes (the paper's fairness rule, in the core).
"""

from __future__ import annotations

from typing import Final

from machine import Machine, _core
from recorder.strategies.draws import Draws
from recorder.strategies.picked import Picked

_DEPTHS: Final = (1, 2, 2, 3, 3)


class Pct(Picked):
    """See the module."""

    name = "pct"
    policy = _core.PICK_PCT

    @property
    def steps(self) -> int:
        """k."""
        return super().steps * 5 // 4

    @staticmethod
    def bound(agents: int, steps: int, depth: int) -> float:
        """Least probability with which one run of this depth hits a bug that needs `depth` constraints."""
        return 1.0 / float(agents * steps ** (depth - 1))

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw depth and manner; the core draws priorities and change points."""
        self.draws = Draws(seed)
        self.depth = _DEPTHS[self.draws.below(len(_DEPTHS))]
        self.manner = self.draws.manner(machine)
