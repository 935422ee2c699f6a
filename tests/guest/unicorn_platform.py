"""docs/platform.md on Unicorn: an independent oracle that runs whole guest images on one CPU.

Unicorn (QEMU's translator) executes the instructions and walks the page tables; ports, local APIC, exceptions and
interrupts are done here, by the processor manuals. All guest code is ring 0, so no stack is ever switched.

A 64-bit image begins in 32-bit code. Unicorn does not widen the registers it shows when a CPU that was opened as a
32-bit one enters long mode, so the CPU is opened as a 64-bit one and a few instructions of ours first take it down.
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
from guest_state import PAGE_OFFSET, to_physical
from unicorn import x86_const as x86

BOOT_PARAMS = 0x10000
APIC_BASE = 0xFEE00000
TIMER_VECTOR = 0xEF
DOUBLE_FAULT = 8
PAGE_FAULT = 14
EFLAGS_IF = 0x200
STI_HLT = b"\xfb\xf4"
TRACEPOINT = re.compile(rb"\x0f\x1f\x84(.)(..)\x54\x52", re.DOTALL)
NUMBERED = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
CR0_PG, CR4_PAE = 1 << 31, 1 << 5
FRAME = 0x000FFFFFFFFFF000

# Where to stop: below the kernel's first instruction, so nowhere. Unicorn translates that address as if to execute
# there, and would leave a fault of its own in CR2 were it not mapped.
UNTIL = {32: 0xC00FFFFF, 64: 0xFFFFFFFF800FFFFF}

STEP_DOWN = 0x7000
STEP_DOWN_CODE = bytes.fromhex("48cf b820000000 8ed8 8ec0 8ed0 31c0")  # iretq; ds, es, ss = 0x20; eax = 0
STEP_DOWN_GDT = struct.pack("<5Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)


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
        self.bits = elf.elfclass
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32 if self.bits == 32 else unicorn.UC_MODE_64)
        self.uc.mem_map(0, ram_bytes)
        self.uc.mmio_map(APIC_BASE, 4096, self._apic_read, None, self._apic_write, None)
        for segment in elf.iter_segments("PT_LOAD"):
            self.uc.mem_write(segment["p_paddr"], segment.data())
        parameters = struct.pack("<4I", 0x50425452, 1, 1, ram_bytes) + command_line.encode().ljust(240, b"\0")
        self.uc.mem_write(BOOT_PARAMS, parameters)
        if self.bits == 64:
            self._step_down()
        self._set("SI", BOOT_PARAMS)
        self._set("IP", elf["e_entry"])
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, 2)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._exception)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)
        mode = capstone.CS_MODE_32 if self.bits == 32 else capstone.CS_MODE_64
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
        self._decoder.detail = True

    def _step_down(self) -> None:
        """From 64-bit code to the flat 32-bit protected mode of docs/platform.md. Leaves no trace in RAM."""
        code, gdt, stack = STEP_DOWN, STEP_DOWN + 0x100, STEP_DOWN + 0x200
        self.uc.mem_write(code, STEP_DOWN_CODE)
        self.uc.mem_write(gdt, STEP_DOWN_GDT)
        self.uc.mem_write(stack, struct.pack("<5Q", code + 2, 0x18, 2, 0, 0x20))
        self.uc.reg_write(x86.UC_X86_REG_GDTR, (0, gdt, len(STEP_DOWN_GDT) - 1, 0))
        self.uc.reg_write(x86.UC_X86_REG_RSP, stack)
        self.uc.emu_start(code, code + len(STEP_DOWN_CODE))
        self.uc.reg_write(x86.UC_X86_REG_RSP, 0)
        self.uc.mem_write(STEP_DOWN, bytes(0x300))

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

    # -- memory, by linear address of the kernel's --

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(to_physical(address, self.bits), size))

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, self.bits // 8), "little")

    # -- exceptions and interrupts --

    def _number(self, name: str) -> int:
        return int(getattr(x86, f"UC_X86_REG_{name}"))

    def _register(self, name: str) -> int:
        """A register by its full name, or by that of its 16 bits in the image's width ("IP": eip or rip)."""
        full = name if len(name) > 2 or name[1] == "S" else ("E" if self.bits == 32 else "R") + name
        return int(self.uc.reg_read(self._number(full)))

    def _set(self, name: str, value: int) -> None:
        self.uc.reg_write(self._number(("E" if self.bits == 32 else "R") + name), value)

    def _gate(self, vector: int) -> int:
        """The handler's address."""
        size = self.bits // 4
        gate = self.read(self.uc.reg_read(x86.UC_X86_REG_IDTR)[1] + vector * size, size)
        low, high = struct.unpack("<II", gate[:8])
        assert high & 0x8F00 == 0x8E00, f"vector {vector} has no interrupt gate"
        return (int.from_bytes(gate[8:12], "little") << 32) | (high & 0xFFFF0000) | (low & 0xFFFF)

    def _deliver(self, vector: int, error_code: int | None) -> None:
        """Through the guest's IDT: the frame as the CPU pushes it; interrupt gates turn interrupts off."""
        flags, sp = self._register("EFLAGS"), self._register("SP")
        frame = [self._register("IP"), self._register("CS"), flags]
        if self.bits == 64:
            frame += [sp, self._register("SS")]
            sp &= ~15
        if error_code is not None:
            frame.insert(0, error_code)
        sp -= self.bits // 8 * len(frame)
        self.uc.mem_write(to_physical(sp, self.bits), struct.pack(f"<{len(frame)}{'IQ'[self.bits == 64]}", *frame))
        self._set("SP", sp)
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, flags & ~EFLAGS_IF)
        self._set("IP", self._gate(vector))

    def _exception(self, _uc: unicorn.Uc, vector: int, _data: object) -> None:
        # Unicorn never learns that a page fault was delivered and takes the next one for a double fault, and one more
        # for a shutdown. No kernel stack is ever unmapped, so all of them are plain page faults.
        if vector == DOUBLE_FAULT:
            vector = PAGE_FAULT
        self._deliver(vector, self._fault_code() if vector == PAGE_FAULT else None)

    def _entry(self, address: int) -> int:
        """The entry at which the page walk for a linear address ends."""
        if self.bits == 64:
            size, shifts = 8, [39, 30, 21, 12]
        elif self._register("CR4") & CR4_PAE:
            size, shifts = 8, [30, 21, 12]
        else:
            size, shifts = 4, [22, 12]
        table, entry = self._register("CR3") & ~0x1F, 0
        for shift in shifts:
            index = address >> shift & ((1 << 9) - 1 if size == 8 else (1 << 10) - 1)
            entry = int.from_bytes(self.uc.mem_read(table + index * size, size), "little")
            if not entry & 1 or entry & 0x80:
                break
            table = entry & FRAME
        return entry

    def _fault_code(self) -> int:
        """Unicorn does not tell: bit 0 = the page was there, bit 1 = a write, read off the instruction."""
        entry = self._entry(self._register("CR2"))
        instruction = next(self._decoder.disasm(self.read(self._register("IP"), 15), 0))
        writes = any(
            row.type == capstone.CS_OP_MEM and row.access & capstone.CS_AC_WRITE for row in instruction.operands
        )
        return (entry & 1) | writes << 1

    def tick(self) -> bool:
        """Deliver the timer interrupt if the CPU takes it now."""
        ip = self._register("IP")
        previous = self.read(ip - 1, 1) if ip >= PAGE_OFFSET[self.bits] else b""
        shadow = previous == b"\xfb"
        if not self.timer_armed or not self._register("EFLAGS") & EFLAGS_IF or shadow:
            return False
        self._deliver(TIMER_VECTOR, None)
        return True

    # -- running --

    def on_tracepoint(self, point: Tracepoint, act: Callable[[int, int], None]) -> None:
        """Call act(base, index) whenever the tracepoint is executed."""

        def hook(_uc: unicorn.Uc, _address: int, _size: int, _data: object) -> None:
            act(self._register(NUMBERED[point.base]), self._register(NUMBERED[point.index]))

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
            self._resumed_at = self._register("IP")
            self.uc.emu_start(self._resumed_at, UNTIL[self.bits])
            if self.status is not None or self._stop_wanted:
                break
            if self.read(self._register("IP") - 2, 2) == STI_HLT:
                assert self.tick(), "halted for good"
            else:
                # Unicorn gave up on a page fault after the "double" one: see _exception().
                self._deliver(PAGE_FAULT, self._fault_code())
        return self.status is not None
