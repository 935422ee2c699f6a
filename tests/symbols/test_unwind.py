"""Backtraces against a shadow call stack, at every single instruction of a run in an independent emulator."""

from collections.abc import Callable

import pytest
import unicorn
from unicorn import x86_const

from machine.symbols import Symbols
from machine.unwind import Unwinder

STACK_TOP = 0x20000
# Unicorn without page tables has no upper half: above 4 GB is far enough to notice truncation.
TEXT = {32: 0xC0100000, 64: 0x500100000}
REGISTERS = {
    32: ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip"),
    64: ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip"),
}


def load(image: bytes) -> tuple[unicorn.Uc, Symbols]:
    """The program in unicorn, and symbols that read its memory."""
    bits = Symbols(image).bits
    emulator = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32 if bits == 32 else unicorn.UC_MODE_64)
    emulator.mem_map(STACK_TOP - 0x10000, 0x10000)
    emulator.mem_map(TEXT[bits], 0x10000)
    for row in Symbols(image).segments:
        if row.vaddr >= TEXT[bits]:
            emulator.mem_write(row.vaddr, row.data)
    emulator.reg_write(x86_const.UC_X86_REG_ESP if bits == 32 else x86_const.UC_X86_REG_RSP, STACK_TOP - 16)

    def read(address: int, size: int) -> bytes:
        try:
            return bytes(emulator.mem_read(address, size))
        except unicorn.UcError as error:
            raise LookupError(address) from error

    return emulator, Symbols(image, read)


def registers(emulator: unicorn.Uc, bits: int) -> dict[str, int]:
    """Registers in the names of Machine.registers."""
    names = REGISTERS[bits]
    return {"r" + name[1:]: emulator.reg_read(getattr(x86_const, f"UC_X86_REG_{name.upper()}")) for name in names}


def run(image: bytes, visit: Callable[[unicorn.Uc, Symbols, list[str]], None]) -> None:
    """Call `visit` before every instruction with the functions that are truly active, innermost first."""
    emulator, symbols = load(image)
    entries = {symbols.symbol(name).address: name for name in ("isolate", "factorial", "aligned", "compact")}
    entries |= {symbols.symbol(name).address: name for name in ("from_stub", "_start")}
    active: list[str] = []
    leaving = False

    def hook(machine: unicorn.Uc, address: int, size: int, _data: object) -> None:
        nonlocal leaving
        if leaving:
            active.pop(0)
        if address in entries:
            active.insert(0, entries[address])
        leaving = bytes(machine.mem_read(address, 1)) in (b"\xc3", b"\xc2")
        visit(machine, symbols, list(active))

    emulator.hook_add(unicorn.UC_HOOK_CODE, hook)
    emulator.emu_start(symbols.symbol("_start").address, 0, timeout=20_000_000)


def test_every_instruction(each_image: bytes) -> None:
    seen = 0
    unwinders: list[Unwinder] = []

    def visit(machine: unicorn.Uc, symbols: Symbols, active: list[str]) -> None:
        nonlocal seen
        if not unwinders:
            unwinders.append(Unwinder(symbols))
        found = unwinders[0].backtrace(registers(machine, symbols.bits))
        assert [row.function for row in found if not row.inlined] == active
        seen += 1

    run(each_image, visit)
    assert seen > 200


def test_inlined_frames_are_expanded_with_call_lines(each_image: bytes) -> None:
    traces: list[list[tuple[str, bool]]] = []

    def visit(machine: unicorn.Uc, symbols: Symbols, active: list[str]) -> None:
        if active[:1] == ["isolate"] and len(traces) < 20:
            found = Unwinder(symbols).backtrace(registers(machine, symbols.bits))
            traces.append([(row.function, row.inlined) for row in found[:3]])
            assert all(row.line > 0 for row in found[:-1])

    run(each_image, visit)
    assert [("atomic_add", True), ("acct_isolated", True), ("isolate", False)] in traces


def test_bad_stacks_end_cleanly(each_image: bytes) -> None:
    symbols = Symbols(each_image)
    unwinder = Unwinder(symbols)
    pc = symbols.symbol("compact").address + 10
    for stack in (0, 0xFFFFFFF0, 0xC0100000, 0x12345678):
        state = dict.fromkeys(("rax", "rcx", "rdx", "rbx", "rsi", "rdi"), 0) | {"rsp": stack, "rbp": stack, "rip": pc}
        found = unwinder.backtrace(state)
        assert found[0].function == "compact"
        assert len(found) < 70
    assert unwinder.backtrace({"rip": 0, "rsp": 0, "rbp": 0})[0].function == "0x0"


def test_a_cyclic_stack_is_bounded(each_image: bytes) -> None:
    symbols = Symbols(each_image)
    pc = symbols.symbol("factorial").address
    endless = Symbols(each_image, lambda address, size: pc.to_bytes(8, "little")[:size])
    state = dict.fromkeys(("rax", "rcx", "rdx", "rbx", "rsi", "rdi", "rbp"), 0) | {"rsp": 0x1000, "rip": pc}
    assert len(Unwinder(endless).backtrace(state, depth_max=20)) <= 60


@pytest.mark.parametrize("depth", [1, 2])
def test_depth_limit(each_image: bytes, depth: int) -> None:
    depths: list[int] = []

    def visit(machine: unicorn.Uc, symbols: Symbols, active: list[str]) -> None:
        if len(active) == 5 and len(depths) < 3:
            found = Unwinder(symbols).backtrace(registers(machine, symbols.bits), depth_max=depth)
            depths.append(sum(not row.inlined for row in found))

    run(each_image, visit)
    assert set(depths) == {depth}
