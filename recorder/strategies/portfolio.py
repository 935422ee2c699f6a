"""Portfolio: each run is planned by one of several strategies, which one is drawn.

No strategy is best for all bugs (exploration.md 2.2: random walks beat PCT on symmetric windows, PCT with store buffers
as agents finds what held stores do), and a run of the wrong one costs no more than a run.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from machine import Machine
from recorder.schedule import Profiled, Strategy
from recorder.strategies.pct import Pct
from recorder.strategies.random_walk import RandomWalk
from traces.schema import RecordArray

_STREAM: Final = 0x706F7274666F6C69
"""Keeps the draw of the strategy apart from what the strategy draws of the same seed."""


class Portfolio:
    """See the module. Three runs of PCT to one of the random walk, which takes several times as long."""

    name = "portfolio"
    exact = False
    stop = "steps"

    def __init__(self) -> None:
        pct = Pct()
        self._members: tuple[Strategy, ...] = (pct, pct, pct, RandomWalk())
        self.chosen: Strategy = pct

    def expect(self, step_count: int) -> None:
        """Pass it on."""
        for member in set(self._members):
            if isinstance(member, Profiled):
                member.expect(step_count)

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw who plans this run."""
        word = int(np.random.PCG64(seed ^ _STREAM).random_raw())
        self.chosen = self._members[word % len(self._members)]
        self.chosen.new_run(machine, seed)

    def choose(self, machine: Machine) -> RecordArray:
        """What the chosen one says."""
        return self.chosen.choose(machine)

    def answer(self, machine: Machine, cpu: int) -> int:
        """What the chosen one says."""
        return self.chosen.answer(machine, cpu)
