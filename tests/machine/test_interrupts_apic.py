"""Interrupts from outside: NMI, priorities, shadows, IPIs between 1 to 8 CPUs, and a TLB shoot-down by hand.

Intel SDM vol. 3: 6.7, 6.8.1, 6.8.3, 6.9, 10.6.1, 10.8.3, 4.10.4.2 (shoot-down), 4.10.5.
"""

import itertools

import pytest
from bare_world import (
    APIC,
    GP,
    HANDLERS,
    KERNEL,
    KERNEL_STACK,
    NMI,
    PF,
    STACK,
    UD,
    USER_STACK,
    World,
    faults,
)

ICR, ICR_HIGH, EOI, TPR, ISR, IRR = APIC + 0x300, APIC + 0x310, APIC + 0xB0, APIC + 0x80, APIC + 0x100, APIC + 0x200
SELF, ALL, OTHERS = 0x40000, 0x80000, 0xC0000
NMI_DELIVERY = 0x400
DATA = USER_STACK - 0x1000


def ret(world: World) -> str:
    return "iretq" if world.bits == 64 else "iret"


def send(world: World, icr: int, cpu: int = 0, to: int | None = None) -> None:
    """Let a CPU write the ICR, with code of its own, and put it back where it was."""
    m = world.m
    saved = m.registers(cpu=cpu)
    high = f"movl ${(to or 0) << 24:#x},{ICR_HIGH:#x};" if to is not None else ""
    m.load(KERNEL + 0x1800, f"{high} movl ${icr:#x},{ICR:#x}")
    m.set(cpu=cpu, rip=KERNEL + 0x1800, cs=0x10)
    assert m.step(2 if high else 1, cpu=cpu).reason == "plan"
    m.set(cpu=cpu, cs=saved["cs"], rip=saved["rip"])


def takes(world: World, vector: int, cpu: int = 0) -> bool:
    return world.m.machine.can_interrupt(cpu, vector)


# --- NMI ---


@pytest.mark.parametrize("bits", [32, 64])
def test_an_nmi_needs_no_interrupt_flag_and_comes_once(bits: int) -> None:
    world = World(bits)
    m = world.m
    m.load(HANDLERS + 16 * NMI, f"nop; {ret(world)}")
    world.load("nop; nop; nop")
    assert not takes(world, NMI)
    send(world, SELF | NMI_DELIVERY)
    assert takes(world, NMI)
    assert m.get("nmi_pending") == 1
    run = m.interrupt(NMI)
    assert [(event.kind, event.pc) for event in run if event.kind in ("nmi", "interrupt", "fault")] == [("nmi", KERNEL)]
    frame = world.frame()
    assert (frame.vector, frame.error, frame.rip, m.get("nmi_pending")) == (NMI, None, KERNEL, 0)
    # Blocked until IRET, but one more is remembered (6.7.1).
    for _ in range(3):
        send(world, SELF | NMI_DELIVERY)
    assert m.get("nmi_pending") == 1
    for _ in range(2):
        assert not takes(world, NMI)
        assert m.interrupt(NMI).reason == "diverged"
        assert world.step().reason == "plan"
    assert takes(world, NMI)
    assert m.interrupt(NMI).reason == "plan"
    assert not takes(world, NMI)


def test_any_iret_ends_the_blocking_of_nmis() -> None:
    """6.7.1: of an exception handler within the NMI handler too."""
    world = World()
    m = world.m
    m.load(HANDLERS + 16 * NMI, "ud2")
    m.load(HANDLERS + 16 * UD, "addq $2,(%rsp); iretq")
    send(world, SELF | NMI_DELIVERY)
    m.interrupt(NMI)
    send(world, SELF | NMI_DELIVERY)
    world.step(2)
    assert not takes(world, NMI)
    world.step()
    assert (m.get("rip"), takes(world, NMI)) == (HANDLERS + 16 * NMI + 2, True)


@pytest.mark.parametrize("flags", [2, 0x202])
def test_an_nmi_wakes_a_halted_cpu(flags: int) -> None:
    world = World(cpus=2)
    m = world.m
    world.load("hlt; nop")
    m.set(cpu=1, rflags=flags)
    world.step(cpu=1)
    assert m.machine.waiting(1) == "halt"
    send(world, NMI_DELIVERY, to=1)
    assert m.interrupt(NMI, cpu=1).reason == "plan"
    assert (m.machine.waiting(1), world.frame(1).rip) == ("", KERNEL + 1)


def test_an_nmi_comes_through_while_an_interrupt_is_served_and_tpr_is_high() -> None:
    world = World()
    world.m.set(if_=1, cr8=15)
    world.load(f"movl $0xff,{TPR:#x}")
    world.step()
    send(world, SELF | NMI_DELIVERY)
    assert takes(world, NMI)
    world.m.set(if_=0)
    assert takes(world, NMI)


def test_an_nmi_does_not_split_mov_ss_from_the_next_instruction() -> None:
    world = World()
    m = world.m
    send(world, SELF | NMI_DELIVERY)
    m.set(eax=0x18)
    world.load("mov %eax,%ss; nop; nop")
    assert takes(world, NMI)
    world.step()
    assert not takes(world, NMI)
    world.step()
    assert takes(world, NMI)


def test_an_nmi_on_its_own_stack() -> None:
    world = World(user=True)
    m = world.m
    m.write_int(0x10800 + 36 + 8, STACK + 0x3000, 8)
    m.gate(NMI, HANDLERS + 16 * NMI, interrupt_stack=2)
    send(world, SELF | NMI_DELIVERY)
    m.interrupt(NMI)
    assert (m.get("rsp"), m.get("cpl"), world.frame().rsp) == (STACK + 0x3000 - 40, 0, USER_STACK)


def test_vector_2_from_an_int_or_a_fixed_ipi_is_no_nmi() -> None:
    world = World()
    world.load("int $2")
    world.step()
    assert world.frame().vector == NMI
    send(world, SELF | NMI_DELIVERY)
    assert takes(world, NMI)  # nothing was blocked
    world = World()
    send(world, SELF | 2)  # vectors below 16 are illegal for fixed interrupts (10.5.2)
    assert (world.m.get("nmi_pending"), takes(world, NMI)) == (0, False)


def test_the_default_schedule_delivers_nmis_first() -> None:
    world = World()
    m = world.m
    m.set(if_=1)
    m.load(HANDLERS + 16 * NMI, "mov %ebx,%ecx; iretq")
    m.load(HANDLERS + 16 * 0x40, "inc %ebx; hlt")
    world.load(f"cli; movl ${SELF | 0x40:#x},{ICR:#x}; movl ${SELF | NMI_DELIVERY:#x},{ICR:#x}; sti; nop; hlt")
    run = m.run()
    assert [event.kind for event in run.of("nmi", "interrupt")] == ["nmi", "interrupt"]
    assert (run.reason, m.get("ecx"), m.get("ebx")) == ("idle", 0, 1)


# --- priorities (10.8.3) ---


@pytest.mark.parametrize("bits", [32, 64])
def test_nested_interrupts_by_priority(bits: int) -> None:
    world = World(bits)
    m = world.m
    m.set(if_=1)
    vectors = (0x31, 0x3F, 0x52, 0x81)
    for vector in vectors:
        m.gate(vector, HANDLERS + 16 * vector, trap=True)
        m.load(HANDLERS + 16 * vector, f"movl $0,{EOI:#x}; {ret(world)}")
        send(world, SELF | vector)
    assert [takes(world, vector) for vector in vectors] == [True] * 4
    # The lowest first, by the schedule's choice; the others of a higher class nest, those of its own do not.
    for vector in (0x31, 0x52, 0x81):
        assert m.interrupt(vector).reason == "plan"
        later = {0x31: (0x52, 0x81), 0x52: (0x81,), 0x81: ()}[vector]
        assert [v for v in vectors if takes(world, v)] == list(later)
    assert not takes(world, 0x3F)
    for left in ((), (), (0x3F,)):
        world.step(2)
        assert tuple(v for v in vectors if takes(world, v)) == left
    assert m.get("rip") == KERNEL


def test_the_task_priority_holds_back_its_class_and_below() -> None:
    world = World()
    m = world.m
    m.set(if_=1)
    for vector in (0x2F, 0x30, 0x3F, 0x40):
        send(world, SELF | vector)
    for priority in range(16):
        m.set(cr8=priority)
        open_now = [v for v in (0x2F, 0x30, 0x3F, 0x40) if takes(world, v)]
        assert open_now == [v for v in (0x2F, 0x30, 0x3F, 0x40) if v >> 4 > priority]


def test_registers_of_pending_and_served() -> None:
    world = World()
    m = world.m
    m.set(if_=1)
    for vector in (0x20, 0x5F, 0xFF):
        send(world, SELF | vector)
    m.interrupt(0x5F)
    m.load(
        HANDLERS + 16 * 0x5F,
        "".join(
            f"mov {base + 16 * n:#x},%eax; mov %eax,{DATA + 64 * (base == IRR) + 4 * n:#x};"
            for base in (ISR, IRR)
            for n in range(8)
        ),
    )
    assert m.step(32).of("fault") == []
    isr = [m.read_int(DATA + 4 * n) for n in range(8)]
    irr = [m.read_int(DATA + 64 + 4 * n) for n in range(8)]
    assert isr == [0, 0, 1 << 31, 0, 0, 0, 0, 0]
    assert irr == [0, 1, 0, 0, 0, 0, 0, 1 << 31]


def test_an_interrupt_sent_twice_comes_once_or_twice() -> None:
    """10.8.4: one is pending besides the one in service."""
    world = World()
    m = world.m
    m.set(if_=1)
    for _ in range(3):
        send(world, SELF | 0x40)
    m.interrupt(0x40)
    assert not takes(world, 0x40)
    send(world, SELF | 0x40)
    m.load(HANDLERS + 16 * 0x40, f"movl $0,{EOI:#x}; iretq")
    world.step(2)
    assert takes(world, 0x40)
    m.interrupt(0x40)
    world.step(2)
    assert not takes(world, 0x40)


# --- shadows (6.8.3) ---


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("sti; nop; nop", [False, True, True]),
        ("sti; sti; nop", [False, True, True]),
        ("sti; cli; nop", [False, False, False]),
        ("sti; mov %eax,%ss; nop; nop", [False, None, True, True]),
        ("sti; hlt", [False, True]),
        ("sti; int3", [False, False]),
    ],
)
def test_the_shadow_of_sti(bits: int, text: str, opens: list[bool | None]) -> None:
    world = World(bits)
    world.m.set(eax=0x18)
    send(world, SELF | 0x40)
    world.load(text)
    for expected in opens:
        world.step()
        if expected is not None:  # whether two shadows in a row both count is up to the processor
            assert takes(world, 0x40) == expected


def test_popf_and_iret_cast_no_shadow() -> None:
    world = World()
    send(world, SELF | 0x40)
    world.load("push $0x202; popfq; nop")
    world.step(2)
    assert takes(world, 0x40)
    world = World()
    send(world, SELF | 0x40)
    m = world.m
    m.set(rsp=KERNEL_STACK - 0x100)
    for n, word in enumerate((KERNEL + 0x20, 0x10, 0x202, KERNEL_STACK, 0x18)):
        m.write_int(KERNEL_STACK - 0x100 + 8 * n, word, 8)
    world.load("iretq")
    world.step()
    assert takes(world, 0x40)


def test_a_repeated_string_can_be_interrupted_and_goes_on() -> None:
    world = World()
    m = world.m
    m.set(if_=1, rcx=5, rdi=DATA, rsi=DATA + 64)
    m.write(DATA + 64, b"abcde")
    m.load(HANDLERS + 16 * 0x40, f"movl $0,{EOI:#x}; iretq")
    send(world, SELF | 0x40)
    world.load("rep movsb; nop")
    world.step(2)
    m.interrupt(0x40)
    assert (world.frame().rip, m.get("rcx")) == (KERNEL, 3)
    world.step(2 + 3)
    assert (m.get("rip"), m.read(DATA, 6)) == (KERNEL + 2, b"abcde\0")


# --- IPIs ---


@pytest.mark.parametrize("cpus", range(1, 9))
def test_shorthands_reach_whom_they_name(cpus: int) -> None:
    """10.6.1: self, all including self, all excluding self, and one by number."""
    senders = {0, cpus - 1, cpus // 2}
    for sender, (shorthand, nmi) in itertools.product(senders, itertools.product((SELF, ALL, OTHERS), (False, True))):
        world = World(cpus=cpus)
        for cpu in range(cpus):
            world.m.set(cpu=cpu, if_=1)
        send(world, shorthand | (NMI_DELIVERY if nmi else 0x77), cpu=sender)
        vector = NMI if nmi else 0x77
        expected = {SELF: {sender}, ALL: set(range(cpus)), OTHERS: set(range(cpus)) - {sender}}[shorthand]
        assert {cpu for cpu in range(cpus) if takes(world, vector, cpu)} == expected
    for target in range(10):
        world = World(cpus=cpus)
        for cpu in range(cpus):
            world.m.set(cpu=cpu, if_=1)
        send(world, 0x78, cpu=cpus - 1, to=target)
        assert {cpu for cpu in range(cpus) if takes(world, 0x78, cpu)} == ({target} & set(range(cpus)))


def test_an_ipi_waits_for_the_stores_before_it() -> None:
    """The write of the ICR is uncached: stores before it are visible when the interrupt is."""
    world = World(cpus=2)
    m = world.m
    m.set(cpu=1, if_=1)
    world.load(f"movl $7,{DATA:#x}; movl ${OTHERS | 0x40:#x},{ICR:#x}")
    m.step(1, hold=True)
    assert m.read_int(DATA, cpu=1) == 0
    m.step(1, hold=True)
    assert m.read_int(DATA, cpu=1) == 7
    assert takes(world, 0x40, cpu=1)


def test_interrupts_drain_nothing() -> None:
    """An interrupt is no fence: held stores stay held behind the frame of the handler."""
    world = World(cpus=2)
    m = world.m
    m.set(cpu=1, if_=1)
    world.load(f"movl $7,{DATA:#x}; nop")
    m.step(1, cpu=1, hold=True)
    send(world, 0x40, cpu=0, to=1)
    assert m.interrupt(0x40, cpu=1).reason == "plan"
    assert m.read_int(DATA, cpu=0) == 0
    assert m.machine.store_buffer_entries(1)[0][0] == DATA


# --- TLB shoot-down in bare machine code ---


@pytest.mark.parametrize("bits", [32, 64])
def test_a_shoot_down_by_hand(bits: int) -> None:
    """CPU 1 goes on with its stale translation until the handler of the IPI has executed INVLPG, not before.

    CPU 0 clears the page-table entry, invalidates its own translation, sends the IPI, and waits for the answer.
    """
    world = World(bits, cpus=2)
    m = world.m
    page, pte_window, ack = 0x80000, 0x90000, DATA
    m.map(page, rights="rw")
    m.write_int(page, 0x5EED)
    entry = m.entry_address(page)
    m.map(pte_window, phys=entry & -4096)
    pte = pte_window + entry % 4096
    m.load(HANDLERS + 0x1000, f"invlpg {page:#x}; lock incl {ack:#x}; movl $0,{EOI:#x}; {ret(world)}")
    m.gate(0xFD, HANDLERS + 0x1000)
    m.load(
        KERNEL,
        f"movl $0,{pte:#x}; invlpg {page:#x}; movl ${OTHERS | 0xFD:#x},{ICR:#x}; 1: pause; cmpl $0,{ack:#x}; je 1b;"
        f"mov {page:#x},%eax",
    )
    m.load(KERNEL + 0x800, f"1: mov {page:#x},%eax; jmp 1b")
    m.set(cpu=1, rip=KERNEL + 0x800, if_=1)
    assert m.step(2, cpu=1).of("fault") == []  # CPU 1 caches the translation
    m.set(cpu=1, eax=0)
    m.step(1)  # the entry is gone
    run = m.step(2, cpu=1)
    assert (run.of("fault"), run.of("walk"), m.get("eax", cpu=1)) == ([], [], 0x5EED)
    m.step(2)  # own INVLPG, IPI sent
    m.set(cpu=1, eax=0)
    run = m.step(2, cpu=1)
    assert (run.of("fault"), m.get("eax", cpu=1)) == ([], 0x5EED)  # sent, but not delivered
    assert m.step(3 * 5).of("fault") == []  # CPU 0 still waits
    assert m.get("rip") < KERNEL + 0x100
    assert takes(world, 0xFD, cpu=1)
    assert m.interrupt(0xFD, cpu=1).reason == "plan"
    assert page in [event[0] for event in m.machine.tlb_entries(1)]  # delivered, but INVLPG has not run
    m.step(1, cpu=1)
    assert page not in [event[0] for event in m.machine.tlb_entries(1)]
    assert m.step(3, cpu=1).of("fault") == []
    assert m.get("rip", cpu=1) == KERNEL + 0x800
    run = m.step(1, cpu=1)
    assert faults(run) == [(PF, 0)]
    assert (m.get("cr2", cpu=1), m.read_int(ack)) == (page, 1)
    run = m.step(6)
    assert faults(run)[:1] == [(PF, 0)]


@pytest.mark.parametrize("cpus", range(2, 9))
def test_a_shoot_down_of_all_others_by_the_default_schedule(cpus: int) -> None:
    world = World(cpus=cpus)
    m = world.m
    page, ack = 0x80000, DATA
    m.map(page, rights="rw")
    m.map(0x90000, phys=m.entry_address(page) & -4096)
    pte = 0x90000 + m.entry_address(page) % 4096
    m.load(HANDLERS + 0x1000, f"invlpg {page:#x}; lock incl {ack:#x}; movl $0,{EOI:#x}; iretq")
    m.gate(0xFD, HANDLERS + 0x1000)
    m.load(
        KERNEL,
        f"movl $0,{pte:#x}; invlpg {page:#x}; movl ${OTHERS | 0xFD:#x},{ICR:#x}; 1: pause; cmpl ${cpus - 1},{ack:#x};"
        "jb 1b; cli; hlt",
    )
    m.load(KERNEL + 0x800, f"1: mov {page:#x},%eax; pause; jmp 1b")
    m.load(HANDLERS + 16 * PF, "cli; hlt")
    for cpu in range(1, cpus):
        m.set(cpu=cpu, rip=KERNEL + 0x800, if_=1)
        m.step(1, cpu=cpu)
    run = m.run(10_000)
    assert run.reason == "idle"
    assert m.read_int(ack) == cpus - 1
    invalidated: dict[int, int] = {event.cpu: event.step for event in run.of("tlb_invalidate") if event.addr == page}
    assert set(invalidated) == set(range(cpus))
    faulted = {event.cpu: event.step for event in run.of("fault")}
    assert set(faulted) == set(range(1, cpus))
    assert all(invalidated[cpu] < faulted[cpu] for cpu in faulted)


# --- who may not ---


def test_a_user_cannot_reach_the_apic_or_the_flag() -> None:
    world = World(user=True)
    world.load(f"mov {APIC:#x},%eax")
    assert faults(world.step()) == [(PF, 5)]
    world.stand()
    world.m.set(rflags=2)
    world.load("cli")
    assert faults(world.step()) == [(GP, 0)]
    assert world.m.get("rip") == HANDLERS + 16 * GP
