"""Single step, breakpoints and the resume flag. Intel SDM vol. 3, chapter 17 (17.2, 17.3), 6.8.3, 6.9."""

import pytest
from bare_world import DB, GP, HANDLERS, KERNEL, KERNEL_STACK, PF, UD, USER_CODE, USER_STACK, World, faults

BS, BD = 1 << 14, 1 << 13
FIXED_6, FIXED_7 = 0xFFFF0FF0, 0x400
EXECUTE, WRITE, PORT, ACCESS = range(4)
SIZES = {1: 0, 2: 1, 8: 2, 4: 3}
WATCHED = USER_STACK - 0x800
RF, TF = 1 << 16, 1 << 8


def arm(world: World, number: int, kind: int, addr: int, size: int = 1, *, local: bool = True) -> None:
    """Set breakpoint `number`."""
    m = world.m
    enable = 1 << (2 * number + (0 if local else 1))
    m.set(**{f"dr{number}": addr})
    m.set(dr7=m.get("dr7") | enable | kind << (16 + 4 * number) | SIZES[size] << (18 + 4 * number))


def ret(world: World) -> str:
    return "iretq" if world.bits == 64 else "iret"


def trapped(world: World, count: int) -> list[tuple[int, int]]:
    """Let the handler of #DB do nothing but return; (offset of the next instruction, DR6's low bits) of each trap."""
    m = world.m
    m.load(HANDLERS + 16 * DB, ret(world))
    found = []
    for _ in range(count):
        run = world.step()
        if [vector for vector, _ in faults(run)] == [DB] and m.get("rip") == HANDLERS + 16 * DB:
            size = world.bits // 8
            found.append((m.read_int(m.get("rsp"), size) - world.code, m.get("dr6") & 0xE00F))
            m.set(dr6=0)
    return found


# --- single step ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("user", [False, True])
def test_a_trap_behind_each_instruction(bits: int, user: bool) -> None:
    world = World(bits, user=user)
    world.load("nop; mov %eax,%ecx; push %rax; pop %rcx; nop".replace("%r", "%r" if bits == 64 else "%e"))
    world.m.set(tf=1)
    assert trapped(world, 8) == [(1, BS), (3, BS), (4, BS), (5, BS)]
    assert world.m.get("tf") == 1


@pytest.mark.parametrize("bits", [32, 64])
def test_popf_sets_the_flag_for_the_next_instruction(bits: int) -> None:
    world = World(bits)
    f, r = ("q", "r") if bits == 64 else ("l", "e")
    world.load(f"pushf{f}; orl $0x100,(%{r}sp); popf{f}; nop; nop; pushf{f}; andl $~0x100,(%{r}sp); popf{f}; nop; nop")
    labels = world.m.load(0x51800, f"pushf{f}; orl $0x100,(%{r}sp); popf{f}; nop; nop; x:")
    base = labels.labels["x"] - 0x51800
    offsets = [offset for offset, _ in trapped(world, 16)]
    and_size = len(world.m.load(0x51800, f"andl $~0x100,(%{r}sp)").data)
    # Not behind the POPF that sets it, but behind the one that clears it.
    assert offsets == [base - 1, base, base + 1, base + 1 + and_size, base + 2 + and_size]


def test_iret_sets_the_flag_for_the_next_instruction() -> None:
    world = World()
    m = world.m
    m.set(rsp=KERNEL_STACK - 0x100)
    for n, word in enumerate((USER_CODE, 0x33, 2 | TF, USER_STACK, 0x2B)):
        m.write_int(KERNEL_STACK - 0x100 + 8 * n, word, 8)
    m.write(USER_CODE, b"\x90\x90")
    world.load("iretq")
    run = world.step()
    assert run.of("fault") == []
    assert faults(world.step()) == [(DB, 0)]
    assert world.frame()[2:4] == (USER_CODE + 1, 0x33)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("text", ["mov %eax,%ss; nop; nop", "push %rax; pop %rcx; nop"])
def test_no_trap_behind_mov_ss_but_behind_the_next(bits: int, text: str) -> None:
    """SDM vol. 3, 6.8.3."""
    world = World(bits)
    world.m.set(eax=0x18, tf=1)
    world.load(text.replace("%r", "%e") if bits == 32 else text)
    offsets = [offset for offset, _ in trapped(world, 4)]
    assert offsets == ([3, 4] if "ss" in text else [1, 2])


def test_no_trap_behind_pop_ss() -> None:
    world = World(32)
    world.m.set(tf=1)
    world.load("push %ss; pop %ss; nop; nop")
    assert [offset for offset, _ in trapped(world, 6)] == [1, 3, 4]


@pytest.mark.parametrize("bits", [32, 64])
def test_a_trap_behind_each_iteration(bits: int) -> None:
    world = World(bits)
    world.m.set(rcx=3, rdi=WATCHED, rsi=WATCHED + 64, tf=1)
    world.load("rep movsb; nop")
    assert trapped(world, 8) == [(0, BS), (0, BS), (2, BS), (3, BS)]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("event", ["trap", "interrupt"])
def test_the_resume_flag_is_saved_between_iterations(bits: int, event: str) -> None:
    world = World(bits)
    m = world.m
    m.set(rcx=3, rdi=WATCHED, rsi=WATCHED + 64)
    world.load("movl $0x40033,0x70300; rep movsb; nop")
    world.step()
    if event == "trap":
        m.set(tf=1)
        world.step()
    else:
        m.set(if_=1)
        world.step()
        assert m.interrupt(0x33).reason == "plan"
    assert world.frame().rflags & RF


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("text", "vector"), [("int $0x30", 0x30), ("int3", 3), ("ud2", UD)])
def test_handlers_are_not_stepped(bits: int, text: str, vector: int) -> None:
    """SDM vol. 3, 17.3.1.4: entering a handler clears TF; the frame keeps it."""
    world = World(bits)
    world.m.set(tf=1)
    world.load(text)
    run = world.step()
    assert [number for number, _ in faults(run)] == ([UD] if vector == UD else [])
    frame = world.frame()
    assert (frame.vector, bool(frame.rflags & TF), world.m.get("tf")) == (vector, True, 0)
    assert world.step().of("fault") == []


def test_syscall_with_a_masked_trap_flag_is_not_stepped_in_the_kernel() -> None:
    """The trap of SYSCALL is decided by TF after the mask (AMD APM vol. 2, 6.1.1; Linux relies on it to step users)."""
    world = World(user=True)
    m = world.m
    m.set(efer=m.get("efer") | 1, star=(0x23 << 16 | 0x10) << 32, lstar=KERNEL, sfmask=TF, tf=1)
    world.load("syscall")
    assert world.step().of("fault") == []
    assert (m.get("rip"), m.get("r11") & TF) == (KERNEL, TF)


def test_a_stepped_hlt_goes_on_in_the_handler() -> None:
    world = World()
    world.m.load(HANDLERS + 16 * DB, "inc %ebx; hlt")
    world.m.set(tf=1)
    world.load("hlt; nop")
    world.step()
    assert world.m.get("rip") == HANDLERS + 16 * DB
    assert world.m.machine.waiting(0) == ""
    world.step()
    assert world.m.get("rbx") == 1


def test_a_fault_is_not_followed_by_a_trap() -> None:
    world = World()
    world.m.set(tf=1)
    world.load("mov 0x900000,%eax")
    assert faults(world.step()) == [(PF, 0)]
    assert world.frame().rflags & (TF | RF) == TF | RF


# --- instruction breakpoints and RF ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("local", [True, False])
def test_instruction_breakpoints_come_before_the_instruction(bits: int, number: int, local: bool) -> None:
    world = World(bits)
    m = world.m
    arm(world, number, EXECUTE, KERNEL + 1, local=local)
    world.load("nop; inc %ecx; nop")
    assert world.step().of("fault") == []
    assert faults(world.step()) == [(DB, 0)]
    frame = world.frame()
    assert (frame.vector, frame.rip, frame.rflags & RF, m.get("dr6")) == (DB, KERNEL + 1, 0, FIXED_6 | 1 << number)
    assert m.get("ecx") == 0
    # With RF in the frame the handler gets over it, and RF is gone behind the instruction.
    r = "r" if bits == 64 else "e"
    m.load(HANDLERS + 16 * DB, f"orl $0x10000,{2 * bits // 8}(%{r}sp); {ret(world)}")
    world.step(2)
    assert (m.get("rip"), m.get("rf")) == (KERNEL + 1, 1)
    assert world.step().of("fault") == []
    assert (m.get("ecx"), m.get("rf")) == (1, 0)


def test_without_rf_the_breakpoint_comes_again() -> None:
    world = World()
    arm(world, 0, EXECUTE, KERNEL)
    world.load("nop")
    assert trapped(world, 6) == [(0, 1)] * 3


def test_a_disabled_breakpoint_does_nothing() -> None:
    world = World()
    world.m.set(dr0=KERNEL, dr1=KERNEL + 1, dr7=FIXED_7)
    world.load("nop; nop")
    assert world.step(2).of("fault") == []
    assert world.m.get("dr6") == FIXED_6


def test_breakpoints_come_before_faults_of_the_instruction() -> None:
    """SDM vol. 3, table 6-2: code breakpoints before faults of fetching and decoding."""
    world = World()
    arm(world, 2, EXECUTE, KERNEL)
    world.load("ud2")
    assert faults(world.step()) == [(DB, 0)]
    world = World()
    arm(world, 2, EXECUTE, 0x900000)
    world.m.set(rip=0x900000)
    assert faults(world.step()) == [(DB, 0)]


def test_mov_ss_holds_instruction_breakpoints_off() -> None:
    world = World()
    world.m.set(eax=0x18)
    arm(world, 0, EXECUTE, KERNEL + 2)
    world.load("mov %eax,%ss; nop")
    assert world.step(2).of("fault") == []


def test_sti_does_not_hold_instruction_breakpoints_off() -> None:
    world = World()
    arm(world, 0, EXECUTE, KERNEL + 1)
    world.load("sti; nop")
    assert faults(world.step(2)) == [(DB, 0)]


def test_iret_loads_rf_also_under_rf() -> None:
    world = World()
    m = world.m
    for n, word in enumerate((KERNEL + 0x20, 0x10, 2 | RF, KERNEL_STACK, 0x18)):
        m.write_int(KERNEL_STACK - 0x100 + 8 * n, word, 8)
    m.set(rsp=KERNEL_STACK - 0x100, rf=1)
    world.load("iretq")
    world.step()
    assert (m.get("rip"), m.get("rf")) == (KERNEL + 0x20, 1)


def test_rf_ends_with_the_instruction_but_not_with_an_iteration() -> None:
    world = World()
    m = world.m
    arm(world, 0, EXECUTE, KERNEL)
    m.set(rcx=3, rdi=WATCHED, rsi=WATCHED + 64, rf=1)
    world.load("rep movsb; nop")
    for left in (2, 1):
        assert world.step().of("fault") == []
        assert (m.get("rcx"), m.get("rf")) == (left, 1)
    world.step()
    assert (m.get("rip"), m.get("rf")) == (KERNEL + 2, 0)


# --- data breakpoints ---


@pytest.mark.parametrize(("bits", "size"), [(32, 1), (32, 2), (32, 4), (64, 1), (64, 2), (64, 4), (64, 8)])
@pytest.mark.parametrize("kind", [WRITE, ACCESS])
def test_data_breakpoints_cover_their_bytes(bits: int, size: int, kind: int) -> None:
    """SDM vol. 3, 17.2.5: any byte of the access within the aligned range; a trap, behind the instruction."""
    base = WATCHED + 64
    for offset in range(-5, size + 2):
        for width, name in ((1, "%cl"), (2, "%cx"), (4, "%ecx")):
            for store in (False, True):
                world = World(bits)
                arm(world, 1, kind, base, size)
                at = base + offset
                world.load(f"mov {name},{at:#x}; nop" if store else f"mov {at:#x},{name}; nop")
                two_loads = not store and at % 64 + width > 64
                run = world.step(2 if two_loads else 1)
                touches = at < base + size and base < at + width
                expected = touches and (store or kind == ACCESS)
                assert [vector for vector, _ in faults(run)] == ([DB] if expected else []), (offset, width, store)
                if expected:
                    frame = world.frame()
                    assert (frame.rip > KERNEL, frame.rflags & RF, world.m.get("dr6")) == (True, 0, FIXED_6 | 2)
                    if store:
                        assert world.m.read_int(base, 1) == 0


def test_several_breakpoints_and_a_step_are_one_exception() -> None:
    world = World()
    arm(world, 0, WRITE, WATCHED, 4)
    arm(world, 3, ACCESS, WATCHED + 2, 2)
    world.m.set(tf=1)
    world.load(f"movl $5,{WATCHED:#x}; nop")
    assert trapped(world, 1)[0][1] == BS | 1 | 8


@pytest.mark.parametrize(
    "text", ["push %rax", "call 1f; 1:", "lock incl (%rbx)", "xchg %eax,(%rbx)", "stosb", "sgdt (%rbx)"]
)
def test_stores_of_all_sorts_are_watched(text: str) -> None:
    world = World()
    arm(world, 0, WRITE, WATCHED, 1)
    world.m.set(rsp=WATCHED + 8, rbx=WATCHED, rdi=WATCHED)
    world.load(text)
    assert faults(world.step()) == [(DB, 0)]


def test_a_data_breakpoint_of_mov_ss_waits_for_the_next_instruction() -> None:
    """SDM vol. 3, 6.8.3: pending behind MOV SS, delivered behind the instruction that follows."""
    world = World()
    arm(world, 0, ACCESS, WATCHED, 2)
    world.m.write_int(WATCHED, 0x18, 2)
    world.load(f"movw {WATCHED:#x},%ss; nop; nop")
    assert [offset for offset, _ in trapped(world, 2)] == [
        len(world.m.load(0x51800, f"movw {WATCHED:#x},%ss; nop").data)
    ]


def test_a_breakpoint_pending_behind_mov_ss_is_state() -> None:
    world = World()
    m = world.m
    arm(world, 0, ACCESS, WATCHED, 2)
    m.write_int(WATCHED, 0x18, 2)
    world.load(f"movw {WATCHED:#x},%ss; nop; nop")
    world.step()
    moment = m.machine.snapshot()
    expected = faults(world.step())
    assert expected == [(DB, 0)]
    m.machine.restore(moment)
    assert faults(world.step()) == expected


def test_each_iteration_is_watched() -> None:
    world = World()
    arm(world, 0, WRITE, WATCHED + 2, 1)
    world.m.set(rcx=5, rdi=WATCHED)
    world.load("rep stosb; nop")
    assert trapped(world, 8) == [(0, 1)]
    assert world.m.get("rcx") == 0


def test_breakpoints_are_of_linear_addresses_of_each_cpu() -> None:
    world = World(cpus=2)
    arm(world, 0, WRITE, WATCHED, 4)
    world.load(f"movl $1,{WATCHED:#x}")
    assert world.step(cpu=1).of("fault") == []
    assert faults(world.step(cpu=0)) == [(DB, 0)]


def test_held_stores_are_watched_when_they_are_made() -> None:
    world = World()
    arm(world, 0, WRITE, WATCHED, 4)
    world.load(f"movl $1,{WATCHED:#x}; nop")
    run = world.m.step(1, hold=True)
    assert faults(run) == [(DB, 0)]
    assert len(world.m.machine.store_buffer_entries(0)) >= 1


# --- I/O breakpoints, GD, DE, DR6 and DR7 ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("text", "port", "width"), [("in $0x60,%al", 0x60, 1), ("out %eax,$0x60", 0x60, 4), ("in %dx,%ax", 0x61, 2)]
)
def test_port_breakpoints_need_de(bits: int, text: str, port: int, width: int) -> None:
    for extensions in (False, True):
        for at in range(0x5E, 0x66):
            world = World(bits)
            if extensions:
                world.m.set(cr4=world.m.get("cr4") | 8)
            world.m.set(edx=0x61)
            arm(world, 0, PORT, at)
            world.load(text)
            expected = [(DB, 0)] if extensions and port <= at < port + width else []
            assert faults(world.step()) == expected, (extensions, at)


@pytest.mark.parametrize("text", ["mov %dr0,%rax", "mov %rax,%dr3", "mov %dr7,%rax", "mov %rax,%dr6", "mov %rax,%dr7"])
def test_general_detect(text: str) -> None:
    """SDM vol. 3, 17.2.4: a fault before MOV DR; the processor clears GD, so that the handler may use the registers."""
    world = World()
    m = world.m
    m.set(dr7=1 << 13, dr0=0x1234)
    world.load(text)
    assert faults(world.step()) == [(DB, 0)]
    frame = world.frame()
    assert (frame.vector, frame.rip, frame.rflags & RF) == (DB, KERNEL, RF)
    assert (m.get("dr6"), m.get("dr7")) == (FIXED_6 | BD, FIXED_7)
    m.load(HANDLERS + 16 * DB, "mov %dr6,%rbx")
    assert world.step().of("fault") == []
    assert m.get("rbx") == FIXED_6 | BD


def test_other_debug_exceptions_clear_gd_too() -> None:
    world = World()
    world.m.set(dr7=1 << 13, tf=1)
    world.load("nop")
    assert faults(world.step()) == [(DB, 0)]
    assert world.m.get("dr7") == FIXED_7


@pytest.mark.parametrize("bits", [32, 64])
def test_debug_registers_4_and_5(bits: int) -> None:
    r = "r" if bits == 64 else "e"
    world = World(bits)
    world.load(f"mov %db4,%{r}ax; mov %db5,%{r}cx")
    assert world.step(2).of("fault") == []
    assert (world.m.get("eax"), world.m.get("ecx")) == (FIXED_6, FIXED_7)
    for text in (f"mov %db4,%{r}ax", f"mov %{r}ax,%db5"):
        world = World(bits)
        world.m.set(cr4=world.m.get("cr4") | 8, dr7=1 << 13)
        world.load(text)
        assert [vector for vector, _ in faults(world.step())] == [UD]  # before GD


def test_fixed_bits_of_the_debug_registers() -> None:
    world = World()
    world.m.set(rax=0xFFFFFFFF)
    world.load("mov %rax,%dr6; mov %dr6,%rbx; mov %rax,%dr7; mov %dr7,%rcx")
    world.m.set(rax=0)
    world.step(4)
    assert (world.m.get("rbx"), world.m.get("rcx")) == (FIXED_6, FIXED_7)
    world = World()
    world.m.set(rax=0xFFFFFFFF)
    world.load("mov %rax,%dr6; mov %dr6,%rbx")
    world.step(2)
    assert world.m.get("rbx") == 0xFFFFEFFF  # bit 12 is 0
    for number in (6, 7):
        world = World()
        world.m.set(rax=1 << 32)
        world.load(f"mov %rax,%dr{number}")
        assert faults(world.step()) == [(GP, 0)]


def test_reserved_bits_of_dr7() -> None:
    world = World()
    world.m.set(rax=0xD800)  # bits 11, 12, 14, 15
    world.load("mov %rax,%dr7; mov %dr7,%rcx")
    world.step(2)
    assert world.m.get("rcx") == FIXED_7


def test_debugging_changes_nothing_but_what_it_should() -> None:
    """The same program with a breakpoint far away, and without: equal events, registers and memory."""
    text = f"mov $20,%ecx; 1: add %ecx,{WATCHED:#x}; push %rcx; pop %rdx; lock incl {WATCHED + 8:#x}; loop 1b; nop"
    seen = []
    for armed in (False, True):
        world = World()
        if armed:
            arm(world, 0, ACCESS, 0x7000_0000, 8)
        world.m.set(rdi=WATCHED)
        world.load(text)
        run = world.step(102)
        state = world.m.registers()
        seen.append((run.events, {name: value for name, value in state.items() if not name.startswith("dr")}))
    assert seen[0] == seen[1]


# --- the I/O permission bitmap (SDM vol. 1, 19.5.2) ---


@pytest.mark.parametrize("bits", [32, 64])
def test_the_bitmap_lets_users_to_ports(bits: int) -> None:
    world = World(bits, user=True)
    m = world.m
    tss = 0x10900
    for base, limit, port, width, allowed_ports, allowed in (
        (104, 104 + 32, 0x60, 1, {0x60}, True),
        (104, 104 + 32, 0x61, 1, {0x60}, False),
        (104, 104 + 32, 0x60, 4, {0x60, 0x61, 0x62, 0x63}, True),
        (104, 104 + 32, 0x60, 4, {0x60, 0x61, 0x62}, False),
        (104, 104 + 32, 0x67, 2, {0x67, 0x68}, True),
        (104, 104 + 32, 0x67, 2, {0x67}, False),
        (104, 104 + 12, 0x60, 1, {0x60}, False),  # two bytes are read: the second is beyond the limit
        (104, 104 + 13, 0x60, 1, {0x60}, True),
        (120, 104 + 32, 0x60, 1, {0x60}, True),
        (0x68, 0x67, 0x60, 1, {0x60}, False),
        (0xFFF0, 104 + 32, 0x60, 1, {0x60}, False),
    ):
        m.write(tss, b"\xff" * 256)
        m.write(tss, m.read(0x10800, 102))
        m.write_int(tss + 102, base, 2)
        if base < 200:
            for number in allowed_ports:
                at = tss + base + number // 8
                m.write_int(at, m.read_int(at, 1) & ~(1 << number % 8), 1)
        world.descriptor(0x200, bytes([limit & 255, limit >> 8]) + tss.to_bytes(3, "little") + b"\x89\0\0" + bytes(8))
        world.user = False
        world.stand()
        world.load("mov $0x200,%eax; ltr %ax")
        assert world.step(2).of("fault") == []
        world.user = True
        world.stand()
        m.set(edx=port)
        world.load({1: "in %dx,%al", 2: "in %dx,%ax", 4: "in %dx,%eax"}[width])
        run = world.step()
        assert faults(run) == ([] if allowed else [(GP, 0)]), (base, limit, port, width)
        assert len(run.of("port_in")) == allowed
        # IOPL lets through without a bitmap.
        world.stand()
        m.set(rflags=0x3002, edx=port)
        assert world.step().of("fault") == []
        m.set(rflags=2)
