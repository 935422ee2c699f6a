"""All threads on one CPU: they preempt each other between any two instructions, never inside one.

The context of the thread that goes on is put into the CPU's registers, as a context switch would. The CPU sees its own
stores, so its store buffer changes nothing and stays empty; an instruction that loads and stores is one step.
"""

from __future__ import annotations

from recorder.litmus.assembler import Assembled
from recorder.litmus.engine import Engine, Moment
from recorder.litmus.layout import BASE
from recorder.litmus.threads import ThreadState


class Uniprocessor(Engine):
    """Registers and memory are written from the key of a state."""

    stores_local = False
    whole = True

    def __init__(self, assembled: Assembled) -> None:
        super().__init__(assembled, 1)
        numbers = []
        for thread in range(len(assembled.threads)):
            context = self.stage.context(thread)
            registers = tuple(context[name] for name in self.stage.register_names)
            numbers.append(self.threads.number(ThreadState(context["rip"], context["rflags"], registers)))
        self._first = Moment((*numbers, self.memories.number(self.stage.memory())), None)

    def first(self) -> Moment:
        return self._first

    def rebase(self, moment: Moment) -> Moment:
        return Moment(moment.key, None)

    def go_to(self, moment: Moment, thread: int) -> None:
        state = self.threads[moment.key[thread]]
        self.machine.write(BASE, self.memories[moment.key[-1]])
        for name, value in zip(self.stage.register_names, state.registers, strict=True):
            self.machine.set_register(0, name, value)
        self.machine.set_register(0, "rip", state.rip)
        self.machine.set_register(0, "rflags", state.rflags)

    def cpu_of(self, thread: int) -> int:
        return 0
