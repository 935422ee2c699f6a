"""A machine with a test's threads in place: code, variables, registers, page tables.

Linear addresses are physical ones. Only the test's own pages are mapped, with accessed and dirty bits already set: an
access beside the variables faults instead of going unnoticed, and page walks write nothing.
"""

from __future__ import annotations

import struct
from typing import Final, NoReturn

from machine import _core
from recorder.litmus.assembler import Assembled
from recorder.litmus.errors import LitmusError
from recorder.litmus.layout import BASE, PAGE_BYTES
from recorder.litmus.registers import ALL, LEGACY

STORE_BUFFER: Final = 56
"""Stores a CPU can hold: the most there is, so that capacity does not limit what is seen."""

_TABLES: Final = 0x1000
_BOOT: Final = 0x8000
_ENTRY: Final = 0x9000
_PRESENT, _WRITABLE, _ACCESSED, _DIRTY = 1, 2, 0x20, 0x40
_CR0_PE, _CR0_WP, _CR0_PG = 1, 1 << 16, 1 << 31
_START_OTHERS: Final = 0xC0600
"""Start-up IPI to all but self, to be or-ed with a page number."""

_FAULTS: Final = {0: "#DE (divide error)", 6: "#UD (invalid opcode)", 13: "#GP (general protection)", 14: "#PF"}


def record(op: int, cpu: int, arg: int, flags: int = 0) -> bytes:
    """One record of a plan."""
    return struct.pack("<BBHIQ", op, cpu, flags, 0, arg)


class Stage:
    """The machine for one test, with `cpus` CPUs, none of which has executed anything of the test."""

    def __init__(self, assembled: Assembled, cpus: int) -> None:
        self.assembled = assembled
        self.layout = assembled.layout
        bits = assembled.test.bits
        # A test without PUSH and the like has no stack: one page less to compare.
        self.data_end = self.layout.stack_page + (PAGE_BYTES if assembled.uses_stack else 0)
        end = self.layout.code_page + len(assembled.code)
        ram_bytes = -(-end // PAGE_BYTES) * PAGE_BYTES
        self.machine = m = _core.Machine(cpus=cpus, ram_bytes=ram_bytes, store_buffer=STORE_BUFFER)
        m.choices_enabled = False
        _start_all(m)
        self.register_names = LEGACY if bits == 32 else ALL
        m.write(self.layout.code_page, assembled.code)
        m.write(BASE, self.layout.initial())
        write_identity_tables(m, _TABLES, bits, self._pages(ram_bytes))
        for cpu in range(cpus):
            enter_paging(m, cpu, _TABLES, bits)
            for name in ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"):
                m.set_register(cpu, name, 0)

    def _pages(self, ram_bytes: int) -> dict[int, int]:
        """Address -> entry flags of every page that the test may touch."""
        pages = {}
        for page in range(self.layout.code_page, ram_bytes, PAGE_BYTES):
            pages[page] = _PRESENT | _ACCESSED
        for page in range(BASE, self.data_end, PAGE_BYTES):
            pages[page] = _PRESENT | _WRITABLE | _ACCESSED | _DIRTY
        return pages

    def context(self, thread: int) -> dict[str, int]:
        """Initial registers of a thread, by the names of the core."""
        registers = dict.fromkeys(self.register_names, 0)
        registers["rsp"] = self.layout.stack_top(thread)
        test = self.assembled.test
        for start in test.registers:
            if test.thread_index(start.thread) == thread:
                registers[start.register] = self.layout.resolve(start.value)
        return {**registers, "rip": self.assembled.threads[thread].start, "rflags": 2}

    def memory(self) -> bytes:
        """All memory that the test can change."""
        return self.machine.read(BASE, self.data_end - BASE)

    def blame(self, cpu: int, thread: int, reason: str, again: bytes) -> NoReturn:
        """Raise a LitmusError for the instruction at which a run stopped with `reason`.

        The machine must be in the state before the run; `again` is the plan, run once more to hear of the fault.
        """
        m = self.machine
        m.events_clear()
        m.tap = True
        m.execute(again, exact=True)
        count, _, pcs, addrs, _, _, kinds, *_rest, infos = m.events()
        m.tap = False
        faults = [i for i in range(count) if kinds[i] == _core.EVENT_KINDS["fault"]]
        pc = int(pcs[faults[0]]) if faults else m.registers(cpu)["rip"]
        row = self.assembled.threads[thread].instructions.get(pc)
        if faults:
            vector = int(infos[faults[0]])
            what = f"faults: {_FAULTS.get(vector, f'exception {vector}')}"
            if vector == 14:
                what = f"touches address {int(addrs[faults[0]]):#x}, where no variable of the test lies"
        else:
            what = f"cannot go on ({reason})"
        text, line = (row.text, row.line) if row else (f"address {pc:#x}", 0)
        name = self.assembled.test.thread_names[thread]
        m.events_clear()
        raise LitmusError(self.assembled.test.path, line, f"P{name}: `{text}` {what}")


def _start_all(m: _core.Machine) -> None:
    """Start every CPU, as guests do: CPU 0 sends a start-up IPI to all others."""
    if m.cpus > 1:
        m.write(_BOOT, b"\xc7\x05\x00\x03\xe0\xfe" + struct.pack("<I", _START_OTHERS | _ENTRY >> 12))
        m.set_register(0, "rip", _BOOT)
        m.execute(record(_core.RUN, 0, 1))
    assert all(m.waiting(cpu) == "" for cpu in range(m.cpus))


def write_identity_tables(m: _core.Machine, root: int, bits: int, pages: dict[int, int]) -> None:
    """Page tables at physical address `root` that map these 4 KB pages (address -> flags) to themselves.

    All below 2 MB. Takes 2 pages from `root` on for 32-bit code (2 levels), 4 for 64-bit code (4 levels).
    """
    assert all(page < 1 << 21 for page in pages)
    upper = _PRESENT | _WRITABLE | _ACCESSED
    levels, entry = (2, "<I") if bits == 32 else (4, "<Q")
    for level in range(levels - 1):
        m.write(root + level * PAGE_BYTES, struct.pack(entry, root + (level + 1) * PAGE_BYTES | upper))
    table = root + (levels - 1) * PAGE_BYTES
    for page, flags in pages.items():
        m.write(table + page // PAGE_BYTES * struct.calcsize(entry), struct.pack(entry, page | flags))


def enter_paging(m: _core.Machine, cpu: int, root: int, bits: int) -> None:
    """Put a CPU into flat 32-bit or 64-bit code at privilege 0 under the page tables at `root`."""
    m.set_register(cpu, "cr3", root)
    if bits == 64:
        m.set_bits(cpu, 64)
    m.set_register(cpu, "cr0", _CR0_PG | _CR0_WP | _CR0_PE)
