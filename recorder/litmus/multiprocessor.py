"""Each thread on a CPU of its own: x86-TSO, and sequential consistency as the part of it where stores drain at once."""

from __future__ import annotations

from machine import _core
from recorder.litmus.assembler import Assembled
from recorder.litmus.engine import Engine, Moment


class Multiprocessor(Engine):
    """x86-TSO: stores go into the CPU's buffer, and each drain is a choice of its own."""

    run_flags = _core.HOLD

    def __init__(self, assembled: Assembled) -> None:
        super().__init__(assembled, len(assembled.threads))
        for cpu in range(len(assembled.threads)):
            for name, value in self.stage.context(cpu).items():
                if value or name not in self.stage.register_names:
                    self.machine.set_register(cpu, name, value)
        numbers = [self.threads.number(self.state(thread)) for thread in range(len(assembled.threads))]
        self._first = Moment((*numbers, self.memories.number(self.stage.memory())), self.machine.snapshot())

    def first(self) -> Moment:
        return self._first

    def rebase(self, moment: Moment) -> Moment:
        self.go_to(moment, 0)
        return Moment(moment.key, self.machine.snapshot())

    def go_to(self, moment: Moment, thread: int) -> None:
        assert moment.base is not None
        self.machine.restore(moment.base)
        reason, _, _ = self.machine.execute(moment.plan, exact=True)
        assert reason == "plan", reason

    def cpu_of(self, thread: int) -> int:
        return thread


class SequentiallyConsistent(Multiprocessor):
    """A thread whose store has not reached memory does not go on: loads and stores of all threads in one order.

    An instruction that loads and stores is still two accesses, with those of other threads in between, unless locked.
    """

    split = True
