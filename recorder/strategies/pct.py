"""PCT, probabilistic concurrency testing: random priorities, lowered at a few random moments.

Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler with probabilistic guarantees of finding bugs",
ASPLOS 2010. The agent of the highest priority that is enabled goes on; at each of d - 1 change points the one that was
running gets the lowest priority. A bug that needs d ordering constraints is hit with probability at least
1 / (n * k^(d - 1)), n agents, k steps: `bound`.

Where this departs from the paper:

* Agents are the CPUs and their store buffers: that a buffer drains early or late is a matter of priority, too.
* k is what the default schedule takes, and a quarter more.
* d is drawn as well: 1, 2 and 3 in the proportion 1 : 2 : 2. So is whether stores drain at once (every other run): most
  bugs do not need held stores, and without them there are half as many agents.
* At a change point there may be a timer tick as well. On one CPU it is all there is.
* A CPU that spins is passed over for a while (the paper's fairness rule, in the core).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from machine import Machine
from recorder.schedule import FOREVER, auto, deliverable, plan
from traces.schema import Op, RecordArray

AGENT_DRAIN: Final = 8
"""Agent n is CPU n, agent 8 + n its store buffer (`_core.RANK`)."""

_DEPTHS: Final = (1, 2, 2, 3, 3)
_FLAG_BITS: Final = 11


def rank_record(order: list[int], step_count: int) -> RecordArray:
    """A RANK record: agents from the highest rank down, for at most `step_count` steps (rounded down, 11 bits kept)."""
    exponent = max(step_count.bit_length() - _FLAG_BITS, 0)
    arg = sum(agent << 4 * rank for rank, agent in enumerate(order))
    # Places that are left name the last agent again: 0 would be CPU 0.
    arg |= sum(order[-1] << 4 * rank for rank in range(len(order), 16))
    return plan((Op.RANK, 0, arg, (step_count >> exponent) << 5 | exponent))


class Pct:
    """See the module."""

    name = "pct"
    exact = False
    stop = "steps"

    def __init__(self) -> None:
        self.steps = 1 << 16

    def expect(self, step_count: int) -> None:
        """What k is estimated by."""
        self.steps = max(step_count + step_count // 4, 1)

    @staticmethod
    def bound(agents: int, steps: int, depth: int) -> float:
        """Least probability with which one run of this depth hits a bug that needs `depth` constraints."""
        return 1.0 / float(agents * steps ** (depth - 1))

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw depth, priorities and change points."""
        self._bits = np.random.PCG64(seed)
        word = self._draw()
        self.depth = _DEPTHS[word % len(_DEPTHS)]
        self.eager = bool(word >> 8 & 1)
        agents = list(range(machine.cpus))
        if not self.eager:
            agents += [AGENT_DRAIN + cpu for cpu in range(machine.cpus)]
        self.order = self._shuffled(agents)
        if self.eager:  # the buffers above everybody
            self.order = [AGENT_DRAIN + cpu for cpu in range(machine.cpus)] + self.order
        points = sorted(self._draw() % self.steps for _ in range(self.depth - 1))
        self._lengths = [b - a for a, b in zip([0, *points], points, strict=False)]
        self._begun = False

    def choose(self, machine: Machine) -> RecordArray:
        """The stretch up to the next change point, and behind the last one all the rest."""
        if self._begun:
            return self._next(machine)
        self._begun = True
        return self._stretch()

    def answer(self, machine: Machine, cpu: int) -> int:
        """0 or 1: legal wherever there is a choice at all, but the recorder falls back to 0."""
        return self._draw() & 1

    def _next(self, machine: Machine) -> RecordArray:
        """A change point: who ran gets the lowest priority, and a tick may come."""
        self.order.remove(machine.auto_cpu)
        self.order.append(machine.auto_cpu)
        ticks = [plan((Op.IRQ, cpu, vector)) for cpu, vector in deliverable(machine) if self._draw() & 1]
        return np.concatenate([*ticks, self._stretch()])

    def _stretch(self) -> RecordArray:
        if not self._lengths:
            return np.concatenate([rank_record(self.order, FOREVER >> 21), auto()])
        length = self._lengths.pop(0)
        return rank_record(self.order, length) if length else auto(0)

    def _shuffled(self, agents: list[int]) -> list[int]:
        """Fisher and Yates; the modulus's bias is some 2^-60."""
        for i in range(len(agents) - 1, 0, -1):
            j = self._draw() % (i + 1)
            agents[i], agents[j] = agents[j], agents[i]
        return agents

    def _draw(self) -> int:
        return int(self._bits.random_raw())
