"""Ways between privileges and between 64-bit and compatibility mode; descriptors that instructions look at.

Intel SDM vol. 2: INT, IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, LAR, LSL, VERR, VERW, ARPL; vol. 3: 5.8, 6.14.
"""

import pytest
from bare_world import (
    GP,
    HANDLERS,
    KERNEL,
    KERNEL_STACK,
    NP,
    PF,
    SPARE,
    SS,
    STACK,
    TABLES,
    TSS,
    UD,
    USER_CODE,
    USER_STACK,
    Frame,
    World,
    faults,
)

from machine.bare_tables import (
    KERNEL_CODE,
    KERNEL_CODE_32,
    KERNEL_DATA,
    USER_CODE_32,
    USER_CODE_64,
    USER_DATA,
    descriptor,
)

HIGH = 0xFFFF_8000_0000_0000
STAR = (USER_CODE_32 << 16 | KERNEL_CODE) << 32
NON_CANONICAL = 0x0000_8000_0000_0000


def registers(world: World, *names: str) -> list[int]:
    state = world.m.registers()
    return [state[name] for name in names]


# --- interrupts and IRET ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("trap", [False, True])
def test_to_the_kernel_and_back(bits: int, trap: bool) -> None:
    world = World(bits, user=True)
    world.m.gate(0x30, KERNEL, user=True, trap=trap)
    world.m.load(KERNEL, "iretq" if bits == 64 else "iret")
    world.load("int $0x30; nop")
    world.m.set(if_=1, cf=1, nt=1, rsp=USER_STACK - 4)
    before = world.m.registers()
    world.step()
    size = bits // 8
    assert registers(world, "cpl", "cs", "rip") == [0, KERNEL_CODE, KERNEL]
    assert world.m.get("rsp") == STACK - 5 * size
    assert [world.m.get(name) for name in ("if_", "cf", "nt", "tf")] == [int(trap), 1, 0, 0]
    words = [world.m.read_int(STACK - size * n, size) for n in range(5, 0, -1)]
    assert words == [USER_CODE + 2, before["cs"], before["rflags"], before["rsp"], USER_DATA]
    world.step()
    after = world.m.registers()
    for name in ("cs", "ss", "ds", "rsp", "rflags", "cpl", "rax"):
        assert after[name] == before[name], name
    assert after["rip"] == USER_CODE + 2


@pytest.mark.parametrize("misalignment", range(16))
def test_64_bit_frames_are_aligned(misalignment: int) -> None:
    """SDM vol. 3, 6.14.2: RSP is aligned to 16 bytes before the frame is pushed, also without a change of stack."""
    world = World()
    world.m.set(rsp=KERNEL_STACK - 0x100 + misalignment)
    frame = world.run("int $0x30")
    assert frame == Frame(0x30, None, KERNEL + 2, KERNEL_CODE, 2, KERNEL_STACK - 0x100 + misalignment, KERNEL_DATA)
    assert world.m.get("rsp") == KERNEL_STACK - 0x100 - 40


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("number", range(1, 8))
def test_interrupt_stack_table(user: bool, number: int) -> None:
    """SDM vol. 3, 6.14.5: an IST stack is taken whatever the privilege was."""
    world = World(user=user)
    for n in range(1, 8):
        world.m.write_int(TSS + 36 + 8 * (n - 1), STACK + 0x1000 + 0x100 * n, 8)
    world.m.gate(UD, HANDLERS + 16 * UD, interrupt_stack=number)
    rsp = world.m.get("rsp")
    frame = world.run("ud2")
    assert frame is not None
    assert (frame.vector, frame.rsp, frame.ss) == (UD, rsp, USER_DATA if user else KERNEL_DATA)
    assert world.m.get("rsp") == STACK + 0x1000 + 0x100 * number - 40


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("cs", "ss", "vector", "error"),
    [
        (0, USER_DATA, GP, 0),
        (3, USER_DATA, GP, 0),
        (USER_DATA, USER_DATA, GP, USER_DATA & ~3),
        (0x801, USER_DATA, GP, 0x800),
        (KERNEL_CODE | 3, USER_DATA, GP, KERNEL_CODE),
        (USER_CODE_32 & ~3, USER_DATA, GP, USER_CODE_32 & ~3),
        (0x203, USER_DATA, NP, 0x200),
        (USER_CODE_32, 0, GP, 0),
        (USER_CODE_32, KERNEL_DATA, GP, KERNEL_DATA),
        (USER_CODE_32, USER_DATA & ~3, GP, USER_DATA & ~3),
        (USER_CODE_32, USER_CODE_32, GP, USER_CODE_32 & ~3),
        (USER_CODE_32, 0x20B, SS, 0x208),
        (USER_CODE_32, 0x803, GP, 0x800),
    ],
)
def test_iret_checks_its_selectors(bits: int, cs: int, ss: int, vector: int, error: int) -> None:
    world = World(bits)
    world.descriptor(0x200, descriptor(0x7B))
    world.descriptor(0x208, descriptor(0x73))
    size = bits // 8
    world.m.set(rsp=KERNEL_STACK - 0x100)
    for n, word in enumerate((USER_CODE, cs, 0x202, USER_STACK, ss)):
        world.m.write_int(KERNEL_STACK - 0x100 + n * size, word, size)
    frame = world.run("iretq" if bits == 64 else "iret")
    assert frame is not None
    assert (frame.vector, frame.error, frame.rip, frame.cs) == (vector, error, KERNEL, KERNEL_CODE)
    if bits == 64:
        assert (frame.rsp, frame.ss) == (KERNEL_STACK - 0x100, KERNEL_DATA)


def iretq(world: World, *words: int) -> None:
    world.m.set(rsp=KERNEL_STACK - 0x100)
    for n, word in enumerate(words):
        world.m.write_int(KERNEL_STACK - 0x100 + n * 8, word, 8)


def test_iretq_to_an_address_that_is_not_canonical() -> None:
    world = World()
    iretq(world, NON_CANONICAL, USER_CODE_64, 0x202, USER_STACK, USER_DATA)
    frame = world.run("iretq")
    assert frame is not None
    assert (frame.vector, frame.error, frame.cs, frame.rip) == (GP, 0, KERNEL_CODE, KERNEL)


def test_iretq_takes_its_stack_without_a_change_of_privilege_too() -> None:
    world = World()
    iretq(world, KERNEL + 0x100, KERNEL_CODE, 0x203, 0x1234, 0)  # a null SS is one for a 64-bit kernel
    world.load("iretq")
    assert world.step().of("fault") == []
    assert registers(world, "rip", "rsp", "ss", "rflags") == [KERNEL + 0x100, 0x1234, 0, 0x203]


def test_a_nested_task_returns_nowhere_in_long_mode() -> None:
    world = World()
    iretq(world, KERNEL, KERNEL_CODE, 2, 0, 0)
    world.m.set(nt=1)
    frame = world.run("iretq")
    assert frame is not None
    assert (frame.vector, frame.error) == (GP, 0)


@pytest.mark.parametrize("iopl", [0, 3])
def test_flags_that_iret_and_popf_may_change(iopl: int) -> None:
    """SDM vol. 2, POPF table 4-17."""
    everything = 0x3F7FD7 & ~0x100 & ~0x20000 & ~0x180000 & ~0x10000
    world = World(user=True)
    world.m.set(rflags=2 | iopl << 12)
    world.load(f"push ${everything & ~0x4000:#x}; popfq; pushfq; pop %rax")
    run = world.step(4)
    assert run.of("fault") == []
    expected = (everything & ~0x4000 & ~0x3200) | iopl << 12 | (0x200 if iopl == 3 else 0) | 2
    assert world.m.get("rax") == expected


def test_segments_of_the_kernel_are_taken_from_the_user() -> None:
    world = World()
    world.m.set(ds=KERNEL_DATA, es=USER_DATA, fs=KERNEL_CODE, gs=USER_DATA)
    iretq(world, USER_CODE, USER_CODE_64, 2, USER_STACK, USER_DATA)
    world.load("iretq")
    world.step()
    assert registers(world, "ds", "es", "fs", "gs") == [0, USER_DATA, 0, USER_DATA]


# --- compatibility mode ---


def test_compatibility_mode_and_back() -> None:
    """A far return into 32-bit code, 32-bit arithmetic and addresses there, and a far jump back to 64 bits."""
    world = World()
    world.load("push $8; push $0x51000; lretq")
    world.m.load(0x51000, f"movl $-1,%eax; inc %eax; dec %eax; push %eax; ljmp ${KERNEL_CODE},$0x51100", bits=32)
    world.m.load(0x51100, "mov $0x1122334455667788,%rcx; hlt")
    world.m.set(rax=-1, rdx=-1)
    world.step(3)
    assert registers(world, "bits", "cs", "rip", "efer") == [32, KERNEL_CODE_32, 0x51000, 0xD00]
    rsp = world.m.get("rsp")
    run = world.step(4)
    assert run.of("fault") == []
    assert world.m.get("rsp") == rsp - 4
    assert [(event.size, event.value) for event in run.of("store")] == [(4, 0xFFFFFFFF)]
    world.step(2)
    assert registers(world, "bits", "cs", "rcx") == [64, KERNEL_CODE, 0x1122334455667788]


def test_addresses_wrap_at_4_gb_in_compatibility_mode() -> None:
    world = World()
    world.m.map(0, 0x1000)
    world.load("push $8; push $0x51000; lretq")
    world.m.load(0x51000, "movl $0x77,0x10(%eax)", bits=32)
    world.m.set(rax=0xFFFF_FFF8)
    world.step(3)
    (store,) = world.step().of("store")
    assert store.addr == 8


def compatibility_user() -> World:
    """A user in 32-bit code under a 64-bit kernel."""
    world = World()
    iretq(world, USER_CODE, USER_CODE_32, 2, USER_STACK, USER_DATA)
    world.load("iretq")
    world.step()
    assert registers(world, "bits", "cpl", "cs") == [32, 3, USER_CODE_32]
    return world


def test_an_interrupt_of_a_compatibility_mode_user() -> None:
    """SDM vol. 3, 6.14.2: the frame is that of 64 bits whatever the interrupted code was."""
    world = compatibility_user()
    world.m.gate(0x30, HANDLERS + 16 * 0x30, user=True)
    world.m.load(USER_CODE, "int $0x30", bits=32)
    frame = world.until_handler()
    assert frame == Frame(0x30, None, USER_CODE + 2, USER_CODE_32, 2, USER_STACK, USER_DATA)
    assert registers(world, "bits", "ss", "rsp") == [64, 0, STACK - 40]


@pytest.mark.parametrize("code", [USER_CODE_32, USER_CODE_64])
@pytest.mark.parametrize("place", ["stack", "idt", "gdt", "tss"])
def test_an_interrupt_from_the_user_to_a_high_kernel(code: int, place: str) -> None:
    """System tables and the kernel's stack have 64-bit addresses while long mode is active, whatever code runs."""
    world = World()
    m = world.m
    for at in (TABLES, TABLES + 0x1000, STACK - 0x2000, STACK - 0x1000):
        m.map(HIGH + at, phys=m.machine.translate(0, at))
    if place == "stack":
        m.write_int(TSS + 4, HIGH + STACK, 8)
        m.unmap(STACK - 0x2000, 0x2000)
    else:
        low = {"idt": TABLES + 0x1000, "gdt": TABLES, "tss": TSS}[place]
        m.set(**{{"tss": "tr"}.get(place, place) + "_base": HIGH + low})
    iretq(world, USER_CODE, code, 2, USER_STACK, USER_DATA)
    world.load("iretq")
    world.step()
    assert m.get("cs") == code
    m.gate(0x30, HANDLERS + 16 * 0x30, user=True)
    m.write(USER_CODE, b"\xcd\x30")  # INT 30, in either size
    run = world.step()
    assert run.of("fault") == []
    assert [event for event in run.of("load", "store") if event.addr >= HIGH]
    assert registers(world, "cs", "bits") == [KERNEL_CODE, 64]
    assert world.frame() == Frame(0x30, None, USER_CODE + 2, code, 2, USER_STACK, USER_DATA)


# --- SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS ---


def test_syscall_and_sysret() -> None:
    world = World(user=True)
    world.m.set(efer=world.m.get("efer") | 1, star=STAR, lstar=KERNEL + 0x10, sfmask=0x40701, cf=1, if_=1, ac=1, df=1)
    world.m.set(rcx=5, r11=6)
    world.load("syscall; nop")
    world.m.load(KERNEL + 0x10, "sysretq")
    flags = world.m.get("rflags")
    world.step()
    state = world.m.registers()
    assert (state["rip"], state["cs"], state["ss"], state["cpl"]) == (KERNEL + 0x10, KERNEL_CODE, KERNEL_DATA, 0)
    assert (state["rcx"], state["r11"], state["rsp"]) == (USER_CODE + 2, flags, USER_STACK)
    assert state["rflags"] == flags & ~0x40701 | 2
    world.step()
    state = world.m.registers()
    assert (state["rip"], state["cs"], state["ss"], state["cpl"]) == (USER_CODE + 2, USER_CODE_64, USER_DATA, 3)
    assert (state["rflags"], state["bits"]) == (flags, 64)


def test_sysret_to_32_bits() -> None:
    world = World()
    world.m.set(efer=world.m.get("efer") | 1, star=STAR, rcx=0xAAAA_0000_0000 | USER_CODE, r11=0x10202)
    world.load("sysretl")
    world.step()
    state = world.m.registers()
    assert (state["rip"], state["cs"], state["ss"], state["bits"]) == (USER_CODE, USER_CODE_32, USER_DATA, 32)
    assert state["rflags"] == 0x202  # RF is cleared


@pytest.mark.parametrize(
    ("text", "user", "values", "vector"),
    [
        ("syscall", True, {"efer": 0xD00}, UD),
        ("sysretq", False, {"efer": 0xD00}, UD),
        ("sysretq", True, {}, GP),
        ("sysretl", True, {}, GP),
        ("sysretq", False, {"rcx": NON_CANONICAL}, GP),
        ("sysenter", True, {"sysenter_cs": 0}, GP),
        ("sysenter", True, {"sysenter_cs": 3}, GP),
        ("sysexitl", False, {"sysenter_cs": 0}, GP),
        ("sysexitq", False, {"sysenter_cs": KERNEL_CODE, "rdx": NON_CANONICAL}, GP),
        ("sysexitq", False, {"sysenter_cs": KERNEL_CODE, "rcx": NON_CANONICAL}, GP),
        ("sysexitq", True, {"sysenter_cs": KERNEL_CODE}, GP),
        ("swapgs", True, {}, GP),
        ("lock; swapgs", True, {}, UD),
    ],
)
def test_what_system_calls_refuse(text: str, user: bool, values: dict[str, int], vector: int) -> None:
    world = World(user=user)
    world.m.set(efer=0xD01, star=STAR)
    world.m.set(**values)
    frame = world.run(text)
    assert frame is not None
    assert (frame.vector, frame.error or 0, frame.rip) == (vector, 0, world.code)
    assert frame.cs == (USER_CODE_64 if user else KERNEL_CODE)


def test_syscall_is_undefined_outside_64_bit_code() -> None:
    world = compatibility_user()
    world.m.set(efer=0xD01, star=STAR)
    world.m.load(USER_CODE, "syscall", bits=32)
    frame = world.until_handler()
    assert frame is not None
    assert frame.vector == UD
    for text in ("syscall", "sysret", "swapgs"):
        legacy = World(32)
        legacy.m.set(efer=0x801)
        legacy.load(bytes.fromhex({"syscall": "0f05", "sysret": "0f07", "swapgs": "0f01f8"}[text]))
        assert faults(legacy.step())[0] == (UD, 0)


@pytest.mark.parametrize("bits", [32, 64])
def test_sysenter_and_sysexit(bits: int) -> None:
    world = World(bits, user=True)
    world.m.set(sysenter_cs=KERNEL_CODE | 3, sysenter_esp=STACK - 64, sysenter_eip=KERNEL, if_=1, cf=1)
    world.load("sysenter")
    world.m.load(KERNEL, "sysexitl" if bits == 64 else "sysexit")
    world.step()
    state = world.m.registers()
    assert [state[n] for n in ("cs", "ss", "rip", "rsp", "cpl", "rflags", "bits")] == [
        KERNEL_CODE,
        KERNEL_DATA,
        KERNEL,
        STACK - 64,
        0,
        3,
        bits,
    ]
    world.m.set(rdx=USER_CODE | 0xF_0000_0000, rcx=USER_STACK | 0xF_0000_0000)
    world.step()
    state = world.m.registers()
    assert [state[n] for n in ("cs", "ss", "rip", "rsp", "cpl", "bits")] == [
        (KERNEL_CODE + 16) | 3,
        (KERNEL_CODE + 24) | 3,
        USER_CODE,
        USER_STACK,
        3,
        32,
    ]


def test_sysexit_to_64_bits() -> None:
    world = World()
    world.m.set(sysenter_cs=KERNEL_CODE, rdx=USER_CODE, rcx=0x7FFF_FFFF_0000)
    world.load("sysexitq")
    world.step()
    assert registers(world, "cs", "ss", "rip", "rsp", "bits") == [0x33, 0x3B, USER_CODE, 0x7FFF_FFFF_0000, 64]


def test_swapgs() -> None:
    world = World()
    world.m.set(gs_base=0x41000 - 0x1000 + HIGH, kernel_gs_base=USER_STACK - 0x1000, rax=7)
    world.load("swapgs; mov %rax,%gs:8; swapgs")
    (store,) = world.step(2).of("store")
    assert store.addr == USER_STACK - 0x1000 + 8
    assert registers(world, "gs_base", "kernel_gs_base") == [USER_STACK - 0x1000, 0x40000 + HIGH]
    world.step()
    assert registers(world, "gs_base", "kernel_gs_base") == [0x40000 + HIGH, USER_STACK - 0x1000]


# --- far transfers ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("selector", "vector", "error"),
    [
        (0, GP, 0),
        (KERNEL_DATA, GP, KERNEL_DATA),
        (USER_CODE_32, GP, USER_CODE_32 & ~3),
        (KERNEL_CODE | 3, GP, KERNEL_CODE),
        (0x200, NP, 0x200),
        (0x7F8 + 8, GP, 0x800),
        (0x208, None, 0),  # conforming
        (0x40, GP, 0x40),  # a TSS: tasks do not exist here
    ],
)
def test_far_jumps_check_their_selector(bits: int, selector: int, vector: int | None, error: int) -> None:
    world = World(bits)
    flags = 0xA if bits == 64 else 0xC
    world.descriptor(0x200, descriptor(0x1B, flags=flags))
    world.descriptor(0x208, descriptor(0x9F, flags=flags))
    world.m.write(KERNEL + 0x800, KERNEL.to_bytes(4, "little") + selector.to_bytes(2, "little"))
    for text in ("ljmpl *0x50800", "lcalll *0x50800"):
        world.stand()
        world.load(text)
        assert faults(world.step()) == ([] if vector is None else [(vector, error)]), text
        if vector is None:
            assert world.m.get("cs") == selector
    # A far return says the same of its selector, but for its privilege.
    if vector != GP or selector in (0, KERNEL_DATA):
        world.stand()
        world.load(f"push ${selector}; push ${KERNEL}; lret{'q' if bits == 64 else 'l'}")
        assert faults(world.step(3)) == ([] if vector is None else [(vector, error)])


def test_code_cannot_be_of_both_sizes() -> None:
    world = World()
    world.descriptor(0x200, descriptor(0x9B, flags=0xE))  # L and D
    world.m.write(KERNEL + 0x800, KERNEL.to_bytes(4, "little") + (0x200).to_bytes(2, "little"))
    world.load("ljmpl *0x50800")
    assert faults(world.step()) == [(GP, 0x200)]


def test_far_targets_that_are_not_canonical() -> None:
    world = World()
    world.m.write(KERNEL + 0x800, NON_CANONICAL.to_bytes(8, "little") + KERNEL_CODE.to_bytes(2, "little"))
    for text in (b"\x48\xff\x2c\x25\x00\x08\x05\x00", b"\x48\xff\x1c\x25\x00\x08\x05\x00"):  # REX.W LJMP, LCALL
        world.stand()
        world.load(text)
        assert faults(world.step()) == [(GP, 0)]
        assert world.m.get("cs") == KERNEL_CODE


def test_a_far_return_to_the_user() -> None:
    for bits in (32, 64):
        world = World(bits)
        code = USER_CODE_64 if bits == 64 else USER_CODE_32
        # With an immediate the inner stack has that many bytes of arguments between CS and RSP.
        world.load(
            f"push ${USER_DATA}; push ${USER_STACK}; sub $16,%{'r' if bits == 64 else 'e'}sp; push ${code};"
            f"push ${USER_CODE}; lret{'q' if bits == 64 else 'l'} $16"
        )
        assert world.step(6).of("fault") == []
        assert registers(world, "cs", "ss", "rip", "rsp", "cpl") == [code, USER_DATA, USER_CODE, USER_STACK + 16, 3]


# --- LAR, LSL, VERR, VERW, ARPL ---


def visible(access: int, dpl: int, cpl: int, rpl: int) -> bool:
    conforming = access & 0x1C == 0x1C
    return conforming or (dpl >= cpl and dpl >= rpl)


LAR_TYPES = {32: {1, 2, 3, 4, 5, 9, 11, 12}, 64: {2, 9, 11, 12}}
LSL_TYPES = {32: {1, 2, 3, 9, 11}, 64: {2, 9, 11}}
"""System descriptors that may be looked at: SDM vol. 2, LAR table 3-50 and LSL table 3-58."""


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("user", [False, True])
def test_every_descriptor_is_looked_at(bits: int, user: bool) -> None:
    world = World(bits, user=user)
    cpl = 3 if user else 0
    world.load(
        "lar %ecx,%eax; setz %dl; lsl %ecx,%ebx; setz %dh; verr %cx; setz %r8b; verw %cx; setz %r9b"
        if bits == 64
        else "lar %ecx,%eax; setz %dl; lsl %ecx,%ebx; setz %dh; verr %cx; sete 0x41000; verw %cx; sete 0x41001"
    )
    for access in range(0x80, 0x100):
        for rpl in (0, 3):
            dpl, kind = access >> 5 & 3, access & 0x1F
            world.descriptor(
                SPARE, descriptor(access, base=0x12345678, limit=0xABCDE, flags=0x9 if kind & 16 else 8) + bytes(8)
            )
            world.stand()
            world.m.set(rax=0xDEAD, rbx=0xBEEF, rcx=SPARE | rpl, rdx=0)
            assert world.step(8).of("fault") == []
            lar, lsl = world.m.get("rdx") & 1, world.m.get("rdx") >> 8 & 1
            if bits == 64:
                verr, verw = world.m.get("r8") & 1, world.m.get("r9") & 1
            else:
                verr, verw = world.m.read_int(0x41000, 1), world.m.read_int(0x41001, 1)
            seen = visible(access, dpl, cpl, rpl)
            data_or_code = bool(kind & 16)
            assert lar == (seen and (data_or_code or kind in LAR_TYPES[bits])), (hex(access), rpl)
            assert lsl == (seen and (data_or_code or kind in LSL_TYPES[bits])), (hex(access), rpl)
            assert verr == (seen and data_or_code and (not kind & 8 or bool(kind & 2))), (hex(access), rpl)
            assert verw == (seen and data_or_code and not kind & 8 and bool(kind & 2)), (hex(access), rpl)
            if lar:
                mask = 0xF0FF00  # bits 19 to 16 are undefined
                assert world.m.get("rax") & mask == (access << 8 | (0x90 if data_or_code else 0x80) << 16) & mask
            else:
                assert world.m.get("rax") == 0xDEAD
            assert world.m.get("rbx") == (0xABCDEFFF if lsl else 0xBEEF)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("selector", [0, 3, 0x4, 0xFFF8])
def test_selectors_of_nothing_are_not_seen(bits: int, selector: int) -> None:
    world = World(bits)
    for text in ("lar %cx,%ax", "lsl %cx,%ax", "verr %cx", "verw %cx"):
        world.stand()
        world.m.set(rcx=selector, zf=1, rax=5)
        world.load(text)
        assert world.step().of("fault") == []
        assert (world.m.get("zf"), world.m.get("rax")) == (0, 5)


def test_a_page_fault_while_looking_is_one() -> None:
    world = World(user=True)
    world.m.map(0x80000, 0x1000)
    world.m.set(gdt_base=0x80000 - 0x1000 - 0x200 + 0x1000, gdt_limit=0xFFFF, rcx=0x1200)
    world.load("lar %ecx,%eax")
    assert faults(world.step())[0] == (PF, 0)  # a supervisor's read, though privilege 3 runs


def test_arpl() -> None:
    world = World(32)
    for first in range(4):
        for second in range(4):
            world.stand()
            world.m.set(eax=0xABC0 | first, ecx=0x1230 | second)
            world.load("arpl %cx,%ax; nop")
            world.step()
            assert world.m.get("eax") == 0xABC0 | max(first, second)
            assert world.m.get("zf") == (first < second)


def test_tables_of_each_size() -> None:
    """LGDT and SGDT: ten bytes in 64-bit code; six otherwise, with 24 bits of base for 16-bit operands (SDM vol. 2)."""
    long = World()
    long.m.write(0x41000, bytes.fromhex("34128877665544800000"))
    long.m.write(0x41000, (0x1234).to_bytes(2, "little") + (HIGH + 0x55667788).to_bytes(8, "little"))
    long.load("lgdt 0x41000; lidt 0x41000; sgdt 0x41100; sidt 0x41200; data16 lgdt 0x41000")
    assert long.step(5).of("fault") == []
    assert long.m.read(0x41100, 11) == long.m.read(0x41000, 10) + b"\0" == long.m.read(0x41200, 11)
    assert registers(long, "gdt_base", "gdt_limit", "idt_base") == [HIGH + 0x55667788, 0x1234, HIGH + 0x55667788]
    short = World(32)
    short.m.write(0x41000, bytes.fromhex("341288776655 ffff"))
    short.m.write(0x41100, b"\xff" * 16)
    short.load("lgdt 0x41000; sgdt 0x41100; data16 lidt 0x41000")
    assert short.step(3).of("fault") == []
    assert short.m.read(0x41100, 8) == bytes.fromhex("341288776655 ffff")
    assert registers(short, "gdt_base", "idt_base") == [0x55667788, 0x667788]


def test_ltr_marks_its_descriptor_busy_and_takes_16_bytes_in_long_mode() -> None:
    for bits in (32, 64):
        world = World(bits)
        base = HIGH + 0x12340 if bits == 64 else 0x12340
        world.descriptor(SPARE, descriptor(0x89, base=base & 0xFFFFFFFF, limit=0x67, flags=0))
        world.descriptor(SPARE + 8, (base >> 32).to_bytes(8, "little"))
        world.load("mov $0x200,%eax; ltr %ax; str %ecx; ltr %ax")
        run = world.step(3)
        assert registers(world, "tr", "tr_base", "rcx") == [SPARE, base, SPARE]
        (store,) = run.of("store")
        assert (store.addr, store.value, "locked" in store.marks) == (TABLES + SPARE + 5, 0x8B, True)
        assert faults(world.step()) == [(GP, SPARE)]  # busy


@pytest.mark.parametrize(
    ("setup", "error"),
    [
        ("limit", SPARE),
        ("upper type", SPARE),
        ("not canonical", SPARE),
    ],
)
@pytest.mark.parametrize("text", ["ltr %ax", "lldt %ax"])
def test_system_descriptors_of_long_mode(setup: str, error: int, text: str) -> None:
    world = World()
    world.descriptor(SPARE, descriptor(0x89 if "ltr" in text else 0x82, limit=0x67, flags=0) + bytes(8))
    if setup == "limit":
        world.m.set(gdt_limit=SPARE + 7)
    elif setup == "upper type":
        world.m.write_int(TABLES + SPARE + 13, 0x1, 1)
    else:
        world.m.write_int(TABLES + SPARE + 8, 0x8000)
    world.load("mov $0x200,%eax; " + text)
    assert faults(world.step(2)) == [(GP, error)]


def test_a_local_descriptor_table() -> None:
    for bits in (32, 64):
        world = World(bits)
        world.descriptor(SPARE, descriptor(0x82, base=0x50800, limit=15, flags=0) + bytes(8))
        world.m.write(0x50808, descriptor(0x93, base=0x41000))
        world.load(
            "mov $0x200,%eax; lldt %ax; sldt %edx; mov $0xc,%eax; mov %eax,%fs; movl $5,%fs:4;"
            "mov $0x14,%eax; mov %eax,%fs"
        )
        run = world.step(8)
        assert [event.addr for event in run.of("store") if event.value == 5] == [0x41004]
        assert registers(world, "ldtr", "rdx") == [SPARE, SPARE]
        assert faults(run)[0] == (GP, 0x14)
        world.stand()
        world.load("xor %eax,%eax; lldt %ax; mov $0xc,%eax; mov %eax,%fs")
        assert faults(world.step(4)) == [(GP, 0xC)]
