"""Edges that once went wrong: the default schedule's promises, segment limits, odd arguments from Python."""

from __future__ import annotations

import io
import struct

import pytest
from programs import auto, record, run

from machine import _core
from machine._core import Machine

CODE = 0x1000
OTHER_CODE = 0x2000
FLAG = 0x3000
GDT = 0x4000
IDT = 0x5000


def running(code: str, *, cpus: int = 1) -> Machine:
    machine = Machine(cpus=cpus, ram_bytes=1 << 20)
    machine.write(CODE, bytes.fromhex(code))
    machine.set_register(0, "rip", CODE)
    machine.set_register(0, "rsp", 0x9000)
    return machine


def test_auto_drains_held_stores_while_a_cpu_runs() -> None:
    """A store held by an earlier part of the plan becomes visible, though its CPU goes on spinning."""
    machine = running("c7050030000001000000 f390 ebfc")  # mov dword [FLAG], 1; pause; jmp to the pause
    machine.execute(run(1, hold=True))
    assert len(machine.store_buffer_entries(0)) == 1
    assert machine.read(FLAG, 4) == bytes(4)
    machine.execute(auto(5))
    assert machine.store_buffer_entries(0) == []
    assert machine.read(FLAG, 4) == b"\1\0\0\0"


@pytest.mark.parametrize("step_max", range(1, 12))
def test_auto_never_passes_step_max(step_max: int) -> None:
    """Timer armed, everything idle: the tick is a step like any other."""
    # mov dword [apic+0x320], 0x40; mov dword [apic+0x380], 1; sti; hlt; jmp to the hlt
    machine = running("c7052003e0fe40000000 c7058003e0fe01000000 fb f4 ebfd")
    machine.write(GDT + 0x10, struct.pack("<Q", 0x00CF9B000000FFFF))
    machine.write(IDT + 0x40 * 8, struct.pack("<HHHH", OTHER_CODE, 0x10, 0x8E00, 0))
    machine.write(OTHER_CODE, bytes.fromhex("c705b000e0fe00000000 cf"))  # end of interrupt; iret
    for name, value in (("gdt_base", GDT), ("gdt_limit", 0x17), ("idt_base", IDT), ("idt_limit", 0x7FF)):
        machine.set_register(0, name, value)
    reason, _, _ = machine.execute(auto(1 << 20), step_max=step_max)
    assert (reason, machine.step) == ("steps", step_max)


def test_code_beyond_its_segment_limit_is_not_executed() -> None:
    """Also if only the end of the instruction lies beyond."""
    machine = running("b801000000 90")  # mov eax, 1: bytes CODE .. CODE + 4
    machine.write(GDT + 0x10, struct.pack("<Q", 0x00409B0000000000 | CODE + 2))  # limit: the third byte
    machine.write(GDT + 0x18, struct.pack("<Q", 0x00CF93000000FFFF))
    machine.set_register(0, "gdt_base", GDT)
    machine.set_register(0, "gdt_limit", 0x1F)
    machine.write(OTHER_CODE, bytes.fromhex("ea 00100000 1000"))  # ljmp 0x10:CODE
    machine.set_register(0, "rip", OTHER_CODE)
    machine.tap = True
    machine.execute(run(2))
    _, _, pc, addr, _, _, kind, _, _, info = machine.events()
    faults = [(pc[i], info[i]) for i in range(len(kind)) if kind[i] == _core.EVENT_KINDS["fault"]]
    assert faults[0] == (CODE, 13)
    assert machine.registers(0)["rax"] == 0
    del pc, addr, kind, info


def test_an_interrupt_frame_respects_the_stack_limit() -> None:
    machine = running("90")
    machine.write(GDT + 0x10, struct.pack("<Q", 0x00CF9B000000FFFF))
    machine.write(GDT + 0x18, struct.pack("<Q", 0x0040930000000FFF))  # data, limit 0xfff
    machine.write(IDT + 0x40 * 8, struct.pack("<HHHH", OTHER_CODE, 0x10, 0x8E00, 0))
    for name, value in (("gdt_base", GDT), ("gdt_limit", 0x1F), ("idt_base", IDT), ("idt_limit", 0x7FF)):
        machine.set_register(0, name, value)
    machine.write(0x6000, bytes.fromhex("66b81800 8ed0 cd40"))  # mov ax, 0x18; mov ss, ax; int 0x40
    machine.set_register(0, "rip", 0x6000)
    machine.tap = True
    machine.execute(run(3))
    count, *_, kind, _, _, info = machine.events()
    vectors = [info[i] for i in range(count) if kind[i] == _core.EVENT_KINDS["fault"]]
    assert vectors[0] == 12
    del kind, info


def test_event_columns_are_read_only() -> None:
    machine = running("a100300000 f4")
    machine.tap = True
    machine.execute(run(1))
    column = machine.events()[1]
    assert column.readonly
    with pytest.raises(TypeError):
        io.BytesIO(b"\xff" * 8).readinto(column.obj)  # type: ignore[arg-type]


def test_a_full_tap_that_is_off_stops_nothing() -> None:
    machine = running("a100300000 ebf9")  # load; jump back to it
    machine.tap_capacity(1024)
    machine.tap = True
    assert machine.execute(run(1 << 20))[0] == "events"
    machine.tap = False
    before = machine.step
    assert machine.execute(run(1000))[0] == "plan"
    assert machine.step == before + 1000


@pytest.mark.parametrize("op", [_core.RUN, _core.DRAIN, _core.AUTO])
def test_done_beyond_the_record_is_refused(op: int) -> None:
    machine = running("ebfe")
    with pytest.raises(ValueError, match="done"):
        machine.execute(record(op, 3), done=100, step_max=1000)


@pytest.mark.parametrize("number", [-1, 1 << 64, (1 << 64) + 1])
def test_numbers_that_do_not_fit_are_refused(number: int) -> None:
    machine = running("ebfe")
    for call in (
        lambda: Machine(cpus=number),
        lambda: Machine(ram_bytes=number),
        lambda: machine.read(number, 4),
        lambda: machine.translate(0, number),
        lambda: machine.registers(number),
        lambda: machine.execute(b"", step_max=number),
    ):
        with pytest.raises(ValueError, match="64 bits"):
            call()


def test_endbr_is_a_hint() -> None:
    machine = running("f30f1efb f30f1efa 90")
    machine.execute(run(3))
    assert machine.registers(0)["rip"] == CODE + 9
