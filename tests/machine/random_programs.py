"""Random systems: code, page tables, descriptor tables and plans, for replay and robustness tests."""

import random
import struct

from native_generator import Generator
from native_layout import FLAT_32, descriptor
from programs import assemble, gate

from machine import _core

RAM = 1 << 20
GDT, IDT, TSS, DIRECTORY, TABLE, STUBS = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000
CODE, DATA, STACKS = 0x10000, 0x20000, 0x30000
APIC = 0xFEE00000
# Handlers that go on two bytes behind a fault, without and with an error code; and of interrupts.
HANDLERS = f"""
    addl $2,(%esp); iret; .balign 16
    addl $2,4(%esp); add $4,%esp; iret; .balign 16
    movl $0,{APIC + 0xB0:#x}; iret
"""
# Machine code of system instructions, one a word.
SYSTEM_TEXT = """
    0f20c0 0f22c0 0f20d8 0f22d8 0f20e0 0f22e0 0f22d0 0f0138 0f06 0f09 0faef0 0faee8 0faef8 f4 fa fb 9c 9d cf cc ce
    cd30 cd31 6a10cf 0fa2 0f31 0f32 8ed8 8ec0 8ed0 8ee0 0f00d8 0f00d0 1e 1f 16 17 06 07 f390 e4e9 e6e9 ec ee ed ef
    0f0110 0f0118 0f0100 0f0108 f00fb10d00000200 f0ff0500000200 ff0500000200 a100000200 a300000200
    c705000002000a000000 e7f4 66ba1005 0f1f840833005452
    b974010000b810000000ba000000000f30 b9800000c031c031d20f30 b9800000c00f32 0f34 0f35 0f05
    0f21f0 0f23f8 0f23c0 0f01e0 f1
"""
SYSTEM = [bytes.fromhex(word) for word in SYSTEM_TEXT.split()]


def sensible_code(r: random.Random, generator: Generator, size: int) -> bytes:
    """Instructions of the table with addresses near DATA, jumps that stay close, and system instructions."""
    out = bytearray()
    block_rows = generator.block_rows()
    while len(out) < size:
        kind = r.random()
        if kind < 0.55:
            vector = generator.fresh()
            out += generator.instruction(r.choice(block_rows), vector, plain=True)
        elif kind < 0.7:
            addr = r.choice(
                (DATA, DATA + 0xFFE, 0x400000 + DATA, CODE + r.randrange(0x200), TABLE + 4 * r.randrange(64))
            )
            out += r.choice((b"\xa1", b"\xa3", b"\xf0\xff\x05", b"\xff\x05", b"\x87\x0d", b"\x66\xa3"))
            out += struct.pack("<I", (addr + r.randrange(64)) & 0xFFFFFFFF)
        elif kind < 0.76:
            out += struct.pack("<BB", r.choice((0x74, 0x75, 0xEB, 0xE2)), r.randrange(-60, 40) & 0xFF)
        elif kind < 0.82:
            value = r.choice(
                (0xC0000 | r.randrange(0x30, 0x60), 0x40030 | r.randrange(16), 0x80031, 0xC0610, 0x40400, 0x80400)
            )
            register = r.choice((0x300, 0x300, 0x310, 0x320, 0x380, 0xB0, 0x80))
            value = value if register == 0x300 else r.choice((0, 0x01000000, 0x40, 0x10040, 5))
            out += b"\xc7\x05" + struct.pack("<II", APIC + register, value)
        elif kind < 0.94:
            out += r.choice(SYSTEM)
        else:
            out += generator.instruction(r.choice(generator.rows), generator.fresh())
    return bytes(out[:size])


def page_entry(r: random.Random, frame: int) -> int:
    flags = r.choice((0x03, 0x07, 0x07, 0x07, 0x27, 0x67, 0x01, 0x05, 0x00, 0x107, r.getrandbits(9)))
    return frame << 12 | flags


def build(r: random.Random, machine: _core.Machine, wild: bool) -> None:
    """Fills a machine: half-way sensible, or `wild`, with random bytes everywhere."""
    generator = Generator(r.getrandbits(32), worlds=[FLAT_32])
    entries = [bytes(8), bytes(8), descriptor(0x9B), descriptor(0x93), descriptor(0xFB), descriptor(0xF3)]
    entries += [descriptor(0x89, limit=0x67, base=TSS, flags=0)]
    for _ in range(8):
        entries.append(
            descriptor(r.choice((0x92, 0x96, 0x9A, 0x9E, 0xF2, 0x82)), r.getrandbits(20), 0, r.getrandbits(4))
        )
    machine.write(GDT, b"".join(entries))
    machine.write(TSS + 4, struct.pack("<II", STACKS + 0x800, 0x18))
    machine.write(STUBS, assemble(HANDLERS, STUBS))
    for vector in range(256):
        kind = r.choice((0x8E, 0x8E, 0x8E, 0x8F, 0xEE, 0xEF)) if r.random() < 0.95 else r.choice((0x0E, 0x85))
        stub = STUBS + 16 * (1 if vector in (8, 10, 11, 12, 13, 14) else 0 if vector < 16 else 2)
        offset = stub if r.random() < 0.9 else CODE + r.randrange(0x3000)
        machine.write(IDT + 8 * vector, gate(offset, r.choice((0x10,) * 10 + (0x20, 0x40)), kind))
    kept = {page >> 12 for page in (GDT, IDT, TSS, DIRECTORY, TABLE, STUBS, *(CODE + 0x1000 * i for i in range(3)))}
    kept |= {(STACKS >> 12) + i for i in range(5)}
    table = [page << 12 | 7 if page in kept or r.random() < 0.6 else page_entry(r, page) for page in range(256)]
    directory = [TABLE | 0x07] * 2 + [
        r.choice((0x83, 0x87, 0, 0xE7, 0x1083, TABLE | 7, DIRECTORY | 7)) for _ in range(62)
    ]
    machine.write(TABLE, struct.pack("<256I", *table))
    machine.write(DIRECTORY, struct.pack("<64I", *directory))
    machine.write(DIRECTORY + 4 * (APIC >> 22), struct.pack("<I", APIC & 0xFFC00000 | 0x83))
    machine.write(CODE, sensible_code(r, generator, 0x3000) if not wild else r.randbytes(0x3000))
    if r.random() < 0.7 and not wild:  # a timer, an IPI to itself, interrupts on
        ipi = r.choice((0x40031, 0xC0610, 0x80040))
        text = f"movl $0x40,{APIC + 0x320:#x}; movl $5,{APIC + 0x380:#x}; sti; movl ${ipi:#x},{APIC + 0x300:#x}"
        machine.write(CODE, assemble(text, CODE))
    machine.write(DATA, r.randbytes(0x2000))
    if wild:
        for _ in range(20):
            machine.write(r.choice((GDT, IDT, TABLE, DIRECTORY, TSS)) + r.randrange(0x400), r.randbytes(8))
    for cpu in range(machine.cpus):
        for name in ("rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi"):
            value = r.choice((DATA + r.randrange(0x1000), r.randrange(64), 0x10, 0x18, 0x23, 0x2B, r.getrandbits(32)))
            machine.set_register(cpu, name, value)
        settings = {"gdt_base": GDT, "gdt_limit": 0x7F, "idt_base": IDT, "idt_limit": r.choice((0x7FF, 0x7FF, 0xFF))}
        settings["rsp"] = STACKS + 0x1000 * cpu + 0xF00 + r.choice((0, 0, 0, 1, 2))
        settings["rflags"] = 2 | r.choice((0, 0x200, 0x3200))
        if r.random() < 0.7:
            settings |= {"cr3": DIRECTORY, "cr4": r.choice((0, 0x10, 0x90)), "cr0": r.choice((0x80000011, 0x80010011))}
        for name, value in settings.items():
            machine.set_register(cpu, name, value)
    machine.set_register(0, "rip", CODE + r.choice((0, 0, 0, r.randrange(0x100))))


def random_plan(r: random.Random, cpus: int, count: int, wild: bool = False) -> bytes:
    out = bytearray()
    for _ in range(count):
        kind = r.random()
        cpu, flags = r.randrange(cpus), r.getrandbits(1)
        if kind < 0.55:
            op, arg = _core.RUN, r.choice((1, 2, 5, 30, 200))
        elif kind < 0.75:
            op, arg = _core.DRAIN, r.choice((1, 1, 2, 10))
        elif kind < 0.85:
            op, arg = _core.IRQ, r.choice((2, 0x31, 0x40, 0x40, r.randrange(0x30, 0x60)))
        elif kind < 0.9:
            op, arg = _core.EVICT, r.choice((CODE, DATA, STACKS, TABLE, 0x400000, IDT)) + 0x1000 * r.randrange(3)
        elif kind < 0.93:
            op, arg = _core.CHOICE, r.randrange(4)
        else:
            op, arg = _core.AUTO, r.choice((1, 10, 100))
        if op == _core.RUN:
            flags = _core.HOLD * flags | _core.ON * r.getrandbits(1)
        else:
            flags = 0
        if wild and r.random() < 0.1:
            op, cpu, flags = r.randrange(256), r.randrange(256), r.getrandbits(16)
            arg = r.choice((0, 1, 0xFFFF)) if op <= _core.STEP else r.getrandbits(64)
        out += struct.pack("<BBHIQ", op, cpu, flags, 0, arg)
    return bytes(out)
