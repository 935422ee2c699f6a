"""The default schedule says livelock where nobody gets on any more, and only there."""

from __future__ import annotations

import pytest

from machine import Machine
from machine.bare import BareMachine
from recorder.schedule import plan
from traces.schema import Op

CODE, HANDLER, APIC = 0x1000, 0x30000, 0xFEE00000
ARMED = f"movl $0x1ff, {APIC + 0xF0:#x}; movl $0x20040, {APIC + 0x320:#x}; movl $1000, {APIC + 0x380:#x}; sti"
"""A timer that ticks as vector 0x40."""


def machine(*threads: str, handler: str = "nop") -> BareMachine:
    """A CPU for each thread; `handler` is what they do at a tick."""
    m = BareMachine(32, cpus=len(threads), ram_bytes=1 << 22)
    m.add_tables(0x20000)
    m.load(HANDLER, f"{handler}; movl $0, {APIC + 0xB0:#x}; iret")
    m.gate(0x40, HANDLER)
    for cpu, text in enumerate(threads):
        m.load(CODE + 0x1000 * cpu, text)
        m.set(cpu=cpu, rip=CODE + 0x1000 * cpu, rsp=0xB000 + 0x100 * cpu)
    m.machine.tap = False
    return m


def run(m: Machine, piece: int = 1 << 30, step_max: int = 2_000_000) -> str:
    """To the end of an AUTO record, at most so many steps a call."""
    record, index, done = plan((Op.AUTO, 0, step_max)).tobytes(), 0, 0
    while index == 0:
        reason, index, done = m.execute(record, index=index, done=done, step_max=m.step + piece)
        m.events_clear()
        if reason not in ("steps", "events"):
            return reason
    return "plan"


END = "mov $0, %eax; out %eax, $0xf4"
GETS_ON = {
    "a debug register": "1: pause; mov %dr0, %ebx; inc %ebx; mov %ebx, %dr0; cmp $1000, %ebx; mov $0, %ebx; jne 1b; "
    + END,
    "a model-specific register": "1: pause; mov $0xc0000103, %ecx; rdmsr; inc %eax; wrmsr; cmp $1000, %eax; "
    f"mov $0, %eax; jne 1b; {END}",
    "control register 2": "1: pause; mov %cr2, %eax; inc %eax; mov %eax, %cr2; cmp $900, %eax; mov $0, %eax; jne 1b; "
    f"{END}",
    "the APIC": f"1: pause; incl {APIC + 0x80:#x}; cmpl $200, {APIC + 0x80:#x}; jne 1b; {END}",
    "the time": f"1: pause; rdtsc; cmp $50000, %eax; mov $0, %eax; jb 1b; {END}",
    "memory": f"1: pause; incl 0xa000; cmpl $1000, 0xa000; jne 1b; {END}",
    "the stack": f"1: pause; incl 0x800(%esp); cmpl $1000, 0x800(%esp); jne 1b; {END}",
}


@pytest.mark.parametrize("name", sorted(GETS_ON))
def test_who_gets_on_is_in_no_livelock(name: str) -> None:
    assert run(machine(GETS_ON[name]).machine) == "exit"


def test_any_timer_may_end_it() -> None:
    """The second CPU's handler does; the first one's timer ticks in vain."""
    threads = (f"{ARMED}; 1: pause; cmpl $0, 0xa000; je 1b; {END}", f"{ARMED}; mov $1, %ebx; 1: hlt; jmp 1b")
    assert run(machine(*threads, handler="or %ebx, 0xa000").machine) == "exit"


def test_who_counts_ticks_gets_on() -> None:
    """In a register when it comes to PAUSE."""
    thread = f"{ARMED}; 1: pause; mov 0xa000, %eax; cmp $2000, %eax; jne 1b; {END}"
    assert run(machine(thread, handler="incl 0xa000").machine) == "exit"


def test_an_answer_may_end_it() -> None:
    ask = "mov $0x510, %dx; mov $2, %eax; out %eax, %dx; movl $1, 0xa000; hlt"
    assert run(machine("1: pause; cmpl $0, 0xa000; je 1b; hlt", ask).machine) == "choice"


LIVELOCKED = (
    "1: pause; cmpl $0, 0xa000; je 1b; hlt",
    "1: mov $1, %eax; xchg %eax, 0xa040; pause; cmpl $0, 0xa000; je 1b; hlt",
)


@pytest.mark.parametrize("threads", [LIVELOCKED[:1], LIVELOCKED, (f"{ARMED}; {LIVELOCKED[0]}", LIVELOCKED[1])])
def test_who_does_not_is_found(threads: tuple[str, ...]) -> None:
    assert run(machine(*threads, handler="incl 0xa100").machine) == "livelock"


@pytest.mark.parametrize("tap", [0, 1024, 65536])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_the_stop_is_the_same_however_it_is_executed(tap: int, piece: int) -> None:
    threads = (f"{ARMED}; {LIVELOCKED[0]}", LIVELOCKED[1])
    whole = machine(*threads, handler="incl 0xa100").machine
    assert run(whole) == "livelock"
    m = machine(*threads, handler="incl 0xa100").machine
    m.tap = bool(tap)
    if tap:
        m.tap_capacity(tap)
    assert run(m, piece) == "livelock"
    assert (m.step, m.state_hash()) == (whole.step, whole.state_hash())


def test_a_snapshot_remembers_how_far_the_search_for_a_circle_was() -> None:
    m = machine(*LIVELOCKED).machine
    record = plan((Op.AUTO, 0, 1_000_000)).tobytes()
    assert m.execute(record)[0] == "livelock"
    end = m.step
    for first in range(5, 40, 5):
        m = machine(*LIVELOCKED).machine
        reason, index, done = m.execute(record, step_max=m.step + first)
        assert reason == "steps"
        middle = m.snapshot()
        for _ in range(2):
            assert m.execute(record, index=index, done=done)[0] == "livelock"
            assert m.step == end
            m.restore(middle)
