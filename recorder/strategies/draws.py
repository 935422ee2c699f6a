"""Random draws that every strategy makes alike."""

from __future__ import annotations

from typing import Final

from machine import Machine
from recorder.profile import Manner

_MASK: Final = (1 << 64) - 1
_TICKS_OF_TASKS: Final = (1, 2, 3, 4)
_TICKS_OF_CPUS: Final = (0, 0, 0, 1)
"""Timer ticks in a run. Between the tasks of one CPU nothing else happens."""


def mixed(x: int) -> int:
    """The output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return x ^ x >> 31


class Draws:
    """A stream of draws: SplitMix64, which costs nothing to begin."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def word(self) -> int:
        """64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        return mixed(self._state)

    def below(self, bound: int) -> int:
        """A number below `bound`; the modulus's bias is some 2^-60."""
        return self.word() % bound

    def flip(self) -> bool:
        """Heads or tails."""
        return bool(self.word() & 1)

    def manner(self, machine: Machine) -> Manner:
        """How a run is to be made. On one CPU all that happens is between its tasks, else only in some of the runs."""
        tasks = machine.cpus == 1 or self.below(4) == 0
        ticks = _TICKS_OF_TASKS if tasks else _TICKS_OF_CPUS
        # On one CPU nobody sees when a store drains.
        return Manner(tasks, machine.cpus == 1 or self.flip(), ticks[self.below(len(ticks))])
