"""test_replay.py for long mode and PAE; and that a run is the same one step at a time as at a stretch."""

import random
import struct
from collections.abc import Callable

import pytest
from programs import Bare, assemble, run
from random_programs import random_plan
from random_programs_64 import MODES, RAM, Mode, build
from test_replay import final, run_all, run_slices, take_events

from machine import _core

Columns = list[bytearray]


def machine_of(seed: int) -> tuple[random.Random, _core.Machine, Mode]:
    r = random.Random(seed)
    mode = MODES[seed % len(MODES)]
    machine = _core.Machine(cpus=r.choice((1, 2, 2, 3)), ram_bytes=RAM, store_buffer=r.choice((1, 3, 8, 56)))
    machine.tap_capacity(
        r.choice((4096, 4096, 2500, 1 << 16))
    )  # room for chains of instructions, and now and then none
    machine.tap = True
    build(r, machine, mode)
    return r, machine, mode


def run_steps(machine: _core.Machine, plan: bytes) -> tuple[str, Columns]:
    """run_all with a tentative plan, one step a call."""
    index = done = 0
    pieces = [bytearray() for _ in range(9)]
    while True:
        reason, index, done = machine.execute(plan, index=index, done=done, step_max=machine.step + 1)
        take_events(machine, pieces)
        if reason in ("events", "steps", "trace"):
            continue
        if reason in ("choice", "idle") and index + 1 < len(plan) // 16:
            index, done = index + 1, 0
            continue
        return reason, pieces


def check(seed: int) -> None:
    r, machine, _ = machine_of(seed)
    start = machine.snapshot()
    plan = random_plan(r, machine.cpus, 50)
    reason, events = run_all(machine, plan, exact=False)
    choices, end = machine.choices_take(), final(machine)

    machine.restore(start)
    assert run_steps(machine, plan) == (reason, events)
    assert (machine.choices_take(), final(machine)) == (choices, end)

    machine.restore(start)
    assert run_slices(machine, choices, r) == events
    assert (machine.choices_take(), final(machine)) == (choices, end)

    # In a new machine, at a stretch, without the tap.
    _, other, _ = machine_of(seed)
    other.tap = False
    run_all(other, choices, exact=True)
    assert final(other) == end


@pytest.mark.parametrize("seed", [0, 20, 40, 60, 80])
def test_replay(seed: int) -> None:
    for number in range(seed, seed + 20):
        check(number)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10_000, 40_000, 1000))
def test_replay_soak(seed: int) -> None:
    for number in range(seed, seed + 1000):
        check(number)


def test_random_systems_do_something() -> None:
    """Systems of each mode run for a while, and all that can happen happens."""
    kinds: set[int] = set()
    steps: dict[Mode, list[int]] = {}
    for seed in range(100):
        r, machine, mode = machine_of(seed)
        machine.tap_capacity(1 << 16)
        machine.execute(random_plan(r, machine.cpus, 50))
        kinds.update(bytes(machine.events()[6]))
        steps.setdefault(mode, []).append(machine.step)
    assert all(sum(counts) / len(counts) > 60 for counts in steps.values()), steps
    missing = {name for name, number in _core.EVENT_KINDS.items() if number not in kinds}
    assert missing <= {"trace", "choice", "exit", "nmi", "start"}, missing


def one_go_and_steps(make: Callable[[], _core.Machine], plan: bytes) -> tuple[tuple, tuple]:
    """What a plan comes to at a stretch, and one step at a time with restored snapshots in between."""
    machine = make()
    machine.choices_take()
    machine.execute(plan)
    stretch = machine.choices_take(), final(machine)
    machine = make()
    machine.choices_take()
    index = done = 0
    while index < len(plan) // 16:
        _, index, done = machine.execute(plan, index=index, done=done, step_max=machine.step + 1)
        machine.restore(machine.snapshot())
    return stretch, (machine.choices_take(), final(machine))


def test_jump_of_16_bits_in_a_page_at_two_addresses() -> None:
    """One page at 0x8000 and at 0x18000: its 16-bit jump goes to 0x8010 from both."""

    def make() -> _core.Machine:
        bare = Bare()
        machine = bare.machine
        table = [page << 12 | 7 for page in range(256)]
        table[0x8] = table[0x18] = 0x10007
        machine.write(0x5000, struct.pack("<256I", *table))
        machine.write(0x4000, struct.pack("<I", 0x5007))
        text = """
            jmp start; .balign 16
            tail: call 1f; 1: pop %esi; jmp *%edx; .balign 64
            start: .byte 0x66,0xe9; .word tail-(.+2)
        """
        machine.write(0x10000, assemble(text, 0x8000))
        machine.write(
            0x20000,
            assemble(
                """
                    mov $3,%ecx
                    again: mov $next,%edx; mov $0x8000,%eax; jmp *%eax
                    next: loop again
                    mov $end,%edx; mov $0x18000,%eax; jmp *%eax
                    end: jmp end
                """,
                0x20000,
            ),
        )
        for name, value in {"cr3": 0x4000, "cr0": 0x80000011, "rip": 0x20000}.items():
            machine.set_register(0, name, value)
        return machine

    stretch, steps = one_go_and_steps(make, run(200))
    assert stretch == steps


def test_pop_of_a_register_with_a_full_buffer() -> None:
    """8F C0 stores nothing, so it need not wait; a run that did not wait must be replayed in steps, too."""
    text = "movl $1,0x20000; .byte 0x8f,0xc0; nop; nop; nop"
    stretch, steps = one_go_and_steps(lambda: Bare(text, store_buffer=1).machine, run(5, hold=True))
    assert stretch == steps


def test_breakpoint_hit_by_an_instruction_that_faults() -> None:
    """MOVS reads a watched word and faults on its store; the handler's first instruction is not what hit it."""

    def make() -> _core.Machine:
        bare = Bare("movsl; nop; nop")
        machine = bare.machine
        table = [page << 12 | 7 if page != 0x30 else 0 for page in range(256)]
        machine.write(0x5000, struct.pack("<256I", *table))
        machine.write(0x4000, struct.pack("<I", 0x5007))
        machine.write(0x6000, assemble("nop; nop; nop; 1: jmp 1b", 0x6000))
        bare.gate(14, 0x6000)
        bare.gate(1, 0x6100)
        settings = {"cr3": 0x4000, "cr0": 0x80000011, "rsi": 0x20000, "rdi": 0x30000, "dr0": 0x20000, "dr7": 0xF0001}
        for name, value in settings.items():
            machine.set_register(0, name, value)
        return machine

    stretch, steps = one_go_and_steps(make, run(4))
    assert stretch == steps
