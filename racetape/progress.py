"""Progress for the command line, in the form the engine reports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from debugger.progress import progress


@contextmanager
def ticking(label: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """Yields a callback (position, total) to hand to the engine; shows a line on a terminal after a second."""
    position = 0

    def tick(now: int, _total: int) -> None:
        nonlocal position
        position = now

    with progress(label, lambda: position, total):
        yield tick
