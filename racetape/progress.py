"""Progress for the command line, in the form the engine reports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from debugger.progress import progress


@contextmanager
def ticking(label: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """Yields a callback (position, total) to hand to the engine; shows a line on a terminal after a second.

    Without `total` positions are no steps, and the callback is told how many there are.
    """
    position = position_max = 0

    def tick(now: int, most: int) -> None:
        nonlocal position, position_max
        position, position_max = now, most

    with progress(label, lambda: position, lambda: position_max if total is None else total, mark="@" * bool(total)):
        yield tick
