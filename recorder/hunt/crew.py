"""Who carries out the blocks of a hunt: this process, a pool of processes, or a cluster (recorder/hunt/cluster.py)."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final, Protocol

from machine.errors import RacetapeError
from recorder.hunt.search import Search, Tally

if TYPE_CHECKING:
    from recorder.hunt.verdict import Hunt

BLOCKS_AHEAD: Final = 3
"""Blocks given to each process at a time."""

Result = Callable[[], Tally]
"""What a block came to; waits for it. Raises RacetapeError if nobody can carry it out, TimeIsUp."""


class TimeIsUp(Exception):
    """The hunt's deadline passed while a block was waited for."""


class Crew(Protocol):
    """Carries out blocks of schedules, several at a time."""

    @property
    def blocks_max(self) -> int:
        """How many blocks to have given out at a time."""

    def submit(self, first: int, count: int) -> Result:
        """Give out the block of schedules `first` to `first + count - 1`."""

    def close(self) -> None:
        """Drop what is not done."""


def in_order(crew: Crew, ranges: Iterator[tuple[int, int]]) -> Generator[Tally, None, None]:
    """The blocks (first, count), in their order whoever is done first."""
    waiting: deque[Result] = deque()
    for first, count in ranges:
        waiting.append(crew.submit(first, count))
        while len(waiting) >= crew.blocks_max:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


class Alone:
    """A crew of this process: runs a block when its result is asked for."""

    blocks_max = 1

    def __init__(self, what: Hunt, search: Search, deadline: float | None) -> None:
        self._search, self._every, self._deadline = search, what.every, deadline

    def submit(self, first: int, count: int) -> Result:
        """See Crew."""
        return lambda: self._search.block(first, count, every=self._every, deadline=self._deadline)

    def close(self) -> None:
        """See Crew."""


class Pool:
    """A crew of `--jobs` processes on this host."""

    def __init__(self, what: Hunt, deadline: float | None) -> None:
        self._every, self._deadline = what.every, deadline
        self.blocks_max = BLOCKS_AHEAD * what.jobs
        # Spawned: a fork would copy threads' locks, and start from a machine somebody may be using.
        self._pool = ProcessPoolExecutor(what.jobs, get_context("spawn"), _start, (what,))

    def submit(self, first: int, count: int) -> Result:
        """See Crew."""
        with _alive():
            future = self._pool.submit(_block, first, count, self._every, self._deadline)

        def result() -> Tally:
            with _alive():
                return future.result()

        return result

    def close(self) -> None:
        """See Crew."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise RacetapeError("a process of the hunt died; with --jobs 1 there is only this one") from None


# In the processes of a pool: each has a search of its own, made when it starts.
_own: list[Search] = []


def _start(what: Hunt) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that gave the work
    _own.append(what.search(what.prepare()))


def _block(first: int, count: int, every: bool, deadline: float | None) -> Tally:
    return _own[0].block(first, count, every=every, deadline=deadline)
