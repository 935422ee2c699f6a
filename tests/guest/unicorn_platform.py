"""docs/platform.md on Unicorn: an independent oracle that runs whole guest images on one CPU.

Unicorn (QEMU's translator) executes the instructions and walks the page tables; ports, local APIC, exceptions and
interrupts are done here, by the processor manuals. All guest code is ring 0, so no stack is ever switched.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import capstone
import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import x86_const as x86

PAGE_OFFSET = 0xC0000000
BOOT_PARAMS = 0x10000
APIC_BASE = 0xFEE00000
TIMER_VECTOR = 0xEF
DOUBLE_FAULT = 8
PAGE_FAULT = 14
EFLAGS_IF = 0x200
STI_HLT = b"\xfb\xf4"
TRACEPOINT = re.compile(rb"\x0f\x1f\x84(.)(..)\x54\x52", re.DOTALL)
REGISTERS = [
    x86.UC_X86_REG_EAX,
    x86.UC_X86_REG_ECX,
    x86.UC_X86_REG_EDX,
    x86.UC_X86_REG_EBX,
    x86.UC_X86_REG_ESP,
    x86.UC_X86_REG_EBP,
    x86.UC_X86_REG_ESI,
    x86.UC_X86_REG_EDI,
]


@dataclass(frozen=True)
class Tracepoint:
    """One tracepoint instruction of an image."""

    address: int
    identifier: int
    base: int
    index: int


def tracepoints(image: bytes) -> list[Tracepoint]:
    """All tracepoint instructions in an image's code, found by their bytes."""
    text = ELFFile(io.BytesIO(image)).get_section_by_name(".text")
    found = []
    for match in TRACEPOINT.finditer(text.data()):
        sib = match[1][0]
        address = text["sh_addr"] + match.start()
        found.append(Tracepoint(address, int.from_bytes(match[2], "little"), sib & 7, sib >> 3 & 7))
    return found


class UnicornGuest:
    """One image on one emulated CPU."""

    def __init__(self, image: bytes, command_line: str, ram_bytes: int) -> None:
        self.console = bytearray()
        self.status: int | None = None
        self._resumed_at = -1
        self._stop_wanted = False
        self.apic = {0x30: 0x00050014}
        elf = ELFFile(io.BytesIO(image))
        symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
        self.symbols = {row.name: row["st_value"] for row in symbols}
        self.functions = {row["st_value"] for row in symbols if row["st_info"]["type"] == "STT_FUNC"}
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.uc.mem_map(0, ram_bytes)
        self.uc.mmio_map(APIC_BASE, 4096, self._apic_read, None, self._apic_write, None)
        for segment in elf.iter_segments("PT_LOAD"):
            self.uc.mem_write(segment["p_paddr"], segment.data())
        parameters = struct.pack("<4I", 0x50425452, 1, 1, ram_bytes) + command_line.encode().ljust(240, b"\0")
        self.uc.mem_write(BOOT_PARAMS, parameters)
        self.uc.reg_write(x86.UC_X86_REG_ESI, BOOT_PARAMS)
        self.uc.reg_write(x86.UC_X86_REG_EIP, elf["e_entry"])
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, 2)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._exception)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        self._decoder.detail = True

    # -- devices --

    def _apic_read(self, _uc: object, offset: int, _size: int, _data: object) -> int:
        return self.apic.get(offset, 0)

    def _apic_write(self, _uc: object, offset: int, _size: int, value: int, _data: object) -> None:
        self.apic[offset] = value

    def _out(self, uc: unicorn.Uc, port: int, _size: int, value: int, _data: object) -> None:
        if port == 0xE9:
            self.console.append(value & 0xFF)
        elif port == 0xF4:
            self.status = value
            uc.emu_stop()
        else:
            raise AssertionError(f"unexpected port {port:#x}")

    @property
    def timer_armed(self) -> bool:
        return self.apic.get(0x380, 0) != 0 and not self.apic.get(0x320, 1 << 16) & 1 << 16

    # -- memory, by linear address in lowmem --

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(address - PAGE_OFFSET, size))

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    # -- exceptions and interrupts --

    def _register(self, name: str) -> int:
        return int(self.uc.reg_read(getattr(x86, f"UC_X86_REG_{name}")))

    def _deliver(self, vector: int, error_code: int | None) -> None:
        """Through the guest's IDT: push flags, cs, eip (and the code); interrupt gates turn interrupts off."""
        low, high = struct.unpack("<II", self.read(self.uc.reg_read(x86.UC_X86_REG_IDTR)[1] + vector * 8, 8))
        assert high & 0x8F00 == 0x8E00, f"vector {vector} has no interrupt gate"
        flags = self._register("EFLAGS")
        frame = [self._register("EIP"), self._register("CS"), flags]
        if error_code is not None:
            frame.insert(0, error_code)
        esp = self._register("ESP") - 4 * len(frame)
        self.uc.mem_write(esp - PAGE_OFFSET, struct.pack(f"<{len(frame)}I", *frame))
        self.uc.reg_write(x86.UC_X86_REG_ESP, esp)
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, flags & ~EFLAGS_IF)
        self.uc.reg_write(x86.UC_X86_REG_EIP, (high & 0xFFFF0000) | (low & 0xFFFF))

    def _exception(self, _uc: unicorn.Uc, vector: int, _data: object) -> None:
        # Unicorn never learns that a page fault was delivered and takes the next one for a double fault, and one more
        # for a shutdown. No kernel stack is ever unmapped, so all of them are plain page faults.
        if vector == DOUBLE_FAULT:
            vector = PAGE_FAULT
        self._deliver(vector, self._fault_code() if vector == PAGE_FAULT else None)

    def _fault_code(self) -> int:
        """Unicorn does not tell: bit 0 = the page was there, bit 1 = a write, read off the instruction."""
        address = self._register("CR2")
        directory = self._register("CR3") & ~0xFFF
        entry = int.from_bytes(self.uc.mem_read(directory + (address >> 22) * 4, 4), "little")
        if entry & 1 and not entry & 0x80:
            slot = (entry & ~0xFFF) + (address >> 12 & 0x3FF) * 4
            entry = int.from_bytes(self.uc.mem_read(slot, 4), "little")
        code = self.read(self._register("EIP"), 15)
        instruction = next(self._decoder.disasm(code, 0))
        writes = any(
            row.type == capstone.CS_OP_MEM and row.access & capstone.CS_AC_WRITE for row in instruction.operands
        )
        return (entry & 1) | writes << 1

    def tick(self) -> bool:
        """Deliver the timer interrupt if the CPU takes it now."""
        previous = self.read(self._register("EIP") - 1, 1) if self._register("EIP") >= PAGE_OFFSET else b""
        shadow = previous == b"\xfb"
        if not self.timer_armed or not self._register("EFLAGS") & EFLAGS_IF or shadow:
            return False
        self._deliver(TIMER_VECTOR, None)
        return True

    # -- running --

    def on_tracepoint(self, point: Tracepoint, act: Callable[[int, int], None]) -> None:
        """Call act(base, index) whenever the tracepoint is executed."""

        def hook(uc: unicorn.Uc, _address: int, _size: int, _data: object) -> None:
            act(uc.reg_read(REGISTERS[point.base]), uc.reg_read(REGISTERS[point.index]))

        self.uc.hook_add(unicorn.UC_HOOK_CODE, hook, None, point.address, point.address)

    def stop_at_function_entries(self, next_gap: Callable[[], int]) -> None:
        """Make `run` come back at a function's entry every next_gap() calls.

        Unicorn loses track of lazily computed flags when it is stopped anywhere else; at an entry no flag is alive.
        """
        gap = next_gap()

        def hook(uc: unicorn.Uc, address: int, _size: int, _data: object) -> None:
            nonlocal gap
            # Going on from a stop meets the same entry again.
            if address == self._resumed_at:
                self._resumed_at = -1
                return
            gap -= 1
            if gap == 0:
                gap = next_gap()
                self._stop_wanted = True
                uc.emu_stop()

        for address in self.functions:
            self.uc.hook_add(unicorn.UC_HOOK_CODE, hook, None, address, address)

    def run(self) -> bool:
        """Run to the exit, or to the next stop; the timer ticks when the CPU halts. Returns whether it is the exit."""
        while self.status is None:
            self._stop_wanted = False
            self._resumed_at = self._register("EIP")
            self.uc.emu_start(self._resumed_at, 0xFFFFFFFF)
            if self.status is not None or self._stop_wanted:
                break
            if self.read(self._register("EIP") - 2, 2) == STI_HLT:
                assert self.tick(), "halted for good"
            else:
                # Unicorn gave up on a page fault after the "double" one: see _exception().
                self._deliver(PAGE_FAULT, self._fault_code())
        return self.status is not None
