"""A load over the border of a cache line takes two steps, and so does CMPS (docs/decisions/0015)."""

import struct

import pytest

from machine import _core
from racetape import BareMachine

CODE, LOW, HIGH = 0x1000, 0x8000, 0x9000
BORDER = HIGH - 2  # of two pages, so of two cache lines
PENDING_VECTOR = 0x41


def machine(text: str, *, paging: str = "2-level", cpus: int = 1) -> BareMachine:
    """About to load four bytes at BORDER, two on each page."""
    m = BareMachine(32, paging=paging, cpus=cpus)  # type: ignore[arg-type]
    if paging != "none":
        for page in (CODE, LOW, HIGH):
            m.map(page, rights="rwx")
    m.load(CODE, text)
    m.write(BORDER, struct.pack("<I", 0x44332211))
    for cpu in range(cpus):
        m.set(cpu=cpu, rip=CODE, rbx=BORDER)
    return m


@pytest.mark.parametrize(
    ("text", "register", "expected"),
    [
        ("mov (%ebx), %eax", "eax", 0xEEDD2211),
        ("add (%ebx), %eax", "eax", 0xEEDD2211),
        ("xor %eax, (%ebx); mov (%ebx), %ax", "ax", 0x2211),
        ("push (%ebx)", None, 0xEEDD2211),
        ("movzwl 1(%ebx), %eax", "eax", 0xDD22),
        ("mov %ebx, %esi; lodsl", "eax", 0xEEDD2211),
    ],
)
def test_what_changes_between_the_halves_is_seen(text: str, register: str | None, expected: int) -> None:
    m = machine(text)
    m.set(rsp=LOW + 0x100)
    first = text.count("mov %ebx")
    m.step(first + 1)
    before = m.registers()
    m.write(BORDER, struct.pack("<I", 0xEEDDCCBB))
    run = m.step()
    assert [(e.addr, e.size) for e in run.of("load")] == [(HIGH, 4 - 2 if "1(" not in text else 1)]
    if register is None:
        assert m.read_int(m.get("esp")) == expected
    elif register == "ax":  # the read-modify-write has stored what it loaded, half old and half new
        assert m.read_int(BORDER) == 0xEEDD2211
    else:
        assert m.get(register) == expected
    assert before["retired"] + 1 == m.registers()["retired"]
    assert m.machine.partial_loads(0) == ()


def test_the_first_step_changes_nothing_but_what_it_keeps() -> None:
    m = machine("mov (%ebx), %eax; nop")
    before = m.registers()
    run = m.step()
    assert m.registers() == before
    assert m.machine.partial_loads(0) == (0x2211,)
    assert [(e.kind, e.value) for e in run.of("load", "store")] == [("load", 0x2211)]
    m.set(rip=CODE)
    assert m.machine.partial_loads(0) == ()


@pytest.mark.parametrize("refreshed", [False, True])
def test_another_instruction_takes_no_half(refreshed: bool) -> None:
    """One that was written there in between, and loads within a line, loads what is there, known page or not."""
    m = machine("mov (%esi), %ecx; mov (%ebx), %eax; nop")
    m.write_int(LOW + 0x10, 0xDDCCBBAA)
    m.set(rsi=LOW + 0x10)
    m.step(2)
    assert m.machine.partial_loads(0) == (0x2211,)
    m.machine.write(m.machine.translate(0, CODE + 2), bytes.fromhex("8b06"))  # mov (%esi), %eax
    if refreshed:
        m.machine.restore(m.machine.snapshot())
    m.step()
    assert m.get("eax") == 0xDDCCBBAA
    assert m.machine.partial_loads(0) == ()


def test_no_interrupt_comes_in_between() -> None:
    m = machine("movl $0x44041, 0x300(%edi); sti; nop; mov (%ebx), %eax; nop")
    m.map(0xFEE00000, phys=0xFEE00000, rights="rw")
    m.map(0x20000, 0x2000)
    m.add_tables(0x20000, stack=LOW + 0x800)
    m.gate(PENDING_VECTOR, CODE + 0x800)
    m.set(rip=CODE, rdi=0xFEE00000, rsp=LOW + 0x100)
    m.step(3)
    assert m.machine.can_interrupt(0, PENDING_VECTOR)
    m.step()
    assert m.machine.partial_loads(0)
    assert not m.machine.can_interrupt(0, PENDING_VECTOR)
    assert m.interrupt(PENDING_VECTOR).reason == "diverged"
    m.step()
    assert m.get("eax") == 0x44332211
    assert m.interrupt(PENDING_VECTOR).reason == "plan"
    assert m.get("eip") == CODE + 0x800


def test_a_missing_page_is_found_before_anything_is_loaded() -> None:
    m = machine("mov (%ebx), %eax")
    m.map(0x20000, 0x2000)
    m.add_tables(0x20000, stack=LOW + 0x800)
    m.gate(14, CODE + 0x800)
    m.unmap(HIGH)
    m.set(rip=CODE, rsp=LOW + 0x100)
    run = m.step()
    assert [e.addr for e in run.of("fault")] == [HIGH]
    assert not [e for e in run.of("load") if e.addr >= BORDER and e.addr < HIGH + 4]
    assert m.get("cr2") == HIGH


def test_a_page_that_goes_in_between_is_a_fault_and_the_load_begins_anew() -> None:
    m = machine("mov (%ebx), %eax")
    m.map(0x20000, 0x2000)
    m.add_tables(0x20000, stack=LOW + 0x800)
    m.gate(14, CODE + 0x800)
    m.load(CODE + 0x800, "add $4, %esp; iret")
    m.set(rip=CODE, rsp=LOW + 0x100)
    m.step()
    at = m.entry_address(HIGH)
    entry = m.machine.read(at, 4)
    m.machine.write(at, bytes(4))
    m.play([("evict", 0, HIGH)])
    run = m.step()
    assert [e.addr for e in run.of("fault")] == [HIGH]
    assert m.machine.partial_loads(0) == ()
    m.machine.write(at, entry)
    m.write(BORDER, struct.pack("<I", 0x88776655))
    m.step(2)
    assert m.get("eip") == CODE
    m.step(2)
    assert m.get("eax") == 0x88776655


def test_another_instruction_written_there_does_not_take_over() -> None:
    m = machine("mov (%ebx), %eax; mov 0x100(%ebx), %edx; hlt")
    m.write(BORDER + 0x100, struct.pack("<I", 0xAABBCCDD))
    m.step()
    m.machine.write(m.machine.translate(0, CODE), b"\x90\x90")  # type: ignore[arg-type]
    m.step(2)
    assert m.machine.partial_loads(0) == ()
    assert m.get("eax") == 0
    m.step(2)
    assert m.get("edx") == 0xAABBCCDD


def test_a_saved_state_holds_the_half() -> None:
    m = machine("mov (%ebx), %eax; hlt", paging="none")
    m.step()
    snapshot, saved, hashed = m.machine.snapshot(), m.machine.state_save(), m.machine.state_hash()
    m.write(BORDER, bytes(4))
    m.step(2)
    ended = m.machine.state_hash()
    assert m.get("eax") == 0x2211
    m.machine.restore(snapshot)
    assert m.machine.state_hash() == hashed
    m.write(BORDER, bytes(4))
    m.step(2)
    assert m.machine.state_hash() == ended
    other = machine("mov (%ebx), %eax; hlt", paging="none")
    other.machine.state_load(saved)
    assert other.machine.partial_loads(0) == (0x2211,)
    other.write(BORDER, bytes(4))
    other.step(2)
    assert other.get("eax") == 0x2211
    assert other.machine.state_hash() == ended


def test_a_saved_state_with_too_many_halves_is_refused() -> None:
    m = machine("mov (%ebx), %eax; hlt", paging="none")
    m.step()
    saved = bytearray(m.machine.state_save())
    at = saved.index(struct.pack("<IIQ", 1, 0, 0x2211))
    saved[at] = 4
    with pytest.raises(ValueError, match="state"):
        m.machine.state_load(bytes(saved))


def test_locked_instructions_and_loads_within_a_line_take_one_step() -> None:
    for text in ("lock add %eax, (%ebx)", "xchg %eax, (%ebx)", "mov -1(%ebx), %ax", "mov 2(%ebx), %eax"):
        m = machine(text)
        m.step()
        assert m.get("eip") != CODE, text


def test_a_watched_load_traps_once_when_it_is_done() -> None:
    m = machine("mov (%ebx), %eax; nop; nop")
    m.map(0x20000, 0x2000)
    m.add_tables(0x20000, stack=LOW + 0x800)
    m.gate(1, CODE + 0x800)
    m.set(rip=CODE, rsp=LOW + 0x100, dr0=BORDER, dr7=0x402 | 0xB << 16)  # reads and writes of two bytes
    runs = [m.step() for _ in range(2)]
    assert [len(run.of("fault")) for run in runs] == [0, 1]
    assert m.get("eax") == 0x44332211
    assert m.get("dr6") & 0xF == 1


def test_events_and_states_do_not_depend_on_how_steps_are_grouped() -> None:
    text = "again: mov (%ebx), %eax; add %eax, (%ebx); rep movsl; mov $5, %ecx; cmpsl; jmp again"
    found = []
    for sizes in ((200,), (1,) * 200, (3, 4, 5, 7, 1) * 10):
        m = machine(text, paging="none")
        m.set(rsi=LOW + 0x21, rdi=LOW + 0x417, rcx=5)
        runs = [m.step(size) for size in sizes]
        found.append((m.machine.state_hash(), [event for run in runs for event in run.events]))
    assert found[0] == found[1] == found[2]
    assert _core.STATE_VERSION >= 4
