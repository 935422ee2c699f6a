"""Random systems in long mode and with PAE: what random_programs.py is for two-level paging.

Every table reaches most of memory at several linear addresses: the same code runs at several places, and pages that are
512 pages apart, and so share a slot of the TLB, hold the same bytes.
"""

import random
import struct
from typing import Literal

from native_generator import Generator
from native_layout import FLAT_32, LONG, descriptor
from random_programs import CODE, DATA, GDT, HANDLERS, IDT, STACKS, TSS, page_entry, sensible_code

from machine import _core
from machine.assembler import assemble

RAM = 2 << 20
Mode = Literal["pae", "kernel", "user", "compatible"]
MODES: tuple[Mode, ...] = ("pae", "kernel", "kernel", "user", "compatible")
STUBS, PML4, POINTERS, DIRECTORY, TABLE, SECOND = 0x6000, 0x7000, 0x8000, 0x9000, 0xA000, 0xB000
ENTRY_CODE, ENTRIES = STUBS + 0xE00, STUBS + 0xF00
"""What every CPU starts with, and the frames it returns to."""
ENTRY = 0xFFFF_FFFF_8000_0000
"""The topmost 2 GB are what is at 0: addresses of 32 bits reach them with their sign."""
KERNEL_32, KERNEL_DATA, USER_32, USER_DATA, USER_64, KERNEL_64, TASK = 0x10, 0x18, 0x23, 0x2B, 0x33, 0x38, 0x50
NX = 1 << 63
HANDLERS_64 = """
    addq $2,(%rsp); iretq; .balign 16
    addq $2,8(%rsp); addq $8,%rsp; iretq; .balign 16
    movl $0,-0x11ffff50; iretq; .balign 16
    sysretq; .balign 16
    swapgs; push %r11; push %rcx; pop %rcx; pop %r11; swapgs; sysretq
"""
SYSTEM_64_TEXT = """
    0f05 0f05 480f07 0f01f8 0f01f9 0f20d8 0f22d8 0f20e0 0f22e0 0f20c0 0f22c0 440f22c0 440f20c0 410f22d8 0f0138
    0f013f f4 fa fb 9c 9d 48cf cf cc cd30 cd31 0fa2 0f31 0f32 0faef0 0faee8 0faef8 f390 e4e9 e6e9 ec ee ed ef
    0fa0 0fa8 0fa1 0fa9 8ed8 8ec0 8ed0 8ee0 8ee8 0f00d8 0f00d0 0f0110 0f0118 0f0100 0f0108 c8080003 c810001f
    c9 66c8080005 480fc70e f0480fc70e f3a4 f348a5 f348ab f3a6 f2ae 67f3aa a4 a5 f0ff07 f0480fc107 488707
    48ff06 488906 660fc8 ff16 ff26 48ff2e 48ff1e cb 48cb b9800000c031d2b8010d00000f30 b9800000c031d2b801050000
    b9800000c00f32 b9000100c00f30 b9010100c00f30 b9020100c00f30 b9840000c031d2b8000700000f30 b9740100000f30
    0f34 480f35 0f35 0f21f0 0f1f840833005452 0f1fc0 0f01e0 488b04252000fe00 f1
"""
SYSTEM_64 = [bytes.fromhex(word) for word in SYSTEM_64_TEXT.split()]


def sensible_code_64(r: random.Random, generator: Generator, size: int) -> bytes:
    """Instructions of the table, accesses near DATA at all its addresses, short jumps, system instructions."""
    out = bytearray()
    block_rows = generator.block_rows()
    while len(out) < size:
        kind = r.random()
        if kind < 0.45:
            out += generator.instruction(r.choice(block_rows), generator.fresh(), plain=True)
        elif kind < 0.62:  # at a 32-bit address with its sign, of 1 to 8 bytes
            place = r.choice(
                (DATA, DATA + 0xFFC, 0x200000 + DATA, DATA - 0x80000000, CODE + r.randrange(0x200), STACKS)
            )
            place = r.choice((place, place, TABLE + 8 * r.randrange(0x40), SECOND + 8 * r.randrange(64), IDT))
            out += r.choice(
                (b"\x48\x8b\x04\x25", b"\x48\x89\x04\x25", b"\x89\x04\x25", b"\x66\x89\x04\x25", b"\xff\x04\x25")
            )
            out += struct.pack("<i", place + r.randrange(64))
        elif kind < 0.68:  # relative to rip, often into the code itself
            out += r.choice((b"\x48\x8b\x05", b"\x89\x05", b"\x88\x05", b"\xf0\xff\x05"))
            out += struct.pack("<i", r.choice((r.randrange(-64, 64), DATA - CODE)))
        elif kind < 0.78:
            out += struct.pack("<BB", r.choice((0x74, 0x75, 0xEB, 0xE2, 0xE3, 0x7C)), r.randrange(-60, 40) & 0xFF)
        elif kind < 0.82:  # to the same code elsewhere
            out += b"\x48\x81\x04\x24" + struct.pack("<i", r.choice((0x200000, -0x200000))) + r.choice((b"\xc3", b""))
        elif kind < 0.86:  # the local APIC
            register = r.choice((0x300, 0x300, 0x310, 0x320, 0x380, 0xB0, 0x80))
            value = r.choice((0xC0000 | r.randrange(0x30, 0x60), 0x40030 | r.randrange(16), 0xC0610, 0x40400, 5, 0x40))
            out += b"\xc7\x04\x25" + struct.pack("<iI", register - 0x1200000, value)
        elif kind < 0.96:
            out += r.choice(SYSTEM_64)
        else:
            out += generator.instruction(r.choice(generator.rows), generator.fresh())
    return bytes(out[:size])


def jumping_code(r: random.Random, code: bytes) -> bytes:
    """The same with 16-bit jumps and calls, which clear the upper half of EIP, and jumps to the same code 64 KB off."""
    out = bytearray(code)
    for _ in range(r.randrange(40)):
        at = r.randrange(r.choice((0x200, len(out) - 16)))
        if r.random() < 0.7:
            jump = bytes((0x66, r.choice((0xE9, 0xE9, 0xE8)))) + struct.pack("<h", r.randrange(-0x60, 0x60))
        else:  # call to what follows; add to the return address; return
            jump = b"\xe8" + bytes(4) + b"\x81\x04\x24" + struct.pack("<i", 8 + r.choice((0x10000, -0x10000))) + b"\xc3"
        out[at : at + len(jump)] = jump
    return bytes(out)


def entry_64(r: random.Random, frame: int) -> int:
    """A table entry of eight bytes: sensible, or with any right missing, or reserved bits."""
    entry = page_entry(r, frame)
    if entry & 0x80:
        entry &= ~0x80
    return entry | r.choice((0, 0, 0, 0, NX, 1 << 52, r.choice((1 << 45, 0x200, 1 << 62))))


def write_tables(r: random.Random, machine: _core.Machine, mode: Mode) -> None:
    kept = {page >> 12 for page in (GDT, IDT, TSS, STUBS, PML4, POINTERS, DIRECTORY, TABLE, SECOND)}
    kept |= {(CODE >> 12) + i for i in range(3)} | {(STACKS >> 12) + i for i in range(5)}
    table = [page << 12 | 7 if page in kept or r.random() < 0.7 else entry_64(r, page) for page in range(512)]
    table[0] = table[CODE >> 12]  # the same code again below 64 KB, where jumps of 16 bits go
    second = [
        page << 12 | 7 if page in kept or r.random() < 0.5 else entry_64(r, r.randrange(512)) for page in range(512)
    ]
    user = 0 if mode == "pae" else 6
    directory = [TABLE | 7, r.choice((SECOND, TABLE)) | 7] + [
        r.choice((0, 0x87, 0xE7, 0x200087, 0x87 | NX, 0x1087, SECOND | 7, TABLE | 5, DIRECTORY | 7)) for _ in range(510)
    ]
    directory[0xD0] = TABLE | 7  # where the generator has its high data
    directory[0x1F7] = 0xFEE00083
    pointers = [r.choice((DIRECTORY | user | 1, 0, 0x87, DIRECTORY | 1, SECOND | 7)) for _ in range(512)]
    for index in (0, 3, 0x169, 510, 511):
        pointers[index] = DIRECTORY | user | 1
    if mode == "pae":
        pointers[1:3] = [r.choice((DIRECTORY | 1, 0)) for _ in range(2)]
    top = [r.choice((0, 0, POINTERS | 7, PML4 | 7)) for _ in range(512)]
    top[0] = top[0xF4] = top[511] = POINTERS | 7
    for addr, entries in ((TABLE, table), (SECOND, second), (DIRECTORY, directory), (POINTERS, pointers), (PML4, top)):
        machine.write(addr, struct.pack("<512Q", *entries))


def write_descriptors(r: random.Random, machine: _core.Machine, mode: Mode) -> None:
    entries = [bytes(8), bytes(8), descriptor(0x9B), descriptor(0x93), descriptor(0xFB), descriptor(0xF3)]
    entries += [descriptor(0xFB, flags=0xA), descriptor(0x9B, flags=0xA), descriptor(0x9B, 0xFFFF, 0, 0), bytes(8)]
    base = r.choice((0, 0, ENTRY)) if mode != "pae" else 0
    for cpu in range(4):
        task = base + TSS + 0x100 * cpu
        entries += [descriptor(0x89, 0x67, task & 0xFFFFFFFF, 0), struct.pack("<Q", task >> 32)]
    for _ in range(8):
        entries.append(
            descriptor(r.choice((0x92, 0x96, 0x9A, 0x9E, 0xF2, 0x82)), r.getrandbits(20), 0, r.getrandbits(4))
        )
    machine.write(GDT, b"".join(entries))
    wide = mode != "pae"
    for cpu in range(4):
        task, stack = TSS + 0x100 * cpu, STACKS + 0x1000 * cpu + 0x800
        if wide:
            machine.write(task + 4, struct.pack("<Q", base + stack))
            machine.write(task + 36, struct.pack("<QQ", stack - 0x200, base + stack - 0x400))
        else:
            machine.write(task + 4, struct.pack("<II", stack, KERNEL_DATA))
    machine.write(STUBS, assemble(HANDLERS_64, bits=64).data if wide else assemble(HANDLERS, bits=32).data)
    for vector in range(256):
        kind = r.choice((0x8E, 0x8E, 0x8E, 0x8F, 0xEE, 0xEF)) if r.random() < 0.95 else r.choice((0x0E, 0x85))
        stub = STUBS + 16 * (1 if vector in (8, 10, 11, 12, 13, 14) else 0 if vector < 16 else 2)
        offset = base + (stub if r.random() < 0.9 else CODE + r.randrange(0x3000))
        code = r.choice((KERNEL_64 if wide else KERNEL_32,) * 12 + (USER_64, KERNEL_32))
        stack = r.choice((0, 0, 0, 1, 2)) if wide else 0
        low = struct.pack("<HHBBH", offset & 0xFFFF, code, stack, kind, offset >> 16 & 0xFFFF)
        if wide:
            machine.write(IDT + 16 * vector, low + struct.pack("<Q", offset >> 32))
        else:
            machine.write(IDT + 8 * vector, low)
    for cpu in range(machine.cpus):
        settings = {"gdt_base": base + GDT, "gdt_limit": 0xCF, "idt_base": base + IDT, "idt_limit": 0xFFF}
        settings |= {"lstar": base + STUBS + r.choice((48, 64)), "sfmask": r.choice((0, 0x200, 0x700))}
        settings |= {"star": (KERNEL_64 - 8 - 0x10 + 0x13) << 48 | KERNEL_64 << 32, "kernel_gs_base": DATA}
        settings |= {"sysenter_cs": KERNEL_32, "sysenter_eip": STUBS + 48, "sysenter_esp": STACKS + 0xF00}
        for name, value in settings.items():
            machine.set_register(cpu, name, value)


def enter_mode(r: random.Random, machine: _core.Machine, cpu: int, mode: Mode) -> None:
    """Paging on, about to load the task register and to return to where the random code starts."""
    wide = mode != "pae"
    machine.set_register(cpu, "cr3", PML4 if wide else POINTERS)
    machine.set_register(cpu, "cr4", r.choice((0x20, 0xA0, 0xB0)))
    if wide:
        machine.set_bits(cpu, 64)
        machine.set_register(cpu, "efer", r.choice((0xD01, 0xD01, 0xD00, 0x501)))
    else:
        machine.set_register(cpu, "efer", r.choice((0, 0x800)))
    machine.set_register(cpu, "cr0", r.choice((0x80000011, 0x80010011)))
    for name in ("rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))):
        value = r.choice(
            (DATA + r.randrange(0x1000), r.randrange(64), 0x10, 0x18, USER_32, USER_DATA, r.getrandbits(32))
        )
        if wide:
            value = r.choice((value, value, value + ENTRY if value < 0x80000000 else value, r.getrandbits(64)))
        machine.set_register(cpu, name, value)
    user = mode in ("user", "compatible") or (not wide and r.random() < 0.4)
    start = r.choice((CODE, 0x200000 + CODE)) + r.choice((0, 0, r.randrange(0x100)))
    if mode == "kernel" and r.random() < 0.3:
        start += ENTRY
    stack = STACKS + 0x1000 * cpu + 0xE00 + r.choice((0, 0, 0, 1, 4))
    code = {"user": USER_64, "compatible": USER_32, "kernel": KERNEL_64, "pae": USER_32 if user else KERNEL_32}[mode]
    frame = (start, code, 2 | r.choice((0, 0x200, 0x3200)), stack, USER_DATA if user else KERNEL_DATA)
    machine.set_register(cpu, "rax", TASK + 16 * cpu)
    machine.set_register(cpu, "rsp", ENTRIES + 64 * cpu)
    machine.set_register(cpu, "rip", ENTRY_CODE)
    machine.write(ENTRIES + 64 * cpu, struct.pack("<5Q" if wide else "<5I", *frame))
    machine.write(
        ENTRY_CODE, assemble("ltr %ax; iretq", bits=64).data if wide else assemble("ltr %ax; iret", bits=32).data
    )


def start_all(machine: _core.Machine) -> None:
    """CPU 0 starts the others."""
    machine.write(CODE, assemble("movl $0xc0610,0xfee00300", bits=32).data)
    machine.set_register(0, "rip", CODE)
    machine.execute(struct.pack("<BBHIQ", _core.RUN, 0, 0, 0, 1))
    machine.events_clear()
    machine.choices_take()


def build(r: random.Random, machine: _core.Machine, mode: Mode) -> None:
    """Fills a machine of at least RAM bytes and puts its CPUs into the mode, about to execute random code."""
    narrow = mode in ("pae", "compatible")
    generator = Generator(r.getrandbits(32), worlds=[FLAT_32 if narrow else LONG])
    start_all(machine)
    write_tables(r, machine, mode)
    write_descriptors(r, machine, mode)
    code = sensible_code(r, generator, 0x3000) if narrow else sensible_code_64(r, generator, 0x3000)
    machine.write(CODE, jumping_code(r, code) if narrow else code)
    machine.write(DATA, r.randbytes(0x2000))
    for cpu in range(machine.cpus):
        enter_mode(r, machine, cpu, mode)
