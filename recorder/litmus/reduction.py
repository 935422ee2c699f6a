"""A litmus test by dynamic partial order reduction: one schedule, or a few, of each class of equivalent ones.

`explore` goes to every state once; this goes through schedules, as a hunt does, but of those that differ only in the
order of independent steps it makes (almost) only one. The search is the core's (machine/core/explore.h); every access
to the test's variables is a visible step, and so is every drain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from machine import _core
from recorder.litmus.assembler import Assembled
from recorder.litmus.engine import Engine
from recorder.litmus.explore import FinalState
from recorder.litmus.layout import BASE
from recorder.litmus.multiprocessor import Multiprocessor
from recorder.litmus.stage import record
from recorder.litmus.threads import Step, Store, ThreadState
from recorder.sharing import WORD_BYTES, bitmap

RUNS_MAX: Final = 1_000_000
"""Default limit on the schedules of one test."""

_STEPS_MAX: Final = 100_000
_FRAMES_MAX: Final = 4096
_HLT: Final = b"\xf4"
_NOBODY: Final = _core.AGENT_TICK + 7


@dataclass(frozen=True, slots=True)
class Reduction:
    """All that one test can do under x86-TSO, as `Exploration` has it.

    finals: every final state, by the number of the first schedule that ends in it.
    cut: why states may be missing, "" if none can be.
    schedules: how many were made; blocked: how many more were begun and given up, since they would have been of a class
        that was made.
    start: the machine at the start of the test.
    """

    engine: Engine
    finals: dict[int, FinalState]
    cut: str
    schedules: int
    blocked: int
    start: _core.Snapshot = field(repr=False)
    _paths: dict[int, bytes] = field(repr=False)

    @property
    def effort(self) -> str:
        """What was done, in words."""
        given_up = f" and {self.blocked:,} given up" if self.blocked else ""
        return f"{self.schedules:,} schedules made{given_up}, one of each class or more"

    def witness(self, node: int) -> tuple[list[Step], bytes]:
        """One schedule that ends in a final state: its steps, and its plan for `Machine.execute` (one record each).

        The plan is for the machine as it stands at the start of the test.
        """
        machine = self.engine.machine
        machine.restore(self.start)
        machine.choices_enabled = True
        machine.choices_take()
        path = b"".join(record(_core.STEP, 0, 1, agent) for agent in (*self._paths[node], _NOBODY))
        machine.execute(path)
        choices = np.frombuffer(machine.choices_take(), _CHOICE)
        machine.choices_enabled = False
        machine.restore(self.start)
        steps: list[Step] = []
        plan = b""
        for op, cpu, flags, _, count in choices.tolist():
            for _ in range(count):
                step = self._step(op, cpu)
                one = record(op, cpu, 1, flags)
                reason, _, _ = machine.execute(one, exact=True)
                assert reason in ("plan", "idle"), reason
                if step is not None:
                    partial = bool(machine.partial_loads(cpu))
                    steps.append(Step(step.thread, step.instruction, step.drained, partial))
                    plan += one
        return steps, plan

    def _step(self, op: int, thread: int) -> Step | None:
        """What the next step of a thread is; None: it is through."""
        machine = self.engine.machine
        if op == _core.DRAIN:
            addr, _, size, value, _ = machine.store_buffer_entries(thread)[0]
            return Step(thread, None, Store(addr, size, value))
        code = self.engine.assembled.threads[thread]
        rip = machine.registers(thread)["rip"]
        return None if rip == code.end else Step(thread, code.instructions[rip])


_CHOICE: Final = np.dtype([("op", "u1"), ("cpu", "u1"), ("flags", "<u2"), ("zero", "<u4"), ("arg", "<u8")])


def reduce(assembled: Assembled, runs_max: int = RUNS_MAX) -> Reduction:
    """Go through the schedules of a test under x86-TSO.

    Args:
        runs_max: schedules after which to give up; the result is then cut.
    Raises LitmusError if an instruction faults.
    """
    engine = Multiprocessor(assembled)
    machine, threads = engine.machine, range(len(assembled.threads))
    for thread in assembled.threads:
        machine.write(thread.end, _HLT)
    words = np.arange(BASE // WORD_BYTES, engine.stage.data_end // WORD_BYTES).astype(np.uint64)
    machine.watch(bitmap(words, machine.ram_bytes))
    start = machine.snapshot()
    explorer = _core.Explorer(machine, frames_max=_FRAMES_MAX, step_max=machine.step + _STEPS_MAX)
    numbers: dict[FinalState, int] = {}
    paths: dict[int, bytes] = {}
    cut = ""
    while (stop := explorer.next()) is not None:
        if stop == "idle":
            final = FinalState(tuple(_state(engine, thread) for thread in threads), engine.stage.memory())
            if final not in numbers:
                numbers[final] = explorer.runs
                paths[explorer.runs] = explorer.path()
        elif stop == "shutdown":
            _blame(engine, explorer, start)
        elif stop == "steps" and not explorer.cut:
            cut = f"a schedule of more than {_STEPS_MAX:,} steps"
        if explorer.runs >= runs_max:
            cut = cut or f"more than {runs_max:,} schedules"
            break
    finals = {number: final for final, number in numbers.items()}
    return Reduction(engine, finals, explorer.cut or cut, explorer.runs, explorer.blocked, start, paths)


def _state(engine: Engine, thread: int) -> ThreadState:
    """A thread that is through: it has executed the HLT behind its last instruction."""
    registers = engine.machine.registers(thread)
    general = tuple([registers[name] for name in engine.stage.register_names])
    return ThreadState(engine.assembled.threads[thread].end, registers["rflags"], general)


def _blame(engine: Engine, explorer: _core.Explorer, start: _core.Snapshot) -> None:
    machine = engine.machine
    machine.choices_enabled = True
    machine.choices_take()
    explorer.repeat()
    choices = machine.choices_take()
    thread = int(np.frombuffer(choices, _CHOICE)["cpu"][-1])
    machine.restore(start)
    engine.stage.blame(engine.cpu_of(thread), thread, "shutdown", choices)
