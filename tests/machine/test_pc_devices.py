"""The devices of a PC, by the sequences of their datasheets, as guest code reaches them: docs/platform.md, "A PC"."""

import random
import struct

import pytest
from programs import CODE, IDT, Bare, assemble, auto, gate, irq, run

from machine import _core

CYCLE = 100
"""Steps in a cycle of the timer's clock."""
HANDLER = 0x11000
BASE = 0x20
"""Vector of input 0."""


class Pc(Bare):
    """A PC whose single CPU makes what accesses to ports the test asks for, and else goes in a circle."""

    def __init__(self, handler: str = "iret") -> None:
        super().__init__("out %al,%dx; in %dx,%al; wait: jmp wait; sti; hlt; rdtsc; hlt", pc=True)
        self.machine.write(HANDLER, assemble(handler, HANDLER))
        for vector in range(256):
            self.machine.write(IDT + 8 * vector, gate(HANDLER))

    def at(self, offset: int) -> None:
        self.machine.set_register(0, "rip", CODE + offset)

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.machine.set_register(0, "rdx", port)
            self.machine.set_register(0, "rax", value)
            self.at(0)
            assert self.execute(run(1), exact=True) == "plan"
        self.at(2)

    def inp(self, port: int) -> int:
        self.machine.set_register(0, "rdx", port)
        self.at(1)
        assert self.execute(run(1), exact=True) == "plan"
        self.at(2)
        return self.register("rax") & 0xFF

    def wait(self, cycles: int) -> None:
        """Until so many cycles of the timer's clock have begun since time 0."""
        self.at(2)
        self.execute(run(cycles * CYCLE - self.machine.step), exact=True)

    def interrupts(self, *, on: bool = True) -> None:
        self.machine.set_register(0, "rflags", 0x202 if on else 2)

    def pics(self, mask: int = 0, mode: int = 1) -> None:
        """Initialise both controllers as Linux does."""
        self.out(0x20, 0x11)
        self.out(0x21, BASE, 4, mode, mask)
        self.out(0xA0, 0x11)
        self.out(0xA1, BASE + 8, 2, 1, 0)

    def timer(self, count: int, mode: int = 2) -> None:
        self.out(0x43, 0x30 | mode << 1)
        self.out(0x40, count & 0xFF, count >> 8)

    def takes(self, number: int) -> bool:
        return self.machine.can_interrupt(0, BASE + number)


# --- what is where ---


def test_a_pc_is_an_option_of_a_machine_with_one_cpu() -> None:
    with pytest.raises(ValueError, match="a PC has one CPU"):
        _core.Machine(cpus=2, pc=True)
    assert (_core.Machine().pc, _core.Machine(pc=True).pc) == (False, True)


@pytest.mark.parametrize("port", [0x21, 0x40, 0x61, 0x64, 0x71, 0xA1, 0x3FD])
def test_without_the_option_nobody_answers(port: int) -> None:
    bare = Bare("in %dx,%al; hlt")
    bare.machine.set_register(0, "rdx", port)
    bare.execute(run(1))
    assert bare.register("rax") == 0xFF


def test_ports_of_nobody_and_of_racetape() -> None:
    pc = Pc()
    assert [pc.inp(port) for port in (0x80, 0x1F7, 0x2F8, 0x3D5, 0xCF8)] == [0xFF] * 5
    pc.out(0xE9, *b"hi")
    assert pc.machine.console_take() == b"hi"


def test_wide_accesses_are_made_of_bytes() -> None:
    bare = Bare("mov $0x3fe,%dx; in %dx,%ax; mov $0x00a5,%ax; inc %dx; out %ax,%dx; dec %dx; in %dx,%eax; hlt", pc=True)
    bare.execute(run(2))
    assert bare.register("rax") == 0x00B0
    bare.execute(run(5))
    assert bare.register("rax") == 0xFFFFA5B0


def test_cpuid_announces_no_apic() -> None:
    announced = []
    for pc in (False, True):
        bare = Bare("mov $1,%eax; cpuid; hlt", pc=pc)
        bare.execute(run(2))
        announced.append(bare.register("rdx"))
    assert announced[0] ^ announced[1] == 1 << 9


# --- 8259A ---


def test_masks_and_registers_read_back() -> None:
    pc = Pc()
    pc.pics(mask=0xA5)
    assert (pc.inp(0x21), pc.inp(0xA1)) == (0xA5, 0)
    pc.timer(5)
    pc.wait(50)
    assert pc.inp(0x20) == 1  # IRR is read after initialisation
    pc.out(0x20, 0x0B)
    assert pc.inp(0x20) == 0


def test_an_interrupt_is_served_once_until_its_end() -> None:
    pc = Pc()
    pc.pics()
    pc.timer(10, mode=0)
    pc.interrupts()
    pc.wait(60)
    assert pc.takes(0)
    assert pc.execute(irq(BASE), exact=True) == "plan"
    pc.execute(run(1))
    pc.out(0x20, 0x0B)
    assert pc.inp(0x20) == 1
    pc.timer(10, mode=0)
    pc.wait(120)
    assert not pc.takes(0)  # the same input again, not before the end of interrupt
    pc.out(0x20, 0x20)
    assert pc.takes(0)


def test_a_masked_input_waits() -> None:
    pc = Pc()
    pc.pics(mask=1)
    pc.timer(10)
    pc.interrupts()
    pc.wait(50)
    assert not pc.takes(0)
    pc.out(0x21, 0)
    assert pc.takes(0)


def test_priorities_and_rotation() -> None:
    """Timer (0) and serial line (4) ask at the same time."""
    pc = Pc()
    pc.pics()
    pc.timer(10, mode=0)
    pc.out(0x3FC, 8)
    pc.out(0x3F9, 2)  # an empty transmitter interrupts
    pc.interrupts()
    pc.wait(60)
    assert (pc.takes(0), pc.takes(4)) == (True, False)
    pc.out(0x20, 0xC0)  # input 0 gets the lowest priority
    assert (pc.takes(0), pc.takes(4)) == (False, True)
    pc.execute(irq(BASE + 4), exact=True)
    pc.execute(run(1))
    assert not pc.takes(0)
    pc.out(0x20, 0xE4)  # specific end of interrupt, and 4 becomes the lowest
    assert pc.takes(0)


def test_automatic_end_of_interrupt() -> None:
    pc = Pc()
    pc.pics(mode=3)
    pc.timer(5)
    pc.interrupts()
    for turn in range(1, 4):
        pc.wait(60 * turn)
        assert pc.execute(irq(BASE), exact=True) == "plan"
        pc.execute(run(1))


def test_polling() -> None:
    pc = Pc()
    pc.pics()
    pc.out(0x20, 0x0C)
    assert pc.inp(0x20) == 0
    pc.timer(5, mode=0)
    pc.wait(50)
    pc.out(0x20, 0x0C)
    assert pc.inp(0x20) == 0x80
    pc.out(0x20, 0x0B)
    assert pc.inp(0x20) == 1


def test_special_mask_mode_lets_lower_ones_through() -> None:
    pc = Pc()
    pc.pics()
    pc.timer(5, mode=0)
    pc.interrupts()
    pc.wait(50)
    pc.execute(irq(BASE), exact=True)
    pc.execute(run(1))
    pc.out(0x3FC, 8)
    pc.out(0x3F9, 2)
    assert not pc.takes(4)
    pc.out(0x20, 0x68)
    pc.out(0x21, 1)
    assert pc.takes(4)


# --- 8254 ---


def count(pc: Pc, channel: int) -> int:
    pc.out(0x43, channel << 6)
    low = pc.inp(0x40 + channel)
    return low | pc.inp(0x40 + channel) << 8


def test_a_latched_count_stands_still() -> None:
    pc = Pc()
    pc.timer(1000)
    start = pc.machine.step // CYCLE
    pc.wait(start + 300)
    pc.out(0x43, 0)
    pc.wait(start + 500)
    low = pc.inp(0x40)
    assert low | pc.inp(0x40) << 8 == 700
    assert count(pc, 0) == 500


def test_mode_2_begins_again_and_mode_3_counts_by_two() -> None:
    for mode, shown in ((2, 1000 - 250), (3, 1000 - 2 * 250)):
        pc = Pc()
        pc.timer(1000, mode)
        pc.wait(pc.machine.step // CYCLE + 1250)
        assert count(pc, 0) == shown


def test_a_count_of_zero_is_the_largest_and_decimal_counts() -> None:
    pc = Pc()
    pc.timer(0, mode=0)
    start = pc.machine.step // CYCLE
    pc.wait(start + 1)
    assert count(pc, 0) == 0xFFFF
    pc.out(0x43, 0x31)
    pc.out(0x40, 0x00, 0x10)
    start = pc.machine.step // CYCLE
    pc.wait(start + 1)
    assert count(pc, 0) == 0x0999


def test_read_back_tells_status_and_count() -> None:
    pc = Pc()
    pc.out(0x43, 0x34)
    pc.out(0x43, 0xE2)  # status of channel 0
    assert pc.inp(0x40) == 0x80 | 0x40 | 0x34  # OUT is up, no count yet
    pc.timer(100, mode=0)
    pc.out(0x43, 0xC2)  # both: status comes first
    assert pc.inp(0x40) == 0x30
    assert pc.inp(0x40) | pc.inp(0x40) << 8 == 100


def test_the_gate_of_channel_2_and_its_output_at_port_61() -> None:
    pc = Pc()
    pc.out(0x43, 0xB0)
    pc.out(0x42, 100, 0)
    pc.wait(300)
    assert count(pc, 2) == 100  # the gate is closed
    pc.out(0x61, 1)
    start = pc.machine.step // CYCLE
    pc.wait(start + 40)
    pc.out(0x61, 0)
    pc.wait(start + 500)
    assert (count(pc, 2), pc.inp(0x61) & 0x23) == (60, 0)
    pc.out(0x61, 1)
    pc.wait(pc.machine.step // CYCLE + 61)
    assert pc.inp(0x61) & 0x23 == 0x21


def test_the_refresh_bit_toggles() -> None:
    pc = Pc()
    seen = []
    for cycles in range(0, 180, 18):
        pc.wait(cycles + 1)
        seen.append(pc.inp(0x61) >> 4 & 1)
    assert seen == [0, 1] * 5


@pytest.mark.parametrize(("mode", "due"), [(0, 50), (2, 50), (3, 50), (4, 51)])
def test_when_the_timer_interrupts(mode: int, due: int) -> None:
    pc = Pc()
    pc.pics()
    pc.timer(50, mode)
    start = pc.machine.step // CYCLE
    pc.wait(start + due - 1)
    pc.execute(run(CYCLE - 1))
    assert pc.inp(0x20) == 0
    assert pc.inp(0x20) == 1


# --- time ---


def test_the_default_schedule_interrupts_when_it_is_due() -> None:
    pc = Pc(handler="push %eax; mov $0x20,%al; out %al,$0x20; pop %eax; iret")
    pc.pics()
    pc.timer(50)
    start = pc.machine.step // CYCLE
    pc.interrupts()
    assert pc.execute(auto(50 * CYCLE * 10)) == "plan"
    taken = [event["step"] for event in pc.events("interrupt")]
    assert taken == [(start + 50 * n) * CYCLE for n in range(1, len(taken) + 1)]
    assert len(taken) in (9, 10)


def test_time_goes_on_while_an_interrupt_of_the_local_apic_waits() -> None:
    pc = Pc()
    pc.pics()
    pc.timer(50)
    pc.machine.write(CODE, assemble("movl $0x40040,0xfee00300; wait: jmp wait"))
    pc.at(0)
    assert pc.execute(auto(500 * CYCLE)) == "plan"
    pc.interrupts()
    assert pc.machine.can_interrupt(0, 0x40)
    assert pc.takes(0)


def test_time_is_skipped_while_the_cpu_waits() -> None:
    pc = Pc()
    pc.pics()
    pc.timer(50000, mode=0)
    start = pc.machine.step // CYCLE
    pc.at(4)
    assert pc.execute(auto()) == "idle"  # nothing else will ever come
    assert [event["info"] for event in pc.events("interrupt")] == [BASE]
    assert pc.machine.step < (start + 100) * CYCLE
    assert pc.register("rax") > (start + 50000) * CYCLE


def test_a_schedule_may_place_a_tick_before_it_is_due() -> None:
    pc = Pc()
    pc.pics(mode=3)
    pc.timer(50000)
    pc.interrupts()
    assert pc.machine.timer_vector(0) == BASE
    for _ in range(3):
        assert pc.execute(irq(BASE), exact=True) == "plan"
        pc.execute(run(1))
    assert count(pc, 0) == 50000
    pc.out(0x21, 1)
    assert pc.machine.timer_vector(0) == -1
    assert pc.execute(irq(BASE), exact=True) == "diverged"


def test_one_that_is_due_but_not_taken_is_not_early() -> None:
    pc = Pc()
    pc.pics()
    pc.timer(50)
    pc.wait(200)
    assert pc.machine.timer_vector(0) == -1
    pc.interrupts()
    assert pc.takes(0)


# --- PC16550D ---


def test_what_is_sent_is_on_the_console() -> None:
    pc = Pc()
    pc.out(0x3FB, 0x83)
    pc.out(0x3F8, 1)
    pc.out(0x3F9, 0)
    assert (pc.inp(0x3F8), pc.inp(0x3F9)) == (1, 0)
    pc.out(0x3FB, 3)
    pc.out(0x3F8, *b"ok")
    assert (pc.machine.console_take(), pc.inp(0x3FD)) == (b"ok", 0x60)


def test_loopback_fifo_and_overrun() -> None:
    pc = Pc()
    pc.out(0x3FA, 0x81)  # FIFOs on, trigger at 8
    assert pc.inp(0x3FA) == 0xC1
    pc.out(0x3FC, 0x1A)
    assert pc.inp(0x3FE) & 0xF0 == 0x90  # what drivers look for
    pc.out(0x3F9, 1)
    pc.out(0x3F8, *range(7))
    assert (pc.inp(0x3FD), pc.inp(0x3FA)) == (0x61, 0xCC)
    pc.out(0x3F8, 7)
    assert pc.inp(0x3FA) == 0xC4
    pc.out(0x3F8, *range(8, 17))
    assert [pc.inp(0x3FD), pc.inp(0x3FD)] == [0x63, 0x61]  # overrun, told once
    assert [pc.inp(0x3F8) for _ in range(16)] == list(range(16))
    assert (pc.inp(0x3FD), pc.machine.console_take()) == (0x60, b"")


def test_the_interrupt_of_an_empty_transmitter() -> None:
    pc = Pc()
    pc.pics()
    pc.out(0x3F9, 2)
    pc.interrupts()
    assert not pc.takes(4)  # OUT2 does not connect the line
    pc.out(0x3FC, 8)
    assert pc.takes(4)
    assert (pc.inp(0x3FA), pc.inp(0x3FA)) == (2, 1)  # reading it is the end of it
    assert not pc.takes(4)
    pc.out(0x3F8, 65)
    assert pc.takes(4)
    pc.out(0x3F9, 0)
    assert not pc.takes(4)
    pc.out(0x3F9, 2)
    assert pc.takes(4)


# --- MC146818, 8042 ---


def test_the_date_is_fixed() -> None:
    pc = Pc()

    def register(index: int) -> int:
        pc.out(0x70, index)
        return pc.inp(0x71)

    assert [register(index) for index in (0, 2, 4, 6, 7, 8, 9, 0x32)] == [0, 0, 0, 4, 1, 6, 0x11, 0x20]
    pc.out(0x71, 0x19)
    assert register(0x32) == 0x20
    assert (register(0x0A) & 0x80, register(0x0D)) == (0, 0x80)
    pc.out(0x70, 0x8F)
    pc.out(0x71, 0x5A)
    assert register(0x0F) == 0x5A


@pytest.mark.parametrize("writes", [[(0x64, 0xFE)], [(0x64, 0xD1), (0x60, 0xCE)]])
def test_a_reset_ends_the_run_cleanly(writes: list[tuple[int, int]]) -> None:
    bare = Bare("".join(f"mov ${value:#x},%al; out %al,${port:#x};" for port, value in writes) + "nop; nop", pc=True)
    assert (bare.execute(auto()), bare.machine.exit_status) == ("exit", 0)
    assert [event["kind"] for event in bare.events("port_out", "exit")][-2:] == ["port_out", "exit"]


def test_the_keyboard_controller_answers() -> None:
    pc = Pc()
    assert pc.inp(0x64) == 0x10
    for command, answer in ((0xAA, 0x55), (0xAB, 0), (0xD0, 0xCF)):
        pc.out(0x64, command)
        assert (pc.inp(0x64), pc.inp(0x60), pc.inp(0x64)) == (0x11, answer, 0x10)
    pc.out(0x64, 0x60)
    pc.out(0x60, 0x65)
    pc.out(0x64, 0x20)
    assert pc.inp(0x60) == 0x65


# --- state ---


def used() -> Pc:
    pc = Pc(handler="push %eax; mov $0x20,%al; out %al,$0x20; pop %eax; iret")
    pc.pics()
    pc.timer(37)
    pc.out(0x3FC, 0x18)
    pc.out(0x3F8, 1)
    pc.out(0x61, 1)
    pc.interrupts()
    return pc


def test_exact_choices_repeat_a_run_with_its_interrupts() -> None:
    one, other = used(), used()
    one.machine.choices_take()
    one.execute(auto(30_000))
    choices = one.machine.choices_take()
    assert sum(op == _core.IRQ for op, *_ in struct.iter_unpack("<BBHIQ", choices)) > 5
    assert other.execute(choices, exact=True) == "plan"
    assert one.machine.state_hash() == other.machine.state_hash()
    assert one.machine.state_save() == other.machine.state_save()


def test_snapshots_and_saved_states_hold_the_devices() -> None:
    pc = used()
    pc.execute(auto(5_000))
    snapshot, saved, before = pc.machine.snapshot(), pc.machine.state_save(), pc.machine.state_hash()
    pc.execute(auto(10_000))
    pc.out(0x21, 0xFF)
    after = pc.machine.state_hash()
    assert after != before
    pc.machine.restore(snapshot)
    assert (pc.machine.state_hash(), pc.machine.state_save()) == (before, saved)
    fresh = used()
    fresh.machine.write(0, pc.machine.read(0, pc.machine.ram_bytes))
    fresh.machine.state_load(saved)
    assert fresh.machine.state_hash() == before
    pc.execute(auto(10_000))
    fresh.execute(auto(10_000))
    assert fresh.machine.state_hash() == pc.machine.state_hash()


def test_who_looks_and_when_leaves_no_trace() -> None:
    one, other = used(), used()
    one.execute(auto(20_000))
    for _ in range(200):
        other.execute(auto(100))
        other.machine.can_interrupt(0, BASE)
        other.machine.timer_vector(0)
        other.machine.state_hash()
    assert one.machine.state_save() == other.machine.state_save()


def test_saved_states_of_other_machines_are_refused() -> None:
    pc, plain = Pc(), Bare()
    for machine, state in ((pc.machine, plain.machine.state_save()), (plain.machine, pc.machine.state_save())):
        with pytest.raises(ValueError, match="state"):
            machine.state_load(state)
    saved = pc.machine.state_save()
    for offset in range(len(saved) - 328, len(saved)):
        broken = bytearray(saved)
        broken[offset] ^= 0xFF
        try:
            pc.machine.state_load(bytes(broken))
        except ValueError:
            pc.machine.state_load(saved)
        for port in (0x20, 0xA0, 0x40, 0x42, 0x61, 0x60, 0x71, 0x3F8, 0x3FA):
            pc.inp(port)
        pc.machine.state_load(saved)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_guest_writes_is_a_state_that_can_be_saved_and_repeated(seed: int) -> None:
    draw = random.Random(seed)
    ports = [*range(0x20, 0x22), *range(0x40, 0x44), 0x60, 0x61, 0x64, 0x70, 0x71, 0xA0, 0xA1, *range(0x3F8, 0x400)]
    pc, other = Pc(), Pc()
    for machine in (pc, other):
        machine.pics()
        machine.interrupts()
    snapshot = pc.machine.snapshot()
    pc.machine.choices_take()
    for turn in range(600):
        port, value = draw.choice(ports), draw.choice([draw.randrange(256), 0x20, 0x34, 0xFF, 0])
        resets = (port == 0x64 and value >= 0xF0) or port == 0x60
        if draw.random() < 0.6 and not resets:
            pc.out(port, value)
        elif draw.random() < 0.5:
            pc.inp(port)
        else:
            pc.at(2)
            pc.execute(auto(draw.randrange(1, 20 * CYCLE)))
        if turn % 50 == 0:
            saved = pc.machine.state_save()
            other.machine.write(0, pc.machine.read(0, pc.machine.ram_bytes))
            other.machine.state_load(saved)
            assert (other.machine.state_save(), other.machine.state_hash()) == (saved, pc.machine.state_hash())
    after = pc.machine.state_hash()
    pc.machine.restore(snapshot)
    assert pc.machine.state_hash() != after
