"""Jobs done in a second thread: in order, few waiting, errors told to who gives the jobs."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

from traces.background import Background


class Thing:
    """Something a job may hold."""


def test_jobs_are_done_in_order_in_another_thread() -> None:
    background = Background()
    done: list[tuple[int, int]] = []
    for number in range(100):
        background.give(lambda number=number: done.append((number, threading.get_ident())))  # type: ignore[misc]
    background.wait()
    assert [number for number, _ in done] == list(range(100))
    assert {thread for _, thread in done} != {threading.get_ident()}
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
            background.give(go.wait)  # type: ignore[arg-type]  # what it returns is nobody's business
            given += 1

    giver = threading.Thread(target=give)
    giver.start()
    time.sleep(0.1)
    assert 1 <= given < 6
    go.set()
    giver.join()
    background.stop()
    assert given == 20


def test_errors_come_back_and_end_the_work() -> None:
    background = Background()
    done: list[int] = []

    def fail() -> None:
        raise OSError("no")

    background.give(lambda: done.append(1))
    background.give(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            background.wait()
        with pytest.raises(OSError, match="no"):
            background.give(lambda: done.append(2))
    background.stop()
    assert done == [1]


def test_what_a_job_held_is_free_once_it_is_done() -> None:
    background = Background()
    thing = Thing()
    seen = weakref.ref(thing)
    background.give(lambda thing=thing: None)  # type: ignore[misc]
    del thing
    background.wait()
    assert seen() is None
    background.stop()


def test_stop_does_what_was_given() -> None:
    background = Background()
    done: list[int] = []
    background.give(lambda: time.sleep(0.05))
    background.give(lambda: done.append(1))
    background.stop()
    assert done == [1]
