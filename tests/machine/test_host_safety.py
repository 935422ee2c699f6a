"""What must never end or hang the process of the host: each in a process of its own, which may not survive."""

import multiprocessing
import struct
from collections.abc import Callable

from programs import CODE, Bare, drain, run

from machine import BareMachine, _core

STEP_OFFSET = 8
"""Of the step number in a saved state: behind the version and the number of CPUs."""


def survives(function: Callable[[], None]) -> bool:
    """Whether `function` comes back, in a copy of this process, within ten seconds and without an error."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join(10)
    process.kill()
    process.join()
    return process.exitcode == 0


def load_store_across_pages() -> None:
    bare = Bare("movl $0x11223344,0x20ff8")
    bare.execute(run(1, hold=True))
    state = bytearray(bare.machine.state_save())
    at = state.index(struct.pack("<QQQ", 0x20FF8, 0x20FF8, 0x11223344))
    struct.pack_into("<QQ", state, at, 0x20FFC, 0x20FFC)
    struct.pack_into("<Q", state, at + 32, 8)
    try:
        bare.machine.state_load(bytes(state))
    except ValueError:
        return
    bare.execute(drain())


def load_late_step() -> None:
    bare = Bare("1: lock incl 0x20000; 2: jmp 2b")
    bare.execute(run(10))  # all decoded
    bare.machine.set_register(0, "rip", CODE)
    state = bytearray(bare.machine.state_save())
    struct.pack_into("<Q", state, STEP_OFFSET, (1 << 63) + 1)
    try:
        bare.machine.state_load(bytes(state))
    except ValueError:
        return
    bare.execute(run(20))


def fetch_with_a_nearly_full_tap() -> None:
    """The walk for the next instruction's page fills the tap before that instruction has begun."""
    for loads in range(960, 1024):
        bare = BareMachine()
        bare.map(0x1000, rights="rx")
        bare.map(0x2000, rights="rw")
        bare.map(0x3000, rights="rx")
        bare.load(0x1000, "again: mov (%rsi), %al; dec %ecx; jnz again; jmp 0x3000")
        bare.load(0x3000, "nop; nop; here: jmp here")
        bare.set(rip=0x1000, rsi=0x2000, rcx=loads)
        bare.machine.tap_capacity(1024)
        bare.machine.tap = True
        bare.machine.execute(run(3 * loads + 4))
        assert bare.machine.events()[0] >= loads


def record_eventful_step() -> None:
    """ENTER between two pages that share a TLB slot, with a full buffer that an accessed bit drains, and a page fault
    through tables of other pages: 570 events in one step."""
    machine = _core.Machine(ram_bytes=16 << 20, store_buffer=56)
    top, pointers, directory, tables = 0x100000, 0x101000, 0x102000, 0x108000

    def put(addr: int, *values: int) -> None:
        machine.write(addr, struct.pack(f"<{len(values)}Q", *values))

    put(top, pointers | 7)
    put(pointers, directory | 7)
    for n in range(6):
        put(directory + 8 * n, tables + 0x1000 * n | 7)
        put(tables + 0x1000 * n, *(0x200000 * n + i * 0x1000 | 7 for i in range(512)))
    put(tables + 0x1000 + 8 * 0x1F, 0)  # 0x21f000 is not there
    machine.write(CODE, bytes.fromhex("8b0c2500010200 ebf7"))  # 1: mov 0x20100,%ecx; jmp 1b
    machine.write(CODE + 0x80, bytes.fromhex("48890425f8a01000 ebf6"))  # 1: mov %rax,0x10a0f8; jmp 1b: a table entry
    machine.write(CODE + 0x100, bytes.fromhex("c800001f"))  # enter $0,$31
    gates, descriptors = 0x41FF1A, 0x61FFEC
    put(descriptors + 0x10, 0x00AF9A000000FFFF)
    machine.write(gates + 14 * 16, struct.pack("<HHBBHII", 0x200, 0x10, 0, 0x8E, 1, 0, 0))
    machine.set_register(0, "cr3", top)
    machine.set_bits(0, 64)
    settings = {"rsp": 0x20F03, "rbp": 0x2200EF, "rax": 0x41F007, "idt_base": gates, "idt_limit": 0xFFF}
    settings |= {"gdt_base": descriptors, "gdt_limit": 0xFF, "rip": CODE}
    for name, value in settings.items():
        machine.set_register(0, name, value)
    machine.tap_capacity(1024)
    machine.tap = True
    step = run(1, hold=True)
    while machine.events()[0] < 1023 - 55 - 8:
        machine.execute(step)
    machine.set_register(0, "rip", CODE + 0x80)
    while len(machine.store_buffer_entries(0)) < 55:
        machine.execute(step)
    machine.set_register(0, "rip", CODE)
    while machine.events()[0] < 1023:
        machine.execute(step)
    machine.set_register(0, "rip", CODE + 0x100)
    machine.execute(step)
    assert machine.events()[0] > 1023 + 512


def fetch_what_its_own_walk_changes() -> None:
    """A page table that is executed: the accessed bit of its own entry makes LOCK JNP, which is invalid, LOCK BTS. That
    has to wait for stores, and it is too late for a step to wait in."""
    table = 0x40000
    bare = Bare("movl $1, 0x8000; movl $2, 0x8008; mov $0x8000, %eax; jmp 0x400fe", store_buffer=2)
    entries = [page << 12 | 7 for page in range(256)]
    entries[0x3F:0x41] = 0x0FF00000, table | 0x8B  # f0 0f 8b 00 from 0x400fe on
    bare.machine.write(table, struct.pack("<256I", *entries))
    bare.machine.write(table + 0x1000, struct.pack("<I", table | 7))
    bare.machine.set_register(0, "cr3", table + 0x1000)
    bare.machine.set_register(0, "cr0", 0x80000011)
    bare.execute(run(4, hold=True))
    assert len(bare.machine.store_buffer_entries(0)) == 2
    bare.execute(run(1, hold=True))
    assert [row["step"] for row in bare.events("drain")] == [4, 4]
    assert bare.events("store")[-1]["info"] == _core.EVENT_LOCKED | _core.EVENT_DRAINED
    assert bare.register("rip") == 0x40102


def test_saved_store_across_pages() -> None:
    assert survives(load_store_across_pages)


def test_saved_late_step() -> None:
    assert survives(load_late_step)


def test_eventful_step() -> None:
    assert survives(record_eventful_step)


def test_fetch_with_a_nearly_full_tap() -> None:
    assert survives(fetch_with_a_nearly_full_tap)


def test_fetch_what_its_own_walk_changes() -> None:
    assert survives(fetch_what_its_own_walk_changes)
