"""What a strategy may want to know about a scenario before its first schedule: how long a run is, and what is
shared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """See the module.

    Attributes:
        step_count: steps that the default schedule takes from `ready` to its end.
        shared_words: number of words of 4 bytes that several CPUs or tasks share; 0 if nobody asked.
        runs: how many runs that was learned from.
        visible: visible steps of each agent in one random run, with stores that drain at once, and held; empty if
            nobody asked.
    """

    step_count: int
    shared_words: int = 0
    runs: int = 0
    visible: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    def visible_steps(self, eager: bool) -> int:
        """Visible steps of a run."""
        return max(sum(self.visible[0 if eager else 1]), 1)
