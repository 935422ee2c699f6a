"""A machine that executes in one thread is left alone by all others."""

from __future__ import annotations

from threading import Thread

import pytest

from machine import _core
from machine.bare import BareMachine
from recorder.schedule import auto


def test_what_other_threads_may_not_do_meanwhile() -> None:
    core = BareMachine(32).machine
    core.tap = False
    core.write(0x1000, b"\xeb\xfe")  # jumps to itself
    core.set_register(0, "rip", 0x1000)
    core.watch(b"\xff" * (core.ram_bytes // 32))
    explorer = _core.Explorer(core)
    first = core.step
    thread = Thread(target=lambda: core.execute(auto().tobytes(), step_max=first + 1_000_000_000))
    thread.start()

    def ask_until_refused() -> None:
        while thread.is_alive():  # it may not have begun
            core.memory_hash()

    with pytest.raises(RuntimeError, match="another thread"):
        ask_until_refused()
    assert thread.is_alive()
    for call in (explorer.next, explorer.repeat, lambda: explorer.descend(0), lambda: core.watch(None)):
        with pytest.raises(RuntimeError, match="another thread"):
            call()
    with pytest.raises(RuntimeError, match="another thread"):
        _core.Explorer(core)
    thread.join()
    assert core.step == first + 1_000_000_000
