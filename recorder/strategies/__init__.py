"""One file per strategy, headed by the paper it implements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from machine.errors import UsageError
from recorder.schedule import Strategy
from recorder.strategies.default import Default
from recorder.strategies.pct import Pct
from recorder.strategies.portfolio import Portfolio
from recorder.strategies.pos import Pos
from recorder.strategies.random_walk import RandomWalk
from recorder.strategies.registered import registered, registered_names
from recorder.strategies.replay import Replay
from recorder.strategies.surw import Surw

__all__ = ["STRATEGIES", "Default", "Pct", "Portfolio", "Pos", "RandomWalk", "Replay", "Surw", "strategy"]

STRATEGIES: Final[dict[str, Callable[[], Strategy]]] = {
    Default.name: Default,
    Pct.name: Pct,
    Portfolio.name: Portfolio,
    Pos.name: Pos,
    RandomWalk.name: RandomWalk,
    Surw.name: Surw,
}
"""Strategies that can be asked for by name."""


def strategy(name: str) -> Strategy:
    """A new strategy of this name: one of these, one that a package has registered, or `module:Class`.

    Raises UsageError.
    """
    made = STRATEGIES[name]() if name in STRATEGIES else registered(name)
    if made is None:
        there = ", ".join(sorted({*STRATEGIES, *registered_names()}))
        raise UsageError(f"unknown strategy {name!r}; there are {there}, and module:Class")
    return made
