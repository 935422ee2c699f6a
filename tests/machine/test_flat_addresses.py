"""Handlers that take segments for flat (docs/decisions/0013) do what the general ones do, whatever segments are loaded.

A CPU with a breakpoint armed, on an address nobody comes to, executes everything with the general handlers.
"""

import random
import struct

import pytest

from racetape import BareMachine

CODE, TABLE, DATA, STACK, NEVER = 0x1000, 0x4000, 0x6000, 0x9000, 0xF000
FLAT, BASED, LIMITED, DOWN, SMALL, READ_ONLY = range(0x10, 0x40, 8)
DESCRIPTORS = {
    0x08: 0x00CF9B000000FFFF,  # code
    FLAT: 0x00CF93000000FFFF,
    BASED: 0x00CF93000200FFFF,  # base 0x200
    LIMITED: 0x0040930000006FFF,  # to 0x6fff
    DOWN: 0x00CF970000000005,  # expands down to 0x6000
    SMALL: 0x008F93000000FFFF,  # as a stack segment: 16-bit stack pointer
    READ_ONLY: 0x00CF91000000FFFF,
}
PIECES = (
    "mov (%ebx), %eax",
    "mov %eax, 8(%ebx)",
    "mov %es:12(%ebx), %edx",
    "mov %edx, %es:16(%ebx)",
    "add %eax, 4(%ebx)",
    "xorw $0x1234, 20(%ebx)",
    "incb 24(%ebx)",
    "cmp (%ebx), %edx",
    "mov %eax, -8(%ebp)",
    "mov -8(%ebp), %edx",
    "push %eax; pop %edx",
    "pushl 4(%ebx); popl 28(%ebx)",
    "call 1f; 1: pop %edx",
    "call 2f; jmp 3f; 2: ret; 3:",
    "push %ebp; mov %esp, %ebp; leave",
    "mov (%ebx,%ecx,4), %eax",
    "mov %fs:(%ebx), %eax",
    "lea 5(%ebx), %edx",
    "xlat",
    "btsl $3, 32(%ebx)",
    "addr16 mov (%bx), %eax",
    "mov 0x6010, %eax",
)


def loads(chooser: random.Random) -> list[str]:
    segment = chooser.choice(["ds", "es", "ss", "fs"])
    kinds = [FLAT, FLAT, FLAT, BASED, LIMITED, DOWN, SMALL, READ_ONLY]
    if segment == "ss":
        kinds.remove(READ_ONLY)  # would be #GP at once
    return [f"mov ${chooser.choice(kinds)}, %ecx; mov %ecx, %{segment}; mov $1, %ecx"]


def program(chooser: random.Random) -> str:
    lines = ["mov $3, %edi", "again:"]
    for _ in range(12):
        lines += chooser.choices(PIECES, k=chooser.randint(1, 5))
        lines += loads(chooser) if chooser.random() < 0.4 else []
    return "\n".join([*lines, "dec %edi; jnz again; hlt"])


def prepared(text: str, *, general: bool) -> BareMachine:
    m = BareMachine(32)
    m.load(CODE, text)
    m.write(DATA, random.Random(0).randbytes(0x1000))
    for selector, descriptor in DESCRIPTORS.items():
        m.write(TABLE + selector, struct.pack("<Q", descriptor))
    m.set(gdt_base=TABLE, gdt_limit=max(DESCRIPTORS) + 7, rip=CODE, rsp=STACK, rbp=STACK - 0x100, rbx=DATA, rcx=1)
    if general:
        m.set(dr0=NEVER, dr7=0x402)
    return m


@pytest.mark.parametrize("seed", range(150))
def test_whatever_segments_are_loaded(seed: int) -> None:
    text = program(random.Random(seed))
    fast, general = prepared(text, general=False), prepared(text, general=True)
    first, second = fast.run(3000), general.run(3000)
    assert (first.reason, first.steps) == (second.reason, second.steps)
    assert first.events == second.events
    ignored = ("dr0", "dr7")
    assert {**fast.registers(), **dict.fromkeys(ignored)} == {**general.registers(), **dict.fromkeys(ignored)}
    assert fast.machine.read(0, 0x10000) == general.machine.read(0, 0x10000)


def test_the_programs_get_somewhere() -> None:
    """Else the test above would say little: many reach their end, many a fault, and segments matter."""
    machines = [prepared(program(random.Random(seed)), general=False) for seed in range(150)]
    steps = [m.run(3000).steps for m in machines]
    ends = [m.machine.waiting(0) for m in machines]
    assert sum(steps) > 150 * 30
    assert ends.count("halt") > 20
    assert ends.count("off") > 50  # a fault, and no handler


def test_a_load_follows_its_page_when_that_moves() -> None:
    """The host address that a load guesses is that of the last time: here it is wrong every time."""
    m = BareMachine(64)
    m.map(0x1000, rights="rx")
    m.load(0x1000, "again: mov (%rsi), %rax; add %rax, %rbx; xchg %rsi, %rdi; jmp again")
    for number in range(2):
        m.map(0x10000 + number * 0x5000)
        m.write_int(0x10000 + number * 0x5000, 1 << 20 * number, 8)
    m.set(rip=0x1000, rsi=0x10000, rdi=0x15000)
    m.step(4 * 100)
    assert m.get("rbx") == 50 + (50 << 20)
    m.unmap(0x10000)
    m.map(0x10000)
    m.write_int(0x10000, 7, 8)
    m.load(0x1800, "invlpg (%rsi); jmp .-0x800-3")
    m.set(rbx=0, rip=0x1800)
    m.step(2)
    assert m.get("rip") == 0x1000
    m.step(4 * 100)
    assert m.get("rbx") == 50 * 7 + (50 << 20)
