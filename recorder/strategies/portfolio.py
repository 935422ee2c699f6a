"""Portfolio: each run is planned by one of several strategies, which one is drawn.

No strategy is best for all bugs (exploration.md 2.2: random walks beat PCT on symmetric windows, PCT with store buffers
as agents finds what held stores do), and a run of the wrong one costs no more than a run. The random walk over single
steps is among them for what the others leave out: words that nobody saw shared, and lost translations.
"""

from __future__ import annotations

from typing import Final

from machine import Machine
from recorder.profile import Profile
from recorder.schedule import Profiled, Strategy
from recorder.strategies.draws import mixed
from recorder.strategies.pct import Pct
from recorder.strategies.pos import Pos
from recorder.strategies.random_walk import RandomWalk
from recorder.strategies.surw import Surw
from traces.schema import RecordArray

_STREAM: Final = 0x706F7274666F6C69
"""Keeps the draw of the strategy apart from what the strategy draws of the same seed."""


class Portfolio:
    """See the module. The random walk gets one run in eight: it takes several times as long."""

    name = "portfolio"
    exact = False
    visible = True
    stop = "steps"

    def __init__(self) -> None:
        pct, pos, surw = Pct(), Pos(), Surw()
        self._members: tuple[Strategy, ...] = (pct, pct, pos, pos, pos, surw, surw, RandomWalk())
        self.chosen: Strategy = pct

    def expect(self, profile: Profile) -> None:
        """Pass it on."""
        for member in set(self._members):
            if isinstance(member, Profiled):
                member.expect(profile)

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw who plans this run."""
        self.chosen = self._members[mixed(seed ^ _STREAM) % len(self._members)]
        self.chosen.new_run(machine, seed)

    def choose(self, machine: Machine) -> RecordArray:
        """What the chosen one says."""
        return self.chosen.choose(machine)

    def answer(self, machine: Machine, cpu: int) -> int:
        """What the chosen one says."""
        return self.chosen.answer(machine, cpu)
