"""Work that one thread does for another, in the order in which it was given."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals
from threading import Thread
from typing import Final

Job = Callable[[], None]

_WAITING_MAX: Final = 2


class Background:
    """Does jobs one after the other in a thread of its own.

    Only few wait at a time: who gives another then waits, too, so that memory does not fill when the thread is slower.
    Once a job has raised, no other is done, and every later call but `stop` raises the same.
    """

    def __init__(self) -> None:
        self._jobs: Queue[Job | None] = Queue(_WAITING_MAX)
        self._error: BaseException | None = None
        # A daemon: a process that is told to end does not wait for it.
        self._thread = Thread(target=self._work, name="tape writer", daemon=True)
        # Signals are for the thread that handles them at once, which is the main one: the new thread inherits the mask.
        before = pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            self._thread.start()
        finally:
            pthread_sigmask(SIG_SETMASK, before)

    def give(self, job: Job) -> None:
        """Have `job` done after all that were given before. Raises what one of those raised."""
        self._check()
        self._jobs.put(job)

    def wait(self) -> None:
        """Until every job given is done. Raises what one of them raised."""
        self._jobs.join()
        self._check()

    def stop(self) -> None:
        """Do what was given, then end the thread. Raises nothing; nothing can be given afterwards."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                try:
                    job()
                except BaseException as error:  # Whatever it is, the thread that gives the jobs is told.
                    self._error = error
            del job  # What it holds, buffers of the machine among it, is free from now on.
            self._jobs.task_done()
