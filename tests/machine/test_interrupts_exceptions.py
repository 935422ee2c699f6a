"""Exceptions of both modes: vectors, error codes, what is on the stack, and which comes first.

Intel SDM vol. 3: 6.5 (classes), 6.9 (priorities), 6.12 to 6.15; vol. 2 for what an instruction raises.
"""

import pytest
from bare_world import (
    AC,
    BP,
    BR,
    DB,
    DE,
    DF,
    GP,
    HANDLERS,
    IDT,
    KERNEL,
    KERNEL_STACK,
    NM,
    NP,
    OF,
    PF,
    SPARE,
    SS,
    STACK,
    TABLES,
    TS,
    TSS,
    UD,
    USER_CODE,
    USER_STACK,
    Frame,
    World,
    faults,
)

from machine import Run
from machine.bare_tables import KERNEL_CODE, KERNEL_DATA, USER_CODE_32, USER_CODE_64, USER_DATA, descriptor

NOWHERE = 0x0090_0000
NON_CANONICAL = 0x0000_8000_0000_0000

BOTH = [
    # text, vector, error code; the last instruction is the one that faults
    ("xor %ecx,%ecx; 1: div %ecx", DE, None),
    ("mov $2,%edx; mov $2,%ecx; 1: div %ecx", DE, None),
    ("mov $0x80000000,%eax; cltd; mov $-1,%ecx; 1: idiv %ecx", DE, None),
    ("1: ud2", UD, None),
    ("1: .byte 0xf0, 0x90", UD, None),  # LOCK NOP
    ("1: lock; mov %eax, 0x900000", UD, None),  # before the page fault
    ("1: .byte 0xf0, 0x01, 0xc0", UD, None),  # LOCK ADD to a register
    ("1: .byte 0xf0, 0x39, 0x00", UD, None),  # LOCK CMP writes nothing
    ("1: mov %eax, 0x900000", PF, 2),
    ("1: mov 0x900000, %eax", PF, 0),
    ("mov $0x900000,%ecx; 1: jmp *%{r}cx", PF, 0x10),
    ("mov $0x60000,%ecx; 1: mov %eax, 0x900000", PF, 2),
    ("mov $0x208,%eax; 1: mov %eax,%ds", NP, 0x208),
    ("mov $0x208,%eax; 1: mov %eax,%ss", SS, 0x208),
    ("mov $0x400,%eax; 1: mov %eax,%ds", GP, 0x400),  # an empty descriptor
    ("mov $0xfffb,%eax; 1: mov %eax,%es", GP, 0xFFF8),  # beyond the table
    ("mov $0x4,%eax; 1: mov %eax,%fs", GP, 4),  # no LDT
    ("mov $0x10,%eax; 1: mov %eax,%ss", GP, 0x10),  # code
    ("1: int $0xf0", NP, 0xF0 * 8 + 2),
    ("1: int3; 2:", BP, None),
    ("mov $0x900000,%eax; 1: lgdt (%{r}ax)", PF, 0),
    ("mov $0x1000000,%ecx; 1: wrmsr", GP, 0),
    ("mov $0x1000000,%ecx; 1: rdmsr", GP, 0),
    ("mov $0x208,%eax; 1: ltr %ax", GP, 0x208),
    ("xor %eax,%eax; 1: ltr %ax", GP, 0),
    ("mov $0x240,%eax; 1: ltr %ax", NP, 0x240),
    ("mov $0x44,%eax; 1: lldt %ax", GP, 0x44),
    ("mov $0x40,%eax; 1: lldt %ax", GP, 0x40),
    ("1: .fill 15, 1, 0x66; nop", GP, 0),
    ("1: .byte 0x0f, 0x20, 0xc8; nop", UD, None),  # MOV from CR1
    ("1: mov %cr0,%{r}ax; and $0xfffffffe,%eax; 2: mov %{r}ax,%cr0", GP, 0),
]


def is_trap(vector: int) -> bool:
    return vector in (BP, OF)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("text", "vector", "error"), BOTH)
def test_faults_of_the_kernel(bits: int, text: str, vector: int, error: int | None) -> None:
    world = World(bits)
    world.descriptor(0x208, descriptor(0x13))  # writable data, not present
    world.descriptor(0x240, descriptor(0x09, limit=0x67, flags=0) + bytes(8))  # a TSS, not present
    world.m.write(IDT + 0xF0 * bits // 4, bytes(bits // 4))  # a gate of type 0: see below
    world.m.gate(0xF0, 0x1234)
    at = IDT + 0xF0 * bits // 4 + 5
    world.m.write(at, bytes([world.m.read_int(at, 1) & 0x7F]))
    world.load(text.format(r="r" if bits == 64 else "e"))
    frame = world.until_handler()
    assert frame is not None
    assert (frame.vector, frame.error) == (vector, error)
    assert frame.cs == KERNEL_CODE
    rf = 0 if is_trap(vector) else 0x10000
    assert frame.rflags & 0x10000 == rf
    if bits == 64:
        assert (frame.rsp, frame.ss) == (KERNEL_STACK, KERNEL_DATA)
    if vector == PF:
        assert world.m.get("cr2") == NOWHERE


USERS = [
    ("hlt", GP, 0),
    ("cli", GP, 0),
    ("sti", GP, 0),
    ("in $0x60,%al", GP, 0),
    ("out %al,$0xe9", GP, 0),
    ("lgdt 0x900000", GP, 0),  # before the page fault
    ("lidt 0x900000", GP, 0),
    ("lldt 0x900000", GP, 0),
    ("ltr 0x900000", GP, 0),
    ("lmsw 0x900000", GP, 0),
    ("invlpg 0x900000", GP, 0),
    ("clts", GP, 0),
    ("wbinvd", GP, 0),
    ("invd", GP, 0),
    ("rdmsr", GP, 0),
    ("wrmsr", GP, 0),
    ("mov %cr0,%{r}ax", GP, 0),
    ("mov %{r}ax,%cr3", GP, 0),
    ("mov %dr7,%{r}ax", GP, 0),
    ("int $0x30", GP, 0x30 * 8 + 2),
    ("mov 0x50000,%eax", PF, 5),
    ("mov %eax,0x50000", PF, 7),
    ("mov %eax,0x900000", PF, 6),
    ("mov $0x50000,%eax; jmp *%{r}ax", PF, 0x15),
    ("mov $0x18,%eax; mov %eax,%ds", GP, 0x18),
    ("mov $0x18,%eax; mov %eax,%ss", GP, 0x18),
    ("xor %eax,%eax; mov %eax,%ss", GP, 0),
    ("mov $0x23,%eax; mov %eax,%ss", GP, 0x20),
    ("lock; hlt", UD, None),
    ("mov $0x50000,%eax; divl 0x900000", PF, 4),
    ("push %{r}ax; mov $0x900000,%esp; push %{r}ax", PF, 6),
    ("sysexit{q}", GP, 0),
]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("text", "vector", "error"), USERS)
def test_faults_of_the_user(bits: int, text: str, vector: int, error: int | None) -> None:
    world = World(bits, user=True)
    if text == "divl 0x900000":
        world.m.set(edx=0)
    frame = world.run(text.format(r="r" if bits == 64 else "e", q="q" if bits == 64 else ""))
    assert frame is not None
    assert (frame.vector, frame.error) == (vector, error)
    assert (frame.cs, frame.ss) == (USER_CODE_64 if bits == 64 else USER_CODE_32, USER_DATA)
    assert frame.rflags & 0x10000
    assert world.m.get("cpl") == 0
    size = bits // 8
    assert world.m.get("rsp") == STACK - size * (5 + (error is not None))
    assert world.m.get("ss") == (0 if bits == 64 else KERNEL_DATA)  # SDM vol. 3, 6.14.4: null with the new RPL


# --- 64-bit addresses (SDM vol. 1, 3.3.7.1; vol. 3, 6.15 on #SS and #GP) ---


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("mov (%rax),%ebx", GP),
        ("mov %ebx,(%rax)", GP),
        ("lock incl (%rax)", GP),
        ("mov (%rbp),%ebx", SS),
        ("mov %ebx,(%rbp)", SS),
        ("mov 8(%rsp,%rcx),%ebx", SS),
        ("lea 64(%rax),%rsp; push %rbx", SS),
        ("mov %rax,%rsp; pop %rbx", SS),
        ("lea 64(%rax),%rsp; call 1f; 1:", SS),
        ("mov %rax,%rsp; ret", SS),
        ("mov %rax,%rsp; iretq", SS),
        ("mov %rax,%rsi; lodsb", GP),
        ("mov %rax,%rdi; stosb", GP),
        ("jmp *%rax", GP),
        ("call *%rax", GP),
        ("push %rax; ret", GP),
        ("lgdt (%rax)", GP),
        ("movq %rax,0x41000; mov $0x41000 - 2, %edx; lgdt (%rdx)", GP),
        ("mov %rax,%rdx; shr $32,%rdx; mov $0xc0000100,%ecx; wrmsr", GP),
        ("mov %rax,%rdx; shr $32,%rdx; mov $0xc0000101,%ecx; wrmsr", GP),
        ("mov %rax,%rdx; shr $32,%rdx; mov $0xc0000102,%ecx; wrmsr", GP),
        ("mov %rax,%rdx; shr $32,%rdx; mov $0xc0000082,%ecx; wrmsr", GP),
        ("mov %rax,%rdx; shr $32,%rdx; mov $0x175,%ecx; wrmsr", GP),
        ("mov %rax,%rdx; shr $32,%rdx; mov $0x176,%ecx; wrmsr", GP),
        ("sub $4,%rax; mov (%rax),%rbx", GP),  # the second half is not canonical
        ("mov %fs:(%rax),%ebx", GP),
    ],
)
def test_addresses_that_are_not_canonical(text: str, vector: int) -> None:
    world = World()
    world.m.set(rax=NON_CANONICAL, rbp=NON_CANONICAL, rcx=NON_CANONICAL)
    world.m.map(0x41000 + 0x100000)
    world.m.map(0x7FFF_FFFF_F000)
    for table in (GP, SS):
        world.m.gate(table, HANDLERS + 16 * table, interrupt_stack=1)
    world.m.write_int(TSS + 36, STACK + 0x4000, 8)
    frame = world.run(text)
    assert frame is not None
    assert (frame.vector, frame.error) == (vector, 0)
    assert world.m.get("rsp") == STACK + 0x4000 - 48


def test_invlpg_of_a_non_canonical_address_does_nothing() -> None:
    world = World()
    world.m.set(rax=NON_CANONICAL)
    world.load("invlpg (%rax); nop")
    assert world.step(2).of("fault", "tlb_invalidate") == []


# --- segments of 32-bit code: #GP against #SS, before any page fault ---


@pytest.mark.parametrize(
    ("text", "vector"),
    [
        ("mov %fs:0x1000,%eax", GP),
        ("mov %fs:0xffd,%eax", GP),
        ("mov %eax,%fs:0xffffffff", GP),
        ("mov %eax,%gs:0", GP),  # not writable
        ("mov %eax,%cs:0x900000", GP),
        ("mov $0x200,%eax; mov %eax,%ss; mov $0x1002,%esp; pop %ecx", SS),
        ("mov $0x200,%eax; mov %eax,%ss; mov $2,%esp; push %ecx", SS),
        ("mov $0x200,%eax; mov %eax,%ss; mov $0x1000,%ebp; mov (%ebp),%al", SS),
        ("xor %eax,%eax; mov %eax,%ds; mov 0x900000,%eax", GP),
    ],
)
def test_segment_limits_come_before_pages(text: str, vector: int) -> None:
    world = World(32)
    world.descriptor(SPARE, descriptor(0x93, base=0x900000, limit=0xFFF, flags=4))
    world.descriptor(SPARE + 8, descriptor(0x91))
    world.load("mov $0x200,%eax; mov %eax,%fs; mov $0x208,%eax; mov %eax,%gs;" + text)
    run = world.step(8)
    assert faults(run)[0] == (vector, 0)


# --- #NM, #UD of what is not there (SDM vol. 3, 2.5 table 2-2) ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("cr0", "text", "vector"),
    [
        (0, "fninit", UD),
        (4, "fninit", NM),
        (8, "fninit", NM),
        (8, "fwait", None),
        (2, "fwait", None),
        (10, "fwait", NM),
        (4, "fldl 0x900000", NM),
        (0, "movaps %xmm0,%xmm1", UD),
        (8, "movaps %xmm0,%xmm1", UD),
        (0, "movq %mm0,%mm1", UD),
        (4, "emms", UD),
    ],
)
def test_no_floating_point(bits: int, cr0: int, text: str, vector: int | None) -> None:
    world = World(bits)
    world.m.set(cr0=world.m.get("cr0") | cr0)
    world.load(text + "; nop")
    run = world.step(1)
    assert faults(run) == ([] if vector is None else [(vector, 0)])


# --- delivery that fails (SDM vol. 3, 6.12, 6.13, 6.15 #DF and #TS) ---


@pytest.mark.parametrize("bits", [32, 64])
def test_gates_that_cannot_be_used(bits: int) -> None:
    size = bits // 4
    world = World(bits)
    cases: list[tuple[bytes, int, int]] = []
    good = world.m.read(IDT + 0x30 * size, size)

    def changed(**changes: int) -> bytes:
        data = bytearray(good)
        if "selector" in changes:
            data[2:4] = changes["selector"].to_bytes(2, "little")
        if "access" in changes:
            data[5] = changes["access"]
        return bytes(data)

    world.descriptor(0x208, descriptor(0x1B, flags=0xA if bits == 64 else 0xC))
    world.descriptor(0x210, descriptor(0xFB, flags=0xA if bits == 64 else 0xC))
    cases = [
        (changed(access=0x0E), NP, 0x182),
        (changed(access=0x80), GP, 0x182),
        (changed(access=0x8C), GP, 0x182),  # a call gate
        (changed(access=0x92), GP, 0x182),
        (changed(selector=0), GP, 0),
        (changed(selector=3), GP, 0),
        (changed(selector=0x800), GP, 0x800),
        (changed(selector=KERNEL_DATA), GP, KERNEL_DATA),
        (changed(selector=0x208), NP, 0x208),
        (changed(selector=0x213), GP, 0x210),  # less privileged than the code
        (changed(selector=TABLES & 0xFF | 0x40), GP, 0x40),
    ]
    if bits == 64:
        cases += [(changed(selector=0x08), GP, 0x08), (changed(access=0x86), GP, 0x182)]  # 32-bit code; a 16-bit gate
    for gate, vector, error in cases:
        world.m.write(IDT + 0x30 * size, gate)
        world.stand()
        frame = world.run("int $0x30")
        assert frame is not None
        assert (frame.vector, frame.error, frame.rip) == (vector, error, KERNEL), gate.hex()
        world.m.write(IDT + 0x30 * size, good)
        # The same for an exception: EXT is set, unless the exception makes it a double fault.
        old = world.m.read(IDT + UD * size, size)
        world.m.write(IDT + UD * size, gate)
        world.stand()
        frame = world.run("ud2")
        at_gate = error == 0x182
        assert frame is not None
        assert (frame.vector, frame.error) == (vector, (UD * 8 + 2 if at_gate else error) | 1), gate.hex()
        world.m.write(IDT + UD * size, old)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_idt_ends_somewhere(bits: int) -> None:
    world = World(bits)
    size = bits // 4
    for limit, fits in ((0x30 * size + size - 2, False), (0x30 * size + size - 1, True)):
        world.m.set(idt_limit=limit)
        world.stand()
        frame = world.run("int $0x30")
        assert frame is not None
        assert (frame.vector, frame.error) == ((0x30, None) if fits else (GP, 0x182))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("first", "text", "broken", "then"),
    [
        # SDM vol. 3, table 6-5: first exception, how its gate is broken, what comes of it
        (DE, "xor %ecx,%ecx; div %ecx", "gate", [DE, DF]),
        (GP, "mov $0x400,%eax; mov %eax,%ds", "gate", [GP, DF]),
        (NP, "mov $0x208,%eax; mov %eax,%ds", "gate", [NP, DF]),
        (SS, "mov $0x208,%eax; mov %eax,%ss", "gate", [SS, DF]),
        (PF, "mov 0x900000,%eax", "gate", [PF, DF]),
        (UD, "ud2", "gate", [UD, NP]),
        (NM, "fninit", "gate", [NM, NP]),
        (GP, "mov $0x400,%eax; mov %eax,%ds", "idt page", [GP, PF]),
        (UD, "ud2", "idt page", [UD, PF]),
    ],
)
def test_double_faults(bits: int, first: int, text: str, broken: str, then: list[int]) -> None:
    world = World(bits)
    size = bits // 4
    world.descriptor(0x208, descriptor(0x13))
    world.m.set(cr0=world.m.get("cr0") | 8)
    if broken == "gate":
        world.m.write(IDT + first * size + 5, b"\x0e")
    else:
        # The IDT moves so that the gates above that of `first` begin a page, and the page before them is not there.
        gates = world.m.read(IDT, 0x100 * size)
        world.m.map(0x100000, 0x3000)
        moved = 0x101000 - (first + 1) * size
        world.m.write(moved, gates)
        world.m.set(idt_base=moved)
        world.m.unmap(0x100000)
    world.load(text)
    frame = world.until_handler()
    run = Run("plan", 0, tuple(world.events))
    assert frame is not None
    assert [vector for vector, _ in faults(run)] == then
    assert frame.vector == then[-1]
    assert run.of("shutdown") == []
    if then[-1] == DF:
        assert frame.error == 0
    if then[-1] == NP:
        assert frame.error == first * 8 + 3


@pytest.mark.parametrize("bits", [32, 64])
def test_triple_fault_is_shutdown(bits: int) -> None:
    world = World(bits)
    world.m.set(idt_limit=0)
    world.load("ud2")
    run = world.step(1)
    assert run.reason == "shutdown"
    assert [vector for vector, _ in faults(run)] == [UD, GP, DF]
    assert len(run.of("shutdown")) == 1
    assert world.m.get("rip") == KERNEL


def test_double_fault_uses_its_stack_when_the_kernel_stack_is_gone() -> None:
    world = World()
    world.m.write_int(TSS + 36 + 8 * 2, STACK + 0x4000, 8)
    world.m.gate(DF, HANDLERS + 16 * DF, interrupt_stack=3)
    frame = world.run("mov $0x900000,%esp; push %rax")
    assert frame == Frame(DF, 0, KERNEL + 5, KERNEL_CODE, frame.rflags if frame else 0, 0x900000, KERNEL_DATA)
    assert world.m.get("rsp") == STACK + 0x4000 - 48
    assert world.m.get("cr2") == 0x900000 - 8


# --- #TS: stacks that the TSS names (SDM vol. 3, 6.15 #TS; 7.2.1) ---


@pytest.mark.parametrize(
    ("selector", "vector", "error"),
    [
        (0, TS, 0),
        (USER_DATA, TS, USER_DATA & ~3),
        (KERNEL_DATA | 1, TS, KERNEL_DATA),
        (KERNEL_CODE, TS, KERNEL_CODE),
        (0x208, TS, 0x208),  # read-only
        (0x210, SS, 0x210),  # not present
        (0x800, TS, 0x800),
    ],
)
def test_bad_stack_selectors_of_the_tss(selector: int, vector: int, error: int) -> None:
    world = World(32, user=True)
    world.descriptor(0x208, descriptor(0x91))
    world.descriptor(0x210, descriptor(0x13))
    world.m.write_int(TSS + 8, selector, 2)
    world.m.gate(0x30, HANDLERS, user=True)
    world.load("int $0x30")
    run = world.step(1)
    # The handler needs the same stack: what follows is a double fault and the end.
    assert faults(run)[:2] == [(vector, error), (DF, 0)]
    assert run.reason == "shutdown"


@pytest.mark.parametrize("bits", [32, 64])
def test_a_tss_too_short_for_its_stack(bits: int) -> None:
    world = World(bits, user=True)
    world.descriptor(SPARE, descriptor(0x89, base=TSS, limit=6, flags=0) + bytes(8))
    world.user = False
    world.stand()
    world.load("mov $0x200,%eax; ltr %ax")
    assert world.step(2).of("fault") == []
    world.user = True
    world.stand()
    world.m.gate(0x30, HANDLERS, user=True)
    world.load("int $0x30")
    assert faults(world.step(1))[0] == (TS, SPARE)


def test_a_stack_of_the_tss_that_is_not_canonical() -> None:
    world = World(user=True)
    world.m.write_int(TSS + 4, NON_CANONICAL, 8)
    world.m.gate(0x30, HANDLERS, user=True)
    world.m.gate(SS, HANDLERS + 16 * SS, interrupt_stack=1)
    world.m.write_int(TSS + 36, STACK, 8)
    frame = world.run("int $0x30")
    assert frame is not None
    assert (frame.vector, frame.error, frame.rip) == (SS, 0, USER_CODE)


# --- other ---


def test_bound_and_overflow() -> None:
    world = World(32)
    world.m.write_int(USER_STACK - 8, -5)
    world.m.write_int(USER_STACK - 4, 5)
    frame = world.run(f"mov $6,%eax; bound %eax,{USER_STACK - 8}")
    assert frame is not None
    assert (frame.vector, frame.rip) == (BR, KERNEL + 5)
    world.stand()
    frame = world.run("into; mov $0x7fffffff,%eax; inc %eax; into; hlt")
    assert frame is not None
    assert (frame.vector, frame.rip) == (OF, KERNEL + 8)
    long = World()
    assert faults_of(long, b"\xce") == [UD]  # INTO, BOUND, PUSHA, AAA, far CALL are none in 64-bit code
    for code in ("62 00", "60", "37", "9a 00 00 00 00 10 00", "06", "d4 0a", "82 c0 01", "c5 00"):
        assert faults_of(World(), bytes.fromhex(code)) == [UD], code


def faults_of(world: World, code: bytes) -> list[int]:
    world.load(code)
    return [vector for vector, _ in faults(world.step(1))]


def test_int1_is_a_trap_with_no_privilege_asked() -> None:
    for bits in (32, 64):
        world = World(bits, user=True)
        frame = world.run(b"\xf1")
        assert frame is not None
        assert (frame.vector, frame.error, frame.rip) == (DB, None, USER_CODE + 1)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_longest_instruction_has_15_bytes(bits: int) -> None:
    for prefixes, vector in ((14, None), (15, GP)):
        world = World(bits)
        world.load(b"\x66" * prefixes + b"\x90")
        assert [number for number, _ in faults(world.step(1))] == ([] if vector is None else [vector])


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("text", "size", "vector"),
    [
        ("mov 1(%{r}bx),%eax", 4, AC),
        ("mov 2(%{r}bx),%eax", 4, AC),
        ("mov 4(%{r}bx),%eax", 4, None),
        ("mov 1(%{r}bx),%ax", 2, AC),
        ("mov 2(%{r}bx),%ax", 2, None),
        ("mov 1(%{r}bx),%al", 1, None),
        ("mov %eax,3(%{r}bx)", 4, AC),
        ("lock addl $1,2(%{r}bx)", 4, AC),
        ("lea 2(%{r}bx),%{r}sp; push %{r}ax", 4, AC),
        ("lea 1(%{r}bx),%{r}si; lodsl", 4, AC),
        ("mov 0x900001,%eax", 4, AC),  # before the page fault
    ],
)
def test_alignment_checks(bits: int, text: str, size: int, vector: int | None) -> None:
    """SDM vol. 3, 6.15 #AC: privilege 3, CR0.AM and EFLAGS.AC together."""
    for privilege, mask, flag in ((3, 1, 1), (3, 0, 1), (3, 1, 0), (0, 1, 1)):
        world = World(bits, user=privilege == 3)
        world.m.set(cr0=world.m.get("cr0") | mask << 18, ac=flag, rbx=USER_STACK - 0x100)
        world.load(text.format(r="r" if bits == 64 else "e"))
        found = [row for row in faults(world.step(2)) if row[0] == AC]
        expected = [(AC, 0)] if vector and privilege == 3 and mask and flag else []
        assert found == expected, (privilege, mask, flag, size)
