"""Rarer gates and stacks: 16-bit gates and segments, conforming handlers, string I/O under the bitmap, CPUID.

Intel SDM vol. 3: 6.11, 6.12.1, 5.8.1.1; vol. 2: INT, IRET, INS, OUTS, LMSW; docs/platform.md for CPUID and MSRs.
"""

import re
from pathlib import Path

import pytest
from bare_world import (
    GP,
    HANDLERS,
    IDT,
    KERNEL,
    KERNEL_STACK,
    PF,
    STACK,
    TABLES,
    TSS,
    UD,
    USER_CODE,
    USER_STACK,
    World,
    faults,
)

from machine.bare_tables import KERNEL_CODE, KERNEL_DATA, USER_CODE_32, USER_CODE_64, USER_DATA, descriptor

PAGE = Path(__file__).parents[2] / "docs" / "platform.md"
NON_CANONICAL = 0x0000_8000_0000_0000


# --- 16-bit gates and stacks (32-bit kernels only) ---


@pytest.mark.parametrize(("access", "opens"), [(0x86, 0), (0x87, 1)])
@pytest.mark.parametrize("user", [False, True])
def test_gates_of_16_bits_push_words(access: int, opens: int, user: bool) -> None:
    world = World(32, user=user)
    m = world.m
    m.map(0x8000)
    m.load(0x8000, "data16 iret")
    m.write(IDT + 8 * 0x30, (0x8000 | KERNEL_CODE << 16 | (access | 0x60) << 40).to_bytes(8, "little"))
    m.set(if_=1, cf=1)
    rsp = m.get("rsp")
    world.load("int $0x30")
    world.m.set(rflags=m.get("rflags") & 0xFFFF)
    assert world.step().of("fault") == []
    top = STACK if user else rsp
    count = 5 if user else 3
    assert (m.get("rip"), m.get("rsp"), m.get("if_")) == (0x8000, top - 2 * count, opens)
    words = [m.read_int(top - 2 * n, 2) for n in range(count, 0, -1)]
    old = [(world.code + 2) & 0xFFFF, USER_CODE_32 if user else KERNEL_CODE, 0x203]
    assert words == old + ([rsp & 0xFFFF, USER_DATA] if user else [])


def test_a_16_bit_stack_wraps_at_64_kb() -> None:
    world = World(32)
    m = world.m
    m.map(0x100000, 0x10000)
    world.descriptor(0x200, descriptor(0x93, base=0x100000, limit=0xFFFF, flags=0))
    m.set(esp=0xABCD0004)
    world.load("mov $0x200,%eax; mov %eax,%ss; mov $0xabcd0004,%esp; push $1; push $2; push $3")
    assert world.step(6).of("fault") == []
    assert m.get("esp") == 0xABCDFFF8
    assert [m.read_int(0x100000 + offset) for offset in (0, 0xFFFC, 0xFFF8)] == [1, 2, 3]
    m.load(KERNEL + 0x100, "int $0x30")
    m.set(rip=KERNEL + 0x100)
    m.load(HANDLERS + 16 * 0x30, "iret")
    assert world.step().of("fault") == []
    assert (m.get("esp"), m.get("ss")) == (0xABCDFFEC, 0x200)
    assert m.read_int(0x10FFEC) == KERNEL + 0x102
    assert world.step().of("fault") == []
    assert (m.get("esp"), m.get("rip")) == (0xABCDFFF8, KERNEL + 0x102)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_conforming_handler_keeps_the_privilege(bits: int) -> None:
    """6.12.1.1: through a conforming segment the handler runs with the interrupted privilege, on its stack."""
    world = World(bits, user=True)
    m = world.m
    world.descriptor(0x200, descriptor(0x9F, flags=0xA if bits == 64 else 0xC))
    size = bits // 4
    gate = bytearray(m.read(IDT + UD * size, size))
    gate[0:2], gate[2:4], gate[6:8] = b"\x00\x11", b"\x00\x02", b"\x03\x00"  # 0x200:0x31100
    m.write(IDT + UD * size, bytes(gate))
    world.load("ud2")
    assert faults(world.step()) == [(UD, 0)]
    code = USER_CODE_64 if bits == 64 else USER_CODE_32
    assert [m.get(name) for name in ("cpl", "cs", "ss", "rip")] == [3, 0x203, USER_DATA, USER_CODE + 0x1100]
    assert m.get("rsp") == USER_STACK - (40 if bits == 64 else 12)
    assert m.read_int(m.get("rsp") + bits // 8, 2) == code


def test_gates_to_addresses_that_cannot_be() -> None:
    long = World()
    long.m.gate(0x30, NON_CANONICAL)
    frame = long.run("int $0x30")
    assert frame is not None
    assert (frame.vector, frame.error, frame.rip) == (GP, 0, KERNEL)
    short = World(32)
    short.descriptor(0x200, descriptor(0x9B, limit=0x5FFFF, flags=4))
    short.m.write(IDT + 8 * 0x30, (0 | 0x200 << 16 | 0x8E << 40 | 0x6 << 48).to_bytes(8, "little"))
    frame = short.run("int $0x30")
    assert frame is not None
    assert (frame.vector, frame.error, frame.rip) == (GP, 0, KERNEL)


def test_a_frame_that_does_not_fit_writes_nothing() -> None:
    """The stack's lower page is missing: a page fault, and not half a frame."""
    for bits in (32, 64):
        world = World(bits)
        m = world.m
        m.map(0x90000)
        size = bits // 8
        m.set(rsp=0x90000 + 2 * size)
        m.write(0x90000, b"\xee" * 4 * size)
        m.gate(PF, HANDLERS + 16 * PF, interrupt_stack=1 if bits == 64 else 0)
        m.write_int(TSS + 36, STACK + 0x2000, 8)
        world.load("int $0x30")
        run = world.step()
        assert faults(run)[0] == (PF, 2)
        assert m.read(0x90000, 4 * size) == b"\xee" * 4 * size
        assert m.get("cr2") & -4096 == 0x8F000
        if bits == 64:
            assert (world.frame().rip, world.frame().rsp) == (KERNEL, 0x90000 + 2 * size)


def test_an_ipi_finds_its_gate_missing() -> None:
    """EXT is set in the error code of what goes wrong while an interrupt from outside is delivered (6.13)."""
    for bits in (32, 64):
        world = World(bits)
        m = world.m
        m.set(if_=1)
        world.load("movl $0x40040,0x70300; nop")
        world.step()
        m.write(IDT + 0x40 * bits // 4 + 5, b"\x0e")
        run = m.interrupt(0x40)
        assert faults(run) == [(11, 0x40 * 8 + 3)]
        assert world.frame()[1:3] == (0x40 * 8 + 3, KERNEL + len(m.load(0x51800, "movl $0x40040,0x70300").data))


# --- LMSW, SMSW, CLTS ---


@pytest.mark.parametrize("bits", [32, 64])
def test_lmsw_sets_four_bits_but_never_clears_pe(bits: int) -> None:
    world = World(bits)
    m = world.m
    for value in range(16):
        before = m.get("cr0")
        world.stand()
        m.set(eax=0xFFF0 | value)
        world.load("lmsw %ax; smsw %ebx; clts")
        assert world.step().of("fault") == []
        assert m.get("cr0") == (before & ~0xE) | value | 1
        world.step()
        assert m.get("ebx") & 0xFFFF == m.get("cr0") & 0xFFFF
        world.step()
        assert m.get("cr0") & 8 == 0


# --- string I/O ---


@pytest.mark.parametrize("bits", [32, 64])
def test_string_output_under_the_bitmap(bits: int) -> None:
    world = World(bits, user=True)
    m = world.m
    base = 0x10900
    m.write(base, m.read(TSS, 102) + (104).to_bytes(2, "little") + b"\xff" * 0x40)
    m.write_int(base + 104 + 0xE9 // 8, 0xFF & ~(1 << 0xE9 % 8), 1)
    world.descriptor(0x200, descriptor(0x89, base=base, limit=0x9F, flags=0) + bytes(8))
    world.user = False
    world.stand()
    world.load("mov $0x200,%eax; ltr %ax")
    assert world.step(2).of("fault") == []
    world.user = True
    world.stand()
    text = USER_STACK - 0x100
    m.write(text, b"hello")
    m.set(rsi=text, rcx=5, rdx=0xE9)
    world.load("rep outsb; inc %edx; outsb")
    run = world.step(5)
    assert (run.of("fault"), m.console()) == ([], "hello")
    assert [(event.addr, event.value) for event in run.of("port_out")] == [(0xE9, byte) for byte in b"hello"]
    assert m.get("ecx") == 0
    assert faults(world.step(2)) == [(GP, 0)]


def test_string_input_checks_the_port_before_the_page() -> None:
    world = World(user=True)
    world.m.set(rdi=0x900000, rdx=0x60)
    world.load("insb")
    assert faults(world.step()) == [(GP, 0)]
    world.stand()
    world.m.set(rflags=0x3002, rdi=0x900000)
    run = world.step()
    assert faults(run) == [(PF, 6)]
    assert run.of("port_in") == []


# --- 32-bit users of a 64-bit kernel ---


def test_sysenter_from_compatibility_mode() -> None:
    world = World()
    m = world.m
    m.set(sysenter_cs=KERNEL_CODE, sysenter_eip=KERNEL + 0x40, sysenter_esp=0xFFFF_8000_0000_1000)
    m.set(rsp=KERNEL_STACK - 0x100)
    for n, word in enumerate((USER_CODE, USER_CODE_32, 0x202, USER_STACK, USER_DATA)):
        m.write_int(KERNEL_STACK - 0x100 + 8 * n, word, 8)
    world.load("iretq")
    m.load(USER_CODE, "sysenter", bits=32)
    assert world.step(2).of("fault") == []
    names = ("cs", "ss", "rip", "rsp", "bits", "if_")
    assert [m.get(name) for name in names] == [
        KERNEL_CODE,
        KERNEL_DATA,
        KERNEL + 0x40,
        0xFFFF_8000_0000_1000,
        64,
        0,
    ]


# --- docs/platform.md: CPUID and MSRs ---


def cpuid(leaf: int, cpus: int = 1, cpu: int = 0, bits: int = 64) -> tuple[int, int, int, int]:
    world = World(bits, cpus=cpus)
    world.m.set(cpu=cpu, rax=leaf | (0xABC << 32), rcx=77)
    world.load("cpuid")
    assert world.step(cpu=cpu).of("fault") == []
    eax, ebx, ecx, edx = (world.m.get(name, cpu=cpu) for name in ("rax", "rbx", "rcx", "rdx"))
    return eax, ebx, ecx, edx


def test_cpuid_is_what_the_platform_says() -> None:
    highest, b, c, d = cpuid(0)
    assert (highest, b"".join(word.to_bytes(4, "little") for word in (b, d, c))) == (1, b"racetape x86")
    bits = {"DE": 2, "PSE": 3, "TSC": 4, "MSR": 5, "PAE": 6, "CX8": 8, "APIC": 9, "SEP": 11, "PGE": 13, "CMOV": 15}
    edx = sum(1 << bit for bit in bits.values()) | 1 << 16
    ecx = 1 << 13 | 1 << 22 | 1 << 23
    for cpu in range(3):
        assert cpuid(1, cpus=3, cpu=cpu) == (0x600, cpu << 24 | 8 << 8, ecx, edx)
    assert cpuid(0x80000000)[0] == 0x80000008
    long_edx = 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29
    assert cpuid(0x80000001) == (0, 0, 1 | 1 << 5, long_edx | 1 << 11)
    assert cpuid(0x80000001, bits=32) == (0, 0, 1 | 1 << 5, long_edx)
    assert cpuid(0x80000008)[0] == 48 << 8 | 40
    for leaf in (2, 4, 7, 0xB, 0x40000000, 0x80000002, 0xFFFFFFFF):
        assert cpuid(leaf) == (0, 0, 0, 0)
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith("| 1 |"))
    assert re.findall(r"\b(?:DE|PSE|TSC|MSR|PAE|CX8|APIC|SEP|PGE|CMOV|PAT)\b", row) == [*bits, "PAT"]


@pytest.mark.parametrize(
    ("number", "value"),
    [(0x1B, 0xFEE00900), (0xFE, 0), (0x1A0, 0), (0x277, 0x0007040600070406), (0xC0000080, 0xD00), (0x174, 0)],
)
def test_msrs_at_the_start(number: int, value: int) -> None:
    world = World()
    world.m.set(rcx=number, rax=-1, rdx=-1)
    world.load("rdmsr; wrmsr")
    assert world.step().of("fault") == []
    assert (world.m.get("rax"), world.m.get("rdx")) == (value & 0xFFFFFFFF, value >> 32)
    if number == 0xFE:
        assert faults(world.step()) == [(GP, 0)]
    assert world.m.get("gdt_base") == TABLES
