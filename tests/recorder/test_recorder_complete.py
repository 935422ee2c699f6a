"""A search that says it is complete has missed no outcome, whatever the CPUs do by themselves: faults and their frames,
page walks, stores that drain within a step, the end of the run."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from agent_threads import TooMany, single_steps

from machine import Machine, _core
from machine.bare import BareMachine
from recorder.sharing import WORD_BYTES, bitmap

RAM_BYTES = 1 << 22
SHARED, SHARED_BYTES = 0x8000, 0x400
HANDLER, HANDLER_BACK = 0x30000, 0x30100
PAGES, ENTRIES = 0x100000, 0x180000
READ_ONLY, ABSENT = PAGES + 0x4000, 0x190000
STATES_MAX, RUNS_MAX = 3000, 5000
Outcome = tuple[object, ...]


def entry(number: int, bits: int) -> int:
    """Linear address of the page-table entry of page `number` from PAGES on."""
    return ENTRIES + (PAGES >> 12 & (0x3FF if bits == 32 else 0x1FF)) * (4 if bits == 32 else 8) + number * (bits // 8)


def build(bits: int, paging: bool, room: int, threads: list[str], stacks: list[int], handlers: bool) -> BareMachine:
    """A CPU for each thread. Shared are the words from SHARED on, with paging also some pages' words and entries."""
    kind = None if not paging else "2-level" if bits == 32 else "4-level"
    m = BareMachine(bits, paging=kind, cpus=len(threads), ram_bytes=RAM_BYTES, store_buffer=room)  # type: ignore[arg-type]
    m.machine.tap = False
    words = [*range(SHARED // WORD_BYTES, (SHARED + SHARED_BYTES) // WORD_BYTES)]
    if paging:
        for first, size in ((0x8000, 0x4000), (0x10000, 0x14000), (HANDLER, 0x1000), (PAGES, 0x4000)):
            m.map(first, size, phys=first)
        m.map(READ_ONLY, phys=READ_ONLY, rights="r")
        m.map(ENTRIES, phys=m.entry_address(PAGES) & ~0xFFF)
        table = m.machine.translate(0, entry(0, bits))
        assert table == m.entry_address(PAGES)
        words += [at // WORD_BYTES for at in range(table, table + 5 * (bits // 8), WORD_BYTES)]
        words += [(PAGES + 0x1000 * page) // WORD_BYTES for page in range(5)]
        words.append((PAGES + 0xFFC) // WORD_BYTES)
    m.add_tables(0x20000)
    m.load(HANDLER, "mov 0x8040, %ecx; hlt")
    m.load(HANDLER_BACK, "iretq" if bits == 64 else "iret")
    for vector in (0, 6, 13, 14) if handlers else ():
        m.gate(vector, HANDLER)
    for vector in (1, 3, 0x40):
        m.gate(vector, HANDLER_BACK)
    for cpu, (text, stack) in enumerate(zip(threads, stacks, strict=True)):
        m.load(0x10000 + 0x1000 * cpu, f"{text}; hlt")
        m.set(cpu=cpu, rip=0x10000 + 0x1000 * cpu, rsp=stack)
    m.machine.watch(bitmap(np.array(sorted(set(words)), np.uint64), RAM_BYTES))
    return m


def outcome(m: Machine) -> Outcome:
    """Registers and memory; after the end of the machine, which leaves the others somewhere, only what is shared."""
    if m.waiting(0) == "off":
        return (m.read(SHARED, SHARED_BYTES),)
    names = ("rax", "rbx", "rcx", "rdx", "rsp", "rip", "cr2", "dr6")
    rows = [m.registers(cpu) for cpu in range(m.cpus)]
    return (*(row[name] for row in rows for name in names), m.memory_hash())


def runs(m: Machine, **options: bool | int) -> Iterator[str]:
    """How all runs from where the machine stands end, each written down and replayed; then what is cut."""
    start = m.snapshot()
    explorer = _core.Explorer(m, frames_max=400, step_max=m.step + 100_000, **options)  # type: ignore[arg-type]
    while (stop := explorer.next()) is not None:
        if not stop:
            continue
        if explorer.runs > RUNS_MAX:
            raise TooMany
        ended = m.state_hash(), m.step
        m.choices_take()
        explorer.repeat()
        assert (m.state_hash(), m.step) == ended
        log, here = m.choices_take(), m.snapshot()
        m.restore(start)
        m.execute(log, exact=True)
        assert (m.state_hash(), m.step) == ended
        m.restore(here)
        yield stop
    m.restore(start)
    yield explorer.cut


def check(m: Machine, eager: bool) -> bool:
    """Whether both searches say that they are complete; then they have found what all schedules can come to."""
    start = m.snapshot()
    expected = single_steps(m, outcome, eager=eager, states_max=STATES_MAX)
    complete = True
    for options in ({"eager": eager}, {"eager": eager, "bounded": True, "bound": 40}):
        m.restore(start)
        found, stops = set(), []
        for stop in runs(m, **options):
            stops.append(stop)
            if stop in ("idle", "shutdown", "exit"):
                found.add(outcome(m))
        if stops.pop() or "steps" in stops:
            complete = False
            continue
        assert found == expected, options
    return complete


FAULTS = "mov 0x8000, %ebx; mov 0x83fe, %ebx"
CASES: dict[str, tuple[int, bool, int, list[str], list[int], bool]] = {
    # Nobody handles it: others may have gone on before, and the own store may have drained.
    "triple fault": (32, False, 8, ["ud2", "incl 0x8000; movl $1, 0x8040"], [0xB080, 0xB180], False),
    "triple fault with a store": (32, False, 2, [FAULTS, "movl $3, 0x8080; ud2"], [0xB080, 0xB180], False),
    "exit": (32, False, 8, ["out %eax, $0xf4", "incl 0x8000; movl $1, 0x8040"], [0xB080, 0xB180], True),
    # Frames on a stack that the other looks at.
    "shared frame": (32, False, 8, ["int $0x40", "mov 0x8024, %eax; mov 0x8028, %ebx"], [0x8030, 0xB180], True),
    "shared frame of a fault": (64, True, 8, ["ud2", "mov 0x8000, %eax; mov 0x8028, %ebx"], [0x8030, 0xB180], True),
    # A dirty bit of the page on which the frame comes to lie.
    "frame on a new page": (64, True, 8, ["ud2", f"mov {entry(0, 64):#x}, %eax"], [PAGES + 0x100, 0xB180], True),
    # The frame drains older stores and some of its own within its step, or they drain before.
    "frame without room": (
        64,
        True,
        2,
        [
            f"mov 0x8080, %edx; movl $1, {READ_ONLY:#x}",
            f"incl 0x8080; movl $1, {READ_ONLY:#x}",
        ],
        [0x8030, 0x8038],
        True,
    ),
    # Code on a page whose entry the other writes: read by a fetch.
    "fetch": (
        32,
        True,
        8,
        [f"mov ${PAGES + 0x1003:#x}, %eax; mov %eax, {entry(0, 32):#x}", f"jmp {PAGES:#x}"],
        [0xB080, 0xB180],
        True,
    ),
    # The fault drops a translation; the run stops before the frame, and it is there again.
    "stale translation": (
        64,
        True,
        3,
        [
            f"mov {READ_ONLY:#x}, %eax; movl ${READ_ONLY + 7:#x}, {entry(4, 64):#x}; mfence; movl $1, 0x8000; "
            f"movl $1, 0x8080; movl $2, {READ_ONLY:#x}",
            "mov 0x8080, %eax; mov 0x8000, %ebx",
        ],
        [0xB080, 0xB180],
        True,
    ),
    # A run that ends while the other has begun with an ENTER.
    "half an instruction": (
        32,
        False,
        2,
        ["ud2", "mov $0x8008, %ebp; enter $8, $2; incl 0x803e"],
        [0xB080, 0xB180],
        False,
    ),
    # General detection: DR6 and DR7 as they were while the frame waits for room.
    "general detection": (
        32,
        False,
        2,
        [
            "mov $0x2000, %eax; mov %eax, %dr7; movl $1, 0x8000; movl $2, 0x8040; mov %dr7, %ebx",
            "mov 0x8040, %eax; mov 0x8000, %ebx; ud2",
        ],
        [0xB080, 0xB180],
        False,
    ),
}


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("name", sorted(CASES))
def test_nothing_is_missed(name: str, eager: bool) -> None:
    bits, paging, room, threads, stacks, handlers = CASES[name]
    m = build(bits, paging, room, threads, stacks, handlers)
    if name == "fetch":
        m.load(PAGES, "mov $1, %ebx; hlt")
        m.load(PAGES + 0x1000, "mov $2, %ebx; hlt")
    assert check(m.machine, eager)


def instruction(r: random.Random, cpu: int, bits: int, paging: bool) -> str:
    """Of those that touch shared words, fault, have frames, walk or wait."""
    place = r.choice((0x8000, 0x8040, 0x8080))
    register = r.choice(("eax", "ebx", "edx"))
    value, wide = r.randrange(1, 4), "e" if bits == 32 else "r"
    some = [
        *[f"movl ${value}, {place:#x}", f"mov {place:#x}, %{register}"] * 4,
        *[f"incl {place:#x}", f"movl ${value}, {0xA000 + 0x100 * cpu:#x}", "mov 0x803e, %eax"] * 2,
        f"lock incl {place:#x}",
        "lock incl 0x803e",
        "incl 0x803e",
        "incl 0x83fe",
        f"mov ${value}, %{register}; xchg %{register}, {place:#x}",
        f"mov ${value - 1}, %eax; mov ${value}, %ecx; lock cmpxchg %ecx, {place:#x}",
        f"mov ${value - 1}, %eax; mov ${value}, %ecx; cmpxchg %ecx, {place:#x}",
        f"xor %edx, %edx; mov ${value - 1}, %eax; mov ${value}, %ebx; lock cmpxchg8b {place:#x}",
        f"movl ${value}, {place + 0x3E:#x}",
        f"mov ${place:#x}, %esi; mov $0x8040, %edi; {r.choice(('movsl', 'cmpsl'))}",
        f"mov ${place + 0x3C:#x}, %edi; mov $2, %ecx; mov ${value}, %eax; rep stosl",
        f"mov ${place + 16:#x}, %esp; push ${value}; int $0x40",
        "mov $0x8008, %ebp; enter $8, $2",
        "mov $0x8048, %esp; pusha" if bits == 32 else f"mov $0x8048, %esp; push ${value}; push %rax",
        "mov $0x8038, %esp; popa" if bits == 32 else "mov $0x803c, %esp; pop %rax; pop %rbx",
        "mfence",
        "cpuid",
        *["ud2", "int $6", "int3", "xor %ecx, %ecx; div %ecx"],
        f"pushf; orl $0x100, (%{wide}sp); popf; nop",
        f"mov ${place:#x}, %{wide}ax; mov %{wide}ax, %dr0; mov $0xf0001, %eax; mov %{wide}ax, %dr7",
        f"1: {r.choice(('nop', 'pause'))}; cmpl $0, {place:#x}; je 1b",
        f"1: mov $1, %eax; xchg %eax, {place:#x}; test %eax, %eax; jne 1b",
    ]
    if not paging:
        return r.choice(some)
    page = r.randrange(3)
    at = PAGES + 0x1000 * page
    some += [
        *[f"mov {ABSENT:#x}, %eax", f"movl $1, {READ_ONLY:#x}", f"movl ${value}, {at:#x}", f"mov {at:#x}, %eax"] * 2,
        *[f"mov ${at | r.choice((7, 3, 1, 0x67)):#x}, %ecx; mov %ecx, {entry(page, bits):#x}"] * 3,
        f"mov {entry(page, bits):#x}, %{register}",
        f"invlpg {at:#x}",
        f"incl {PAGES + 0xFFE:#x}",
        f"mov {PAGES + 0x3000:#x}, %edx; movl $0, {entry(3, bits):#x}; movl $1, {PAGES + 0x3000:#x}",
    ]
    return r.choice(some)


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_random_threads(first: int) -> None:
    complete = 0
    for seed in range(first, first + 25):
        r = random.Random(seed)
        bits, cpus = r.choice((32, 64)), r.choice((2, 2, 3))
        paging = bits == 64 or r.random() < 0.5
        threads = [
            "; ".join(instruction(r, cpu, bits, paging) for _ in range(r.randrange(1, 7 - cpus))) for cpu in range(cpus)
        ]
        stacks = [r.choice((0xB080 + 0x100 * cpu, 0xB080 + 0x100 * cpu, 0x8030 + 8 * cpu)) for cpu in range(cpus)]
        m = build(bits, paging, r.choice((1, 2, 3, 8)), threads, stacks, r.random() < 0.9)
        start = m.machine.snapshot()
        for eager in (True, False):
            m.machine.restore(start)
            try:
                complete += check(m.machine, eager)
            except TooMany:
                continue
    assert complete > 20
