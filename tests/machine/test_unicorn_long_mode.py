"""Random system code in 64-bit mode, by our machine and by Unicorn: control registers, MSRs, tables, segments, SYSRET.

The program enters long mode, executes operations and writes RAX to a log after each, so that all of memory tells what
happened; it ends at its first exception or at HLT. Left out where Unicorn 2.1.4 is known to be wrong: SYSCALL and
SYSENTER (it calls its user instead), bits of CR0 and CR4 that may not be changed (it changes them), MSRs that do not
exist (it reads 0), non-canonical values in MSRs and descriptor tables (it takes them), null selectors in LTR and with
any RPL in SS (it takes them), limits and rights of segments once they are loaded.
"""

import random
import struct

import pytest
import unicorn
from native_layout import descriptor
from unicorn import x86_const as x86

from machine import _core

RAM = 1 << 20
GDT, LDT, TSS, LOG, CODE, STACK, SCRATCH = 0x1000, 0x1800, 0x2000, 0x3000, 0x4000, 0x9000, 0xA000
USER_AT = 0x7000
ROOT, POINTERS, DIRECTORY = 0x10000, 0x11000, 0x12000
KERNEL_64, KERNEL_DATA, USER_32, USER_DATA, USER_64, TSS_AT, LDT_AT = 0x10, 0x18, 0x23, 0x2B, 0x33, 0x40, 0x50
BOOT_32 = 0x08
MSRS = (0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000100, 0xC0000101, 0xC0000102, 0x174, 0x175, 0x176)
STAR, LSTAR, SFMASK = 0xC0000081, 0xC0000082, 0xC0000084
FLAGS = 0x244CD7
"""What POPFQ may be given: not TF, which would end the program, and no virtual-8086 bits."""


def wide_descriptor(kind: int, limit: int, base: int) -> bytes:
    return descriptor(kind, limit, base, 0) + struct.pack("<Q", base >> 32)


class Program:
    """A memory image; `seed` decides what the code does."""

    def __init__(self, seed: int) -> None:
        self.random = r = random.Random(seed)
        self.memory = bytearray(RAM)
        self.count = 0
        table = [bytes(8), descriptor(0x9B), descriptor(0x9B, flags=0xA), descriptor(0x93), descriptor(0xFB)]
        table += [descriptor(0xF3), descriptor(0xFB, flags=0xA), bytes(8), wide_descriptor(0x89, 0x67, TSS)]
        table += [wide_descriptor(0x82, 0x3F, LDT)]
        kinds = (0x91, 0xF1, 0x95, 0x99, 0xF9, 0x9F, 0xFF, 0x13, 0xF3, 0x93)
        table += [descriptor(kind, flags=r.choice((0xC, 0xA, 0x8))) for kind in kinds]
        self.gdt = b"".join(table)
        self.put(GDT, self.gdt)
        self.put(LDT, b"".join(descriptor(r.choice(kinds)) for _ in range(8)))
        self.put(TSS + 4, struct.pack("<Q", STACK - 0x800))
        self.put(ROOT, struct.pack("<Q", POINTERS | 0x27))
        self.put(POINTERS, struct.pack("<Q", DIRECTORY | 0x27))
        self.put(DIRECTORY, struct.pack("<Q", 0xE7))
        self.put(SCRATCH, r.randbytes(256))
        self.put(0x500, self.boot())
        code = self.msr_write(STAR, (USER_32 << 16 | KERNEL_64) << 32)
        code += self.operations(r.randrange(2, 14), kernel=True)
        code += r.choice((b"\xf4", self.to_user(), self.to_user(), self.system_return()))
        self.put(CODE, code)
        user = self.operations(r.randrange(5), kernel=False)
        self.put(USER_AT, user + self.random.choice((b"\xf4", b"\xfa", b"\x0f\x06")))
        assert self.count < 0x200

    def put(self, addr: int, data: bytes) -> None:
        self.memory[addr : addr + len(data)] = data

    def boot(self) -> bytes:
        """32-bit code that goes to CODE in 64-bit mode, with NX and SYSCALL enabled."""
        code = b"\xb8" + struct.pack("<I", ROOT) + b"\x0f\x22\xd8\xb8\x20\x00\x00\x00\x0f\x22\xe0"
        code += b"\xb9\x80\x00\x00\xc0\x31\xd2\xb8\x01\x09\x00\x00\x0f\x30\xb8\x33\x00\x01\x80\x0f\x22\xc0"
        return code + b"\xea" + struct.pack("<IH", CODE, KERNEL_64)

    def load(self, value: int) -> bytes:
        return b"\x48\xb8" + struct.pack("<Q", value & (1 << 64) - 1)

    def msr_write(self, msr: int, value: int) -> bytes:
        return struct.pack("<BIBIBI", 0xB9, msr, 0xB8, value & 0xFFFFFFFF, 0xBA, value >> 32) + b"\x0f\x30"

    def msr_read(self, msr: int) -> bytes:
        return struct.pack("<BI", 0xB9, msr) + b"\x0f\x32\x48\xc1\xe2\x20\x48\x09\xd0"

    def log(self) -> bytes:
        self.count += 1
        return b"\x48\x89\x04\x25" + struct.pack("<I", LOG + 8 * self.count)

    def to_user(self) -> bytes:
        words = (USER_DATA, STACK - 0x100, self.random.choice((2, 0x202)), USER_64, USER_AT)
        return b"".join(b"\x68" + struct.pack("<I", word) for word in words) + b"\x48\xcf"

    def system_return(self) -> bytes:
        """SYSRET to user code."""
        return b"\xb9" + struct.pack("<I", USER_AT) + b"\x49\xc7\xc3\x02\x02\x00\x00\x48\x0f\x07"

    def selector(self) -> int:
        r = self.random
        return r.choice(
            (0, 3, KERNEL_DATA, USER_DATA, 8 * r.randrange(len(self.gdt) // 8 + 2) | r.choice((0, 0, 3, 4)))
        )

    def operations(self, count: int, kernel: bool) -> bytes:
        r = self.random
        makers = [self.flags, self.segment, self.inspect, self.stack]
        if kernel or r.random() < 0.2:
            makers += [self.control, self.control, self.msr, self.msr, self.tables, self.bases, self.far, self.system]
        return b"".join(r.choice(makers)() + self.log() for _ in range(count))

    def flags(self) -> bytes:
        value = self.random.getrandbits(22) & FLAGS | 2
        return b"\x68" + struct.pack("<I", value) + b"\x9d\x9c\x58" + self.random.choice((b"", b"", b"\xfc"))

    def segment(self) -> bytes:
        number = self.random.choice((0, 3, 4, 5, 2))
        selector = self.selector()
        if number == 2 and selector < 4:
            selector = KERNEL_DATA  # Unicorn takes null selectors of any RPL
        code = self.load(selector) + bytes([0x8E, 0xC0 | number << 3]) if self.random.random() < 0.8 else b""
        return code + bytes([0x48, 0x8C, 0xC0 | number << 3])

    def inspect(self) -> bytes:
        """LAR, LSL, VERR, VERW; and what ZF became."""
        code = b"\x31\xdb\xb9" + struct.pack("<I", self.selector())
        # LAR leaves bits 19 to 16 undefined.
        lar, lsl, verr, verw = (
            b"\x0f\x02\xd9\x81\xe3\x00\xff\xf0\x00",
            b"\x0f\x03\xd9",
            b"\x0f\x00\xe1",
            b"\x0f\x00\xe9",
        )
        code += self.random.choice((lar, lsl, verr, verw, b"\x48" + lsl))
        return code + b"\x0f\x94\xc0\x0f\xb6\xc0\xc1\xe0\x1f\x48\x01\xd8"

    def stack(self) -> bytes:
        return self.random.choice(
            (b"\x50\x58", b"\x66\x50\x66\x58", b"\x0f\xa0\x58", b"\xc8\x10\x00\x02\xc9", b"\x6a\xff\x58")
        )

    def control(self) -> bytes:
        r = self.random
        number = r.choice((0, 0, 2, 3, 4, 4))
        code = bytes([0x0F, 0x20, 0xC0 | number << 3])
        if number == 2:
            return self.load(r.getrandbits(64)) + b"\x0f\x22\xd0\x0f\x20\xd0"
        bits = {0: (1, 2, 3, 16, 18, 30), 3: (3, 4), 4: (2, 3, 4, 7)}[number]
        bit = r.choice(bits)
        code += b"\x48\x0f\xba" + bytes([r.choice((0xE8, 0xF0)), bit])  # BTS, BTR
        return code + bytes([0x0F, 0x22, 0xC0 | number << 3, 0x0F, 0x20, 0xC0 | number << 3])

    def msr(self) -> bytes:
        r = self.random
        msr = r.choice(MSRS[3:]) if r.random() < 0.6 else r.choice(MSRS)
        value = r.choice(
            (SCRATCH, r.getrandbits(31), 0xFFFF800000000000 | r.getrandbits(40), 0x7FFF00000000 | r.getrandbits(32))
        )
        if msr in (STAR, LSTAR):
            return self.msr_read(msr)
        if msr == 0x174:
            value &= 0xFFFF  # the CPU in question keeps no more
        if msr == SFMASK:
            value &= 0x7FFFFFFF
        return (self.msr_write(msr, value) if r.random() < 0.7 else b"") + self.msr_read(msr)

    def bases(self) -> bytes:
        """FS, GS and SWAPGS as seen through an access."""
        r = self.random
        code = self.msr_write(r.choice((0xC0000100, 0xC0000101, 0xC0000102)), SCRATCH + 8 * r.randrange(8))
        code += r.choice((b"", b"\x0f\x01\xf8"))
        prefix = r.choice((b"\x64", b"\x65"))
        return code + prefix + b"\x48\x8b\x04\x25" + struct.pack("<I", 0 if r.random() < 0.9 else 8)

    def tables(self) -> bytes:
        r = self.random
        place = struct.pack("<I", SCRATCH + 0x40)
        kind = r.randrange(6)
        if kind == 0:
            return b"\x0f\x01\x04\x25" + place + b"\x48\x8b\x04\x25" + place  # SGDT
        if kind == 1:
            return b"\x0f\x01\x0c\x25" + place + b"\x48\x8b\x04\x25" + place  # SIDT
        if kind == 2:
            limit = r.choice((len(self.gdt) - 1, len(self.gdt) - 1, 0x6F))
            self.put(SCRATCH + 0x60, struct.pack("<HQ", limit, GDT))
            return b"\x0f\x01\x14\x25" + struct.pack("<I", SCRATCH + 0x60)  # LGDT
        if kind == 3:
            return self.load(r.choice((LDT_AT, 0, TSS_AT, self.selector()))) + b"\x0f\x00\xd0\x0f\x00\xc0"  # LLDT, SLDT
        if kind == 4:
            return (
                self.load(r.choice((TSS_AT, TSS_AT, LDT_AT, USER_64, 0xFFF8))) + b"\x0f\x00\xd8\x0f\x00\xc8"
            )  # LTR, STR
        return b"\x0f\x00\xc8"

    def far(self) -> bytes:
        """IRETQ and RETFQ to the next instruction: a far return by way of a call that puts it on the stack."""
        r = self.random
        selector = r.choice((KERNEL_64, KERNEL_64, KERNEL_DATA, USER_64, TSS_AT, 0, 3))
        if r.random() < 0.5:  # lea 7(%rip); push selector; push rax; retfq
            return b"\x6a" + bytes([selector & 0x7F]) + b"\x48\x8d\x05\x03\x00\x00\x00\x50\x48\xcb"
        code = b"\x48\x89\xe0\x6a\x18\x50\x9c\x6a" + bytes([selector & 0x7F])
        return code + b"\x48\x8d\x05\x03\x00\x00\x00\x50\x48\xcf"

    def system(self) -> bytes:
        return self.random.choice(
            (
                b"\xfa\x9c\x58",
                b"\xfb\x9c\x58",
                b"\x0f\x06",
                b"\x0f\x09",
                b"\x0f\x01\x3c\x25\x00\x00\x00\x00",
                b"\x0f\x01\xe0",
            )
        )


def run_ours(program: Program) -> tuple[int | None, bytearray]:
    m = _core.Machine(ram_bytes=RAM)
    m.write(0, bytes(program.memory))
    settings = {"gdt_base": GDT, "gdt_limit": len(program.gdt) - 1, "idt_limit": 0, "rsp": STACK, "rip": 0x500}
    for name, value in settings.items():
        m.set_register(0, name, value)
    m.set_register(0, "rsi", 0)
    m.tap = True
    m.execute(struct.pack("<BBHIQ", _core.RUN, 0, 0, 0, 400))
    count, _, _, _, _, _, kind, _, _, info = m.events()
    faults = [info[n] for n in range(count) if kind[n] == _core.EVENT_KINDS["fault"]]
    return (faults[0] if faults else None), bytearray(m.read(0, RAM))


def run_unicorn(program: Program) -> tuple[int | None, bytearray]:
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_QEMU64)
    uc.mem_map(0, RAM)
    uc.mem_write(0, bytes(program.memory))
    uc.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, len(program.gdt) - 1, 0))
    uc.reg_write(x86.UC_X86_REG_IDTR, (0, 0, 0, 0))
    uc.reg_write(x86.UC_X86_REG_CS, BOOT_32)
    for name in ("DS", "ES", "SS", "FS", "GS"):
        uc.reg_write(getattr(x86, f"UC_X86_REG_{name}"), KERNEL_DATA)
    uc.reg_write(x86.UC_X86_REG_ESP, STACK)
    faults: list[int] = []

    def on_exception(engine: unicorn.Uc, number: int, _: object) -> None:
        faults.append(number)
        engine.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_INTR, on_exception)
    try:
        uc.emu_start(0x500, RAM - 1, count=400)
    except unicorn.UcError as error:
        faults.append(6 if error.errno == unicorn.UC_ERR_INSN_INVALID else -int(error.errno))
    return (faults[0] if faults else None), bytearray(uc.mem_read(0, RAM))


def compare(seed: int) -> tuple[list[str], int | None]:
    program = Program(seed)
    (our_fault, ours), (their_fault, theirs) = run_ours(program), run_unicorn(program)
    found = []
    if our_fault != their_fault:
        found.append(f"exception: Unicorn {their_fault}, ours {our_fault}")
    for start, size in ((GDT, len(program.gdt)), (LDT, 64)):
        for at in range(start + 5, start + size, 8):
            if theirs[at] & 0x18 == 0x18:  # Unicorn does not mark code segments as accessed in far transfers
                theirs[at] |= 1
                ours[at] |= 1
    if ours != theirs:
        bad = [at for at in range(0, RAM, 8) if ours[at : at + 8] != theirs[at : at + 8]]
        found += [
            f"[{at:#x}] Unicorn {theirs[at : at + 8][::-1].hex()}, ours {ours[at : at + 8][::-1].hex()}"
            for at in bad[:5]
        ]
    return found, our_fault


def check(seeds: range) -> None:
    failures = []
    for seed in seeds:
        found, _ = compare(seed)
        if found:
            failures.append(f"seed {seed}: " + "; ".join(found))
    assert not failures, f"{len(failures)} of {len(seeds)} programs differ:\n" + "\n".join(failures[:20])


@pytest.mark.parametrize("start", range(0, 600, 200))
def test_long_mode_programs(start: int) -> None:
    check(range(start, start + 200))


@pytest.mark.soak
@pytest.mark.parametrize("start", range(100_000, 150_000, 5000))
def test_long_mode_programs_soak(start: int) -> None:
    check(range(start, start + 5000))


def test_long_mode_programs_end_in_many_ways() -> None:
    ends = {compare(seed)[1] for seed in range(150)}
    assert {None, 13} <= ends
