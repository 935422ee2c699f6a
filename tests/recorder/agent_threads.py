"""Small threads on a bare machine, for tests of agents and strategies."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np

from machine import Machine, _core
from machine.bare import BareMachine
from recorder.profile import Manner, Profile
from recorder.schedule import Profiled, Strategy, pick, plan
from recorder.session import Session
from recorder.sharing import WORD_BYTES, bitmap
from traces.schema import HOLD, Op, RecordArray

T = TypeVar("T")

CODE, DATA = 0x1000, 0x8000
DATA_BYTES: Final = 0x400
STACK: Final = DATA + 0x800

STORE_BUFFERING: Final = (
    "movl $1, 0x8000; mov 0x8040, %eax; hlt",
    "movl $1, 0x8040; mov 0x8000, %eax; hlt",
)


def machine(*threads: str, watch: bool = True) -> BareMachine:
    """A CPU for each thread; the words from DATA on are shared, what is above is not."""
    m = BareMachine(32, cpus=len(threads))
    m.machine.tap = False
    for cpu, text in enumerate(threads):
        m.load(CODE + cpu * 0x1000, text)
        m.set(cpu=cpu, rip=CODE + cpu * 0x1000, rsp=STACK + cpu * 0x100)
    if watch:
        words = np.arange(DATA // WORD_BYTES, (DATA + DATA_BYTES) // WORD_BYTES).astype(np.uint64)
        for tasks in (False, True):
            m.machine.watch(bitmap(words, m.machine.ram_bytes), tasks=tasks)
    return m


def execute(m: BareMachine | Machine, records: RecordArray, step_max: int = 1 << 20) -> str:
    core = m.machine if isinstance(m, BareMachine) else m
    return core.execute(records.tobytes(), step_max=step_max)[0]


def word(m: BareMachine | Machine, address: int = DATA) -> int:
    """What memory holds, whatever is buffered."""
    core = m.machine if isinstance(m, BareMachine) else m
    return int(struct.unpack("<I", core.read(address, 4))[0])


def profile(m: Machine) -> Profile:
    """Of the machine as it stands; leaves it there."""
    start = m.snapshot()
    visible = {}
    for tasks in (False, True):
        for eager in (False, True):
            m.execute(pick(_core.PICK_WALK, 0, Manner(tasks, eager)).tobytes(), step_max=1 << 20)
            visible[tasks, eager] = tuple(m.visible_counts())
            m.restore(start)
    return Profile(m.step, 1, 1, 1, visible)


def follow(m: Machine, strategy: Strategy, seed: int) -> str:
    """One run of a strategy from where the machine stands."""
    session = Session(m, None, step_max=m.step + (1 << 20), tap=False, keep=False)
    strategy.new_run(m, seed)
    return session.run(strategy)


def introduced(m: Machine, strategy: Strategy) -> Strategy:
    if isinstance(strategy, Profiled):
        strategy.expect(profile(m))
    return strategy


class TooMany(Exception):
    """The program has more states than a test has time for."""


def single_steps(
    m: Machine, outcome: Callable[[Machine], T], *, eager: bool = False, states_max: int = 1 << 20
) -> set[T]:
    """What can come of all schedules of single steps, drained stores among them unless stores drain at once: every
    state is gone on from once. Raises TooMany."""
    found, seen = set(), set()
    todo = [m.snapshot()]
    choices = [plan((Op.RUN, cpu, 1, 0 if eager else HOLD)) for cpu in range(m.cpus)]
    choices += [] if eager else [plan((Op.DRAIN, cpu, 1)) for cpu in range(m.cpus)]
    while todo:
        state = todo.pop()
        m.restore(state)
        before, ends = m.step, True
        for choice in choices:
            m.restore(state)
            execute(m, choice)
            if m.step == before:
                continue
            ends = False
            if (now := m.state_hash()) not in seen:
                seen.add(now)
                todo.append(m.snapshot())
                if len(seen) > states_max:
                    raise TooMany
        if ends:
            m.restore(state)
            found.add(outcome(m))
    return found
