"""System instructions of 64-bit code on our machine and on the emulator Unicorn, one random program after the other.

Unicorn runs without paging, we with linear addresses equal to physical ones. It hands exceptions to its caller, so a
program ends at its first one. Where Unicorn 2.1.4 differs from the manual, programs avoid the case: SYSCALL (a hook
takes it), CR8 (there is no APIC), values of control registers, code segments with both L and D (they are no #GP there),
null selectors for SS with an RPL, or with a return to 32-bit code. It does not set the accessed bit of code segments by
far jumps; and whether an instruction that faults has already set that bit is up to the processor.
"""

import random
from dataclasses import dataclass, field

import pytest
import unicorn
from unicorn import x86_const as x86

from machine import BareMachine
from machine.assembler import assemble
from machine.bare_tables import descriptor

CODE, GDT, DATA, STACK, TARGET, RAM = 0x4000, 0x1000, 0x8000, 0xC000, 0x6000, 0x10000
HLT = b"\xf4"
KERNEL_64, KERNEL_DATA = 0x10, 0x18
GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldtr")
COMPARED = (*GENERAL, *SELECTORS, "fs_base", "gs_base", "rip")
FLAGS = 0x3F7FD5 & ~0x10100 & ~0x180000  # not RF, which Unicorn's IRET leaves set, nor what programs never set
DESCRIPTORS = [
    # access byte, flags (G, D, L)
    (0x9B, 0xC),
    (0x9B, 0xA),
    (0x93, 0xC),
    (0xFB, 0xC),
    (0xF3, 0xC),
    (0xFB, 0xA),
    (0xF3, 0xC),
    (0x92, 0xC),
    (0x90, 0xC),
    (0x98, 0xA),
    (0x9E, 0xA),
    (0x9A, 0xA),
    (0xF0, 0xC),
    (0xFE, 0xA),
    (0x12, 0xC),
    (0x1A, 0xA),
    (0xB2, 0xC),
]
SYSTEM_KINDS = (0x89, 0x82, 0x8B, 0x8C, 0x8E, 0x09, 0x02)
IDENTIFIERS = {name: getattr(x86, f"UC_X86_REG_{name.upper()}") for name in (*GENERAL, *SELECTORS[:6], "rip", "rflags")}
IDENTIFIERS |= {"tr": x86.UC_X86_REG_TR, "ldtr": x86.UC_X86_REG_LDTR}
IDENTIFIERS |= {"fs_base": x86.UC_X86_REG_FS_BASE, "gs_base": x86.UC_X86_REG_GS_BASE}


@dataclass
class Program:
    """Machine code with the GDT it finds."""

    seed: int
    table: list[bytes] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    """Access bytes by number of the descriptor; 0 for none."""
    text: str = ""

    def __post_init__(self) -> None:
        self.r = r = random.Random(self.seed)
        self.table = [bytes(8)] + [descriptor(access, flags=flags) for access, flags in DESCRIPTORS]
        self.kinds = [0] + [access for access, _ in DESCRIPTORS]
        for kind in SYSTEM_KINDS:
            self.table += [descriptor(kind, base=0x3000, limit=0x67, flags=0), bytes(8)]
            self.kinds += [kind, 0]
        lines = [
            r.choice((self.load, self.look, self.system, self.bases, self.flags))() for _ in range(r.randrange(1, 8))
        ]
        if r.random() < 0.6:
            lines.append(r.choice((self.far, self.iretq, self.fast))())
        self.text = "; ".join(["xor %eax,%eax; mov %eax,%fs; mov %eax,%gs", *lines, "hlt"])

    def selector(self, *wanted: int) -> int:
        """Of any descriptor, or one with these access bytes; with a random RPL, seldom beyond the table."""
        r = self.r
        choices = [n for n, kind in enumerate(self.kinds) if not wanted or kind in wanted]
        number = r.choice(choices) if r.random() < 0.95 else r.randrange(len(self.kinds), 64)
        return number * 8 | r.choice((0, 0, 3))

    def not_null_3(self, selector: int) -> int:
        return 0 if selector == 3 else selector

    def load(self) -> str:
        segment = self.r.choice(("ds", "es", "fs", "gs", "ss"))
        if segment in ("fs", "gs") and self.r.random() < 0.5:
            return f"push ${self.selector()}; pop %{segment}"
        return f"mov ${self.not_null_3(self.selector())},%eax; mov %eax,%{segment}"

    def look(self) -> str:
        selector = self.selector()
        what = self.r.choice(("lar %ecx,%eax", "lsl %ecx,%eax", "lar %cx,%ax", "verr %cx", "verw %cx", "lsl %rcx,%rax"))
        undefined = "and $~0xf0000,%eax;" if what.startswith("lar") else ""  # bits 19 to 16: SDM vol. 2, LAR
        return f"mov ${selector},%ecx; mov $0x1234567,%eax; {what}; pushfq; {undefined} pop %r8"

    def system(self) -> str:
        r = self.r
        return r.choice(
            (
                f"mov ${self.selector(0x89, 0x8B, 0x82, 0x9B)},%eax; ltr %ax; str %r9",
                f"mov ${self.selector(0x82, 0, 0x89)},%eax; lldt %ax; sldt %r10d",
                f"sgdt {DATA}; mov {DATA + 2},%rbp",
                "clts; invlpg 0x123456; wbinvd",
            )
        )

    def bases(self) -> str:
        r = self.r
        number = r.choice((0xC0000100, 0xC0000101, 0xC0000102))
        value = r.choice((r.getrandbits(46), r.getrandbits(46) | 0xFFFF_8000_0000_0000))
        low, high = value & 0xFFFFFFFF, value >> 32
        write = f"mov ${number},%ecx; mov ${low},%eax; mov ${high},%edx; wrmsr"
        return r.choice((write, f"{write}; swapgs", f"mov ${number},%ecx; rdmsr", "swapgs"))

    def flags(self) -> str:
        value = self.r.getrandbits(22) & FLAGS & ~0x24000 | 2  # no NT, no VM
        return self.r.choice((f"push ${value}; popfq; pushfq; pop %rsi", "cli; pushfq; pop %rsi", "std; sahf; cld"))

    def code_selector(self) -> int:
        return self.selector(0x9B, 0xFB, 0x98, 0x9E, 0x9A, 0xFE, 0x1A, 0x93, 0)

    def far(self) -> str:
        if self.r.random() < 0.5:
            outer = f"push ${self.selector(0xF3, 0x93)}; push ${STACK - 64};" if self.r.random() < 0.9 else ""
            return f"{outer} push ${self.code_selector()}; push ${TARGET}; lretq"
        return f"movl ${TARGET},{DATA}; movw ${self.code_selector()},{DATA + 4}; ljmpl *{DATA}"

    def iretq(self) -> str:
        flags = self.r.getrandbits(22) & FLAGS & ~0x24000 | 2
        stack = self.not_null_3(self.selector(0xF3, 0x93, 0xB2, 0))
        code = self.code_selector() if stack else KERNEL_64
        return f"push ${stack}; push ${STACK - 128}; push ${flags}; push ${code}; push ${TARGET}; iretq"

    def fast(self) -> str:
        star = self.r.choice((0x23, 0x20)) << 16 | KERNEL_64
        setup = f"mov $0xc0000081,%ecx; mov ${star},%edx; wrmsr; mov ${TARGET},%ecx; mov $0x202,%r11d"
        return self.r.choice(
            (
                f"{setup}; sysretq",
                f"{setup}; sysretl",
                f"mov ${TARGET},%edx; mov ${STACK},%ecx; sysexitl",
                f"mov ${TARGET},%edx; mov ${STACK},%ecx; sysexitq",
            )
        )


def ours(program: Program, code: bytes) -> tuple[dict[str, int], int, bytes]:
    m = BareMachine(ram_bytes=1 << 20)
    for at in range(0, RAM, 0x1000):
        m.map(at, phys=at + 0x80000, user=True)
    m.write(0, bytes(RAM))
    m.write(GDT, b"".join(program.table))
    m.write(CODE, code)
    m.write(TARGET, HLT)
    m.set(rip=CODE, rsp=STACK, cs=KERNEL_64, ss=KERNEL_DATA, ds=KERNEL_DATA, es=KERNEL_DATA, fs=0, gs=0)
    m.set(gdt_base=GDT, gdt_limit=len(program.table) * 8 - 1, sysenter_cs=KERNEL_64, efer=m.get("efer") | 1)
    vector = -1
    for _ in range(200):
        run = m.step()
        if faults := run.of("fault"):
            vector = faults[0].info
        if vector >= 0 or run.reason != "plan" or run.of("halt"):
            break
    values = {name: m.get(name) for name in COMPARED} | {"rflags": m.get("rflags") & FLAGS}
    return values, vector, m.read(0, RAM)


def theirs(program: Program, code: bytes) -> tuple[dict[str, int], int, bytes]:
    u = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    u.mem_map(0, RAM)
    u.mem_write(GDT, b"".join(program.table))
    u.mem_write(CODE, code)
    u.mem_write(TARGET, HLT)
    u.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, len(program.table) * 8 - 1, 0))
    u.reg_write(x86.UC_X86_REG_CS, KERNEL_64)
    for name in ("ss", "ds", "es"):
        u.reg_write(IDENTIFIERS[name], KERNEL_DATA)
    u.reg_write(x86.UC_X86_REG_RSP, STACK)
    u.msr_write(0x174, KERNEL_64)
    u.msr_write(0xC0000080, u.msr_read(0xC0000080) | 1)
    vectors: list[int] = []

    def stop(emulator: unicorn.Uc, vector: int, _: object) -> None:
        vectors.append(vector)
        emulator.emu_stop()

    u.hook_add(unicorn.UC_HOOK_INTR, stop)
    try:
        u.emu_start(CODE, 0xFFF0, count=200)
    except unicorn.UcError as error:
        vectors.append({unicorn.UC_ERR_INSN_INVALID: 6}.get(error.errno, -2))
    values = {name: u.reg_read(IDENTIFIERS[name]) for name in COMPARED if name not in ("tr", "ldtr")}
    values |= {name: u.reg_read(IDENTIFIERS[name])[0] for name in ("tr", "ldtr")}
    values["rflags"] = u.reg_read(x86.UC_X86_REG_RFLAGS) & FLAGS
    return values, vectors[0] if vectors else -1, bytes(u.mem_read(0, RAM))


def without_accessed(program: Program, memory: bytes, data_too: bool) -> bytes:
    """Memory without the accessed bits of code segments, or of all."""
    data = bytearray(memory)
    for number, kind in enumerate(program.kinds):
        if kind & 0x18 == 0x18 or (kind & 0x10 and data_too):
            data[GDT + 8 * number + 5] &= ~1
    return bytes(data)


def difference(seed: int) -> str:
    """What differs, empty if nothing."""
    program = Program(seed)
    code = assemble(program.text, bits=64, origin=CODE).data
    mine, my_vector, my_memory = ours(program, code)
    their, their_vector, their_memory = theirs(program, code)
    found = [f"{name}: {mine[name]:#x} {their[name]:#x}" for name in mine if mine[name] != their[name]]
    if my_vector != their_vector:
        found.append(f"vector {my_vector} {their_vector}")
    faulted = my_vector >= 0
    my_memory = without_accessed(program, my_memory, faulted)
    their_memory = without_accessed(program, their_memory, faulted)
    if my_memory != their_memory:
        at = next(i for i in range(RAM) if my_memory[i] != their_memory[i])
        found.append(f"memory at {at:#x}: {my_memory[at]:#x} {their_memory[at]:#x}")
    return f"seed {seed}: {program.text}\n  " + "\n  ".join(found) if found else ""


def check(start: int, count: int) -> None:
    found = [text for seed in range(start, start + count) if (text := difference(seed))]
    assert found == []


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_system_programs_of_64_bits(start: int) -> None:
    check(start, 100)


@pytest.mark.soak
@pytest.mark.parametrize("start", range(1000, 11000, 1000))
def test_system_programs_of_64_bits_soak(start: int) -> None:
    check(start, 1000)


def test_programs_end_in_many_ways() -> None:
    """Of the sample, many run to their end and many fault, in each way that matters."""
    ends: dict[int, int] = {}
    for seed in range(150):
        program = Program(seed)
        _, vector, _ = ours(program, assemble(program.text, bits=64, origin=CODE).data)
        ends[vector] = ends.get(vector, 0) + 1
    assert ends[-1] > 20
    assert ends[13] > 30
    assert set(ends) >= {-1, 11, 13}
