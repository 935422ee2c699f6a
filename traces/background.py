"""Work that other threads do for one, finished in the order in which it was given."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals
from threading import Condition, Lock, Thread
from typing import Final

Job = Callable[[], None]
Prepare = Callable[[], Job]
"""The part of a job that may be done at the same time as others'; what it returns is done in order."""

THREADS: Final = 2
"""Coding events takes longer than making them, less than twice as long."""
_WAITING_MAX: Final = 2


class Background:
    """Does jobs in threads of its own: preparing them as threads are free, finishing them one after the other.

    Only few wait at a time: who gives another then waits, too, so that memory does not fill when the threads are
    slower. Once a job has raised, no other is finished, and every later call but `stop` raises the same.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._jobs: Queue[Prepare | None] = Queue(_WAITING_MAX)
        self._error: BaseException | None = None
        self._taking = Lock()
        self._taken = 0
        self._turn = 0
        self._turns = Condition()
        # Daemons: a process that is told to end does not wait for them.
        self._threads = [Thread(target=self._work, name="tape writer", daemon=True) for _ in range(threads)]
        # Signals are for the thread that handles them at once, which is the main one: new threads inherit the mask.
        before = pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            for thread in self._threads:
                thread.start()
        finally:
            pthread_sigmask(SIG_SETMASK, before)

    def give(self, prepare: Prepare) -> None:
        """Have a job done after all that were given before. Raises what one of those raised."""
        self._check()
        # Who would otherwise wait for ever: a fork has no threads but the one that forked.
        assert self._threads[0].is_alive(), (
            "the threads have ended, or are of the process that this one was forked from"
        )
        self._jobs.put(prepare)

    def wait(self) -> None:
        """Until every job given is done. Raises what one of them raised."""
        assert self._threads[0].is_alive(), (
            "the threads have ended, or are of the process that this one was forked from"
        )
        self._jobs.join()
        self._check()

    def stop(self) -> None:
        """Do what was given, then end the threads. Raises nothing; nothing can be given afterwards."""
        alive = [thread for thread in self._threads if thread.is_alive()]
        for _ in alive:
            self._jobs.put(None)
        for thread in alive:
            thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            # Jobs are numbered where they are taken: who gives them may be interrupted anywhere.
            with self._taking:
                prepare = self._jobs.get()
                if prepare is None:
                    return
                number = self._taken
                self._taken += 1
            job = self._prepared(prepare)
            # What a job holds, buffers of the machine among it, is free once it is done.
            del prepare
            with self._turns:
                self._turns.wait_for(lambda number=number: self._turn == number)  # type: ignore[misc]
            if job is not None and self._error is None:
                try:
                    job()
                except BaseException as error:  # Whatever it is, the thread that gives the jobs is told.
                    self._error = error
            del job
            with self._turns:
                self._turn += 1
                self._turns.notify_all()
            self._jobs.task_done()

    def _prepared(self, prepare: Prepare) -> Job | None:
        """What is left to be done in order; if preparing fails, that is to raise the error then."""
        if self._error is not None:
            return None
        try:
            return prepare()
        except BaseException as caught:
            error = caught

        def fail() -> None:
            raise error

        return fail
