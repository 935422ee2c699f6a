"""What a strategy may want to know about a scenario before its first schedule: how long runs are, what is shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Manner(NamedTuple):
    """How a run by visible steps is made.

    tasks: words are shared that only tasks of one CPU share, not CPUs.
    eager: stores drain at once.
    ticks: timer ticks at most.
    """

    tasks: bool = False
    eager: bool = False
    ticks: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """See the module.

    Attributes:
        step_count: steps that the default schedule takes from `ready` to its end.
        cpu_words: number of words of 4 bytes that CPUs share.
        task_words: that CPUs or tasks share.
        runs: how many runs that was learned from; 0 if nobody asked.
        visible: by (tasks, eager): visible steps of each agent in one random run.
    """

    step_count: int
    cpu_words: int = 0
    task_words: int = 0
    runs: int = 0
    visible: Mapping[tuple[bool, bool], tuple[int, ...]] = field(default_factory=dict)

    def visible_steps(self, manner: Manner) -> int:
        """Visible steps of a run made this way."""
        return max(sum(self.visible.get((manner.tasks, manner.eager), ())), 1)
