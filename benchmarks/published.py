"""Programs whose number of executions others have published, for the DPOR of `Explorer`: what stateless model checkers
that are optimal visit on them, from the expectations that Nidhugg and GenMC keep beside their own tests.

* Nidhugg, src/TSO_test.cpp: traces under TSO, one by one. (The threads here are those of the tests' LLVM code, the main
  one among them; `store atomic seq_cst` is `xchg`.)
* Nidhugg, tests/smoke/reference.results.txt (0.2, `nidhuggc --sc`).
* GenMC, tests/correct/synthetic/*/expected.sc.mo.in (SC, coherence order tracked).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from machine import Machine, _core
from machine.bare import BareMachine
from recorder.sharing import WORD_BYTES, bitmap

CODE, SLOT_BYTES, DATA, DATA_BYTES = 0x10000, 0x1000, 0x8000, 0x400
X, Y, Z, C = (f"{DATA + 0x40 * index:#x}" for index in range(4))
LOAD_X, LOAD_Y = f"mov {X}, %eax", f"mov {Y}, %ebx"
SET_X, SET_Y = f"movl $1, {X}", f"movl $1, {Y}"


@dataclass(frozen=True, slots=True)
class Program:
    """Threads in assembly (each ends with HLT), and how many executions of them were published.

    Attributes:
        tso: under x86-TSO; else sequentially consistent.
        initial: values of words of `DATA`.
    """

    name: str
    source: str
    tso: bool
    executions: int
    threads: tuple[str, ...]
    initial: tuple[tuple[int, int], ...] = ()

    def machine(self) -> Machine:
        """Before the first instructions."""
        m = BareMachine(32, cpus=len(self.threads))
        m.machine.tap = False
        for cpu, text in enumerate(self.threads):
            m.load(CODE + cpu * SLOT_BYTES, f"{text}; hlt")
            m.set(cpu=cpu, rip=CODE + cpu * SLOT_BYTES)
        for address, value in self.initial:
            m.machine.write(address, value.to_bytes(4, "little"))
        words = np.arange(DATA // WORD_BYTES, (DATA + DATA_BYTES) // WORD_BYTES).astype(np.uint64)
        m.machine.watch(bitmap(words, m.machine.ram_bytes))
        return m.machine

    def explorer(self) -> _core.Explorer:
        """Of all its schedules."""
        return _core.Explorer(self.machine(), eager=not self.tso)


def run_all(program: Program) -> _core.Explorer:
    """Explores all of it. Raises ValueError if a run does not end, or runs may be missing."""
    explorer = program.explorer()
    while (stop := explorer.next()) is not None:
        if stop != "idle":
            raise ValueError(f"{program.name}: a run ended with {stop}")
    if explorer.cut:
        raise ValueError(f"{program.name}: {explorer.cut}")
    return explorer


def _fib(rounds: int) -> tuple[str, ...]:
    def thread(to: str) -> str:
        return "; ".join([f"mov {X}, %eax; mov {Y}, %ebx; add %eax, %ebx; mov %ebx, {to}"] * rounds)

    return thread(X), thread(Y), f"mov {X}, %eax; mov {Y}, %ebx"


def _lastzero(count: int) -> tuple[str, ...]:
    """One looks for the last zero in an array from its end, the others set an element each from the one before."""
    top = DATA + 4 * count
    reader = f"mov ${top:#x}, %esi; 1: cmpl $0, (%esi); je 2f; sub $4, %esi; jmp 1b; 2:"
    writers = [f"mov {DATA + 4 * (j - 1):#x}, %eax; inc %eax; mov %eax, {DATA + 4 * j:#x}" for j in range(1, count + 1)]
    return reader, *writers


def _rotate(count: int) -> tuple[str, ...]:
    """Thread i exchanges i for i + 1, if that is what it finds."""
    return tuple(f"mov ${i}, %eax; mov ${i + 1}, %ecx; lock cmpxchg %ecx, {X}" for i in range(count))


def _checked_dekker(own: str, other: str) -> str:
    return f"movl $1, {own}; cmpl $0, {other}; jne 1f; mov {C}, %ecx; 1: movl $1, {C}"


def _critical(enter: str, other: str) -> str:
    return f"{enter}; cmpl $0, {other}; jne 1f; cmpl $1, {C}; je 1f; movl $1, {C}; movl $0, {C}; 1:"


def _exchange(place: str) -> str:
    return f"mov $1, %edx; xchg %edx, {place}"


def _compare_exchange(place: str) -> str:
    return f"xor %eax, %eax; mov $1, %edx; lock cmpxchg %edx, {place}"


_ONES: Final = ((int(X, 16), 1), (int(Y, 16), 1))
_F0, _F1 = f"{DATA + 0x100:#x}", f"{DATA + 0x140:#x}"
_NIDHUGG_TSO: Final = "Nidhugg, TSO_test"
_TSO: Final[tuple[tuple[str, int, tuple[str, ...]], ...]] = (
    ("Small_dekker", 4, (f"{SET_X}; {LOAD_Y}", f"{SET_Y}; {LOAD_X}")),
    (
        "Small_peterson",
        12,
        (
            f"{SET_X}; movl $1, {Z}; mov {Z}, %ecx; {LOAD_Y}",
            f"{SET_Y}; movl $0, {Z}; mov {Z}, %ecx; {LOAD_X}",
        ),
    ),
    ("ROWE_1", 3, (f"{SET_X}; {LOAD_X}", f"movl $2, {X}")),
    ("ROWE_2", 3, (f"movl $2, {X}", f"{SET_X}; {LOAD_X}")),
    ("read_read_write_1", 4, (SET_X, LOAD_X, LOAD_X)),
    ("read_read_write_2", 4, (LOAD_X, LOAD_X, SET_X)),
    ("before_update", 3, (f"{LOAD_Y}; {SET_X}", f"{LOAD_X}; {SET_Y}")),
    ("fib_simple", 11, _fib(1)),
    (
        "blacken_change_clock",
        18,
        (LOAD_X, f"{LOAD_Y}; movl $2, {X}; {LOAD_Y}; movl $3, {X}", f"{LOAD_X}; movl $2, {Y}"),
    ),
    ("small_dekker_checker", 12, (_checked_dekker(X, Y), _checked_dekker(Y, X))),
    (
        "Disappearing_conflict",
        7,
        ("; ".join([f"cmpl $0, {X}; jne 1f"] * 5) + f"; {LOAD_Y}; 1:", f"{SET_Y}; {SET_X}"),
    ),
    ("rruu", 3, (f"{LOAD_X}; {LOAD_Y}", f"{SET_Y}; {SET_X}")),
    ("own_black_read", 4, (f"{LOAD_X}; {SET_X}", f"{LOAD_X}; {SET_X}")),
    ("own_black_read_2", 3, (f"{LOAD_X}; {SET_X}", SET_X)),
    ("own_black_read_3", 3, (SET_X, f"{LOAD_X}; {SET_X}")),
    ("Atomic_store_1", 3, (_critical(_exchange(X), Y), _critical(_exchange(Y), X))),
    (
        "Atomic_store_2",
        3,
        (_critical(f"{SET_X}; {_exchange(_F0)}", Y), _critical(f"{SET_Y}; {_exchange(_F1)}", X)),
    ),
    ("Atomic_store_3", 4, (f"{SET_X}; {_exchange(Z)}; {LOAD_Y}", f"{SET_Y}; {_exchange(Z)}; {LOAD_X}")),
    ("CMPXCHG_1", 3, (_critical(_compare_exchange(X), Y), _critical(_compare_exchange(Y), X))),
    (
        "CMPXCHG_2",
        3,
        (_critical(f"{SET_X}; {_compare_exchange(_F0)}", Y), _critical(f"{SET_Y}; {_compare_exchange(_F1)}", X)),
    ),
)
_NIDHUGG_SC, _GENMC_SC = "Nidhugg, smoke tests", "GenMC, synthetic"


def programs() -> Iterator[Program]:
    """All of them, small ones first within each source."""
    for name, executions, threads in _TSO:
        yield Program(name, _NIDHUGG_TSO, True, executions, threads, _ONES if "fib" in name or "clock" in name else ())
    for rounds, executions in ((1, 11), (2, 140)):
        yield Program(f"fib_bench({rounds})", _NIDHUGG_SC, False, executions, _fib(rounds), _ONES)
    for count, executions in enumerate((2, 5, 12, 28), 1):
        yield Program(f"lastzero({count})", _NIDHUGG_SC, False, executions, _lastzero(count))
    for count, executions in enumerate((2, 4, 8, 16), 1):
        yield Program(f"readers({count})", _NIDHUGG_SC, False, executions, (SET_X, *[LOAD_X] * count))
    yield Program("fib_bench(5)", _GENMC_SC, False, 218_243, _fib(5), _ONES)
    yield Program("lastzero(5)", _GENMC_SC, False, 64, _lastzero(5))
    for count, executions in enumerate((2, 6, 24, 120, 720, 5040), 2):
        yield Program(f"ainc({count})", _GENMC_SC, False, executions, (f"lock incl {X}",) * count)
    for count, executions in enumerate((8, 216, 13_824), 2):
        yield Program(
            f"cinc({count})", _GENMC_SC, False, executions, (f"lock incl {X}; lock incl {Y}; lock incl {Z}",) * count
        )
    for count, executions in enumerate((2, 5, 14, 43, 144, 523, 2048), 2):
        yield Program(f"casrot({count})", _GENMC_SC, False, executions, _rotate(count))
    for count, executions in enumerate((4, 36, 576), 2):
        threads = tuple(f"{LOAD_X}; movl ${cpu}, {X}" for cpu in range(count))
        yield Program(f"rw({count})", _GENMC_SC, False, executions, threads)
    writers = tuple(f"movl ${cpu}, {X}" for cpu in range(5))
    yield Program("N-writers(5)", _GENMC_SC, False, 720, (*writers, LOAD_X))
