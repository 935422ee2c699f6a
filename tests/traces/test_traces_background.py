"""Jobs done in other threads: in order, few waiting, errors told to who gives the jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest

from traces import background as background_module
from traces.background import Background, Job, Prepare


def job(do: Callable[[], object]) -> Prepare:
    """A job with nothing to prepare."""

    def once() -> None:
        do()

    return lambda: once


class Thing:
    """Something a job may hold."""


def test_jobs_are_done_in_order_in_another_thread() -> None:
    background = Background()
    done: list[tuple[int, int]] = []
    for number in range(100):
        background.give(job(lambda number=number: done.append((number, threading.get_ident()))))  # type: ignore[misc]
    background.wait()
    assert [number for number, _ in done] == list(range(100))
    assert threading.get_ident() not in {thread for _, thread in done}
    background.stop()
    background.stop()
    assert "tape writer" not in {thread.name for thread in threading.enumerate()}


def test_who_is_too_fast_waits() -> None:
    background = Background()
    go = threading.Event()
    given = 0

    def give() -> None:
        nonlocal given
        for _ in range(20):
            background.give(job(go.wait))
            given += 1

    giver = threading.Thread(target=give)
    giver.start()
    time.sleep(0.1)
    assert 1 <= given < 8
    go.set()
    giver.join()
    background.stop()
    assert given == 20


def test_errors_come_back_and_end_the_work() -> None:
    background = Background()
    done: list[int] = []

    def fail() -> None:
        raise OSError("no")

    background.give(job(partial(done.append, 1)))
    background.give(job(fail))
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            background.wait()
        with pytest.raises(OSError, match="no"):
            background.give(job(lambda: done.append(2)))
    background.stop()
    assert done == [1]


def test_what_a_job_held_is_free_once_it_is_done() -> None:
    background = Background()
    thing = Thing()
    seen = weakref.ref(thing)
    background.give(job(lambda thing=thing: None))  # type: ignore[misc]
    del thing
    background.wait()
    assert seen() is None
    background.stop()


def test_stop_does_what_was_given() -> None:
    background = Background()
    done: list[int] = []
    background.give(job(lambda: time.sleep(0.05)))
    background.give(job(partial(done.append, 1)))
    background.stop()
    assert done == [1]


def test_jobs_are_prepared_together_and_finished_in_order() -> None:
    background = Background(2)
    both = threading.Barrier(2, timeout=20)
    done: list[int] = []

    def prepare(number: int) -> Job:
        both.wait()  # goes on only if another one is prepared at the same time
        time.sleep(0.01 * (1 - number % 2))
        return lambda: done.append(number)

    for number in range(10):
        background.give(lambda number=number: prepare(number))  # type: ignore[misc]
    background.wait()
    background.stop()
    assert done == list(range(10))


def test_an_error_while_preparing_waits_for_its_turn() -> None:
    background = Background(2)
    go = threading.Event()
    done: list[int] = []

    def slow() -> Job:
        go.wait()
        return lambda: done.append(0)

    def fail() -> Job:
        go.set()
        raise OSError("no")

    background.give(slow)
    background.give(fail)
    with pytest.raises(OSError, match="no"):
        background.wait()
    background.stop()
    assert done == [0]


def test_an_interruption_anywhere_in_giving_blocks_nobody() -> None:
    """Ctrl-C may come between any two steps of the thread that gives."""
    for count in range(1, 400):
        background = Background()
        done: list[int] = []
        left = count

        def trace(frame: FrameType, what: str, _: object) -> Callable[..., object] | None:
            nonlocal left
            if frame.f_code.co_filename != background_module.__file__:
                return None
            frame.f_trace_opcodes = True
            left -= what == "opcode"
            if left == 0:
                left = -1
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                background.give(job(partial(done.append, 0)))
        finally:
            sys.settrace(before)
        background.give(job(partial(done.append, 1)))
        stopper = threading.Thread(target=background.stop, daemon=True)
        stopper.start()
        stopper.join(10)
        assert not stopper.is_alive(), f"interrupted at step {count}"
        assert done in ([0, 1], [1])
        if left > 0:
            return
    raise AssertionError("giving has more steps than were tried")


def test_a_fork_is_told_that_it_has_no_threads() -> None:
    """It would wait for ever for those of its parent."""
    background = Background()
    child = os.fork()
    if child == 0:
        refused = 0
        for use in (partial(background.give, job(lambda: None)), background.wait):
            try:
                use()
            except AssertionError:
                refused += 1
        background.stop()
        os._exit(refused)
    for _ in range(1000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 2
    background.give(job(lambda: None))
    background.wait()
    background.stop()
