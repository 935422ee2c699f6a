"""Backtraces of i386 and x86-64 guest code, which drgn does not unwind for i386.

Call-frame information (.debug_frame) comes first: it is exact at every instruction, also inside a prologue and in a
leaf function that keeps no frame pointer. C code without it is unwound by its frame pointer. Assembly without it (the
interrupt and exception entry stubs, the first instructions of a thread) ends the trace: guessing there would name
callers that never called.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from machine.errors import ExpressionError, ImageError
from machine.symbols import Frame, Symbols

DEPTH_MAX: Final = 64
"""Most machine-level frames of one backtrace: a cyclic stack must end."""

DWARF_REGISTERS: Final = {
    32: ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "rip"),
    64: (
        "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp",
        "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
    ),
}  # fmt: skip
"""DWARF register number -> name in `Machine.registers`, per width."""

ReadWord = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One source-level frame of a backtrace.

    Attributes:
        pc: linear address: of the current instruction (innermost), else the return address.
        function, file, line, inlined: as in `Frame`.
        cfa: canonical frame address: the stack pointer before the call; 0 where unwinding stopped.
    """

    pc: int
    function: str
    file: str
    line: int
    inlined: bool
    cfa: int

    @property
    def place(self) -> str:
        """`mm/compaction.c:231`, or "" if unknown."""
        return f"{self.file}:{self.line}" if self.file else ""


class Unwinder:
    """Unwinds stacks of code of one image. Parsing .debug_frame happens once, at the first backtrace.

    Args:
        symbols: of the image; its `read` supplies stack memory.
    """

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._names = DWARF_REGISTERS[symbols.bits]
        self._word_bytes = symbols.bits // 8
        self._starts: list[int] | None = None
        self._entries: list[Any] = []

    def backtrace(self, registers: Mapping[str, int], *, depth_max: int = DEPTH_MAX) -> list[StackFrame]:
        """The frames from the innermost outwards, inlined functions included. Never empty, never fails.

        Args:
            registers: in `Machine.registers` form (rip, rsp, rbp and the callee-saved ones matter).
            depth_max: most machine-level frames to follow.
        """
        mask = (1 << self._symbols.bits) - 1
        current = {name: registers[name] & mask for name in self._names if name in registers}
        found: list[StackFrame] = []
        cfa_before = 0
        for depth in range(depth_max):
            pc = current["rip"]
            # A return address may belong to the next line, or (after a call that never returns) function.
            frames = self._symbols.frames(pc - 1 if depth else pc)
            step = self._caller(pc - 1 if depth else pc, frames[0], current)
            cfa = step[0] if step else 0
            found += [StackFrame(pc, row.function, row.file, row.line, row.inlined, cfa) for row in frames]
            if step is None:
                break
            cfa, current = step
            # A stack that does not grow towards its base is none; zero marks a thread's start.
            if cfa <= cfa_before or not self._symbols.is_code(current["rip"]):
                break
            cfa_before = cfa
        return found

    def _caller(self, pc: int, frame: Frame, registers: dict[str, int]) -> tuple[int, dict[str, int]] | None:
        """(CFA, registers in the caller), or None where the trace ends."""
        try:
            row = self._row(pc)
            if row is not None:
                return self._by_table(row, registers)
            # Without a table only compiled C keeps the frame-pointer chain.
            if frame.file.endswith((".c", ".h")):
                return self._by_frame_pointer(registers)
        except (ExpressionError, ImageError, KeyError):
            pass
        return None

    def _by_frame_pointer(self, registers: dict[str, int]) -> tuple[int, dict[str, int]]:
        base = registers["rbp"]
        caller = dict(registers)
        caller["rbp"] = self._word(base)
        caller["rip"] = self._word(base + self._word_bytes)
        caller["rsp"] = base + 2 * self._word_bytes
        return caller["rsp"], caller

    def _by_table(self, row: Mapping[Any, Any], registers: dict[str, int]) -> tuple[int, dict[str, int]] | None:
        rule = row["cfa"]
        if rule.expr is not None:
            # Stack realignment: the CFA is an expression, but such functions always keep a frame pointer.
            return self._by_frame_pointer(registers)
        cfa = (registers[self._names[rule.reg]] + rule.offset) & ((1 << self._symbols.bits) - 1)
        caller = dict(registers)
        caller["rsp"] = cfa
        for number, how in row.items():
            if not isinstance(number, int) or number >= len(self._names):
                continue
            name = self._names[number]
            if how.type == "OFFSET":
                caller[name] = self._word(cfa + how.arg)
            elif how.type == "VAL_OFFSET":
                caller[name] = cfa + how.arg
            elif how.type == "REGISTER":
                caller[name] = registers[self._names[how.arg]]
            elif how.type == "UNDEFINED":
                caller.pop(name, None)
        if "rip" not in caller or caller["rip"] == 0:
            return None
        return cfa, caller

    def _word(self, address: int) -> int:
        return int.from_bytes(self._symbols.read(address, self._word_bytes), "little")

    def _row(self, pc: int) -> Mapping[Any, Any] | None:
        """The call-frame row that holds at `pc`, or None without information."""
        if self._starts is None:
            self._load()
        assert self._starts is not None
        index = bisect_right(self._starts, pc) - 1
        if index < 0:
            return None
        entry = self._entries[index]
        if pc >= entry["initial_location"] + entry["address_range"]:
            return None
        best: Mapping[Any, Any] | None = None
        try:
            for row in entry.get_decoded().table:
                if row["pc"] > pc:
                    break
                best = row
        except Exception as error:  # pyelftools has many types for damaged tables
            raise ExpressionError(f"call-frame information of {pc:#x} is damaged") from error
        return best

    def _load(self) -> None:
        try:
            info = ELFFile(io.BytesIO(self._symbols.image)).get_dwarf_info()
            rows = info.CFI_entries() if info.has_CFI() else info.EH_CFI_entries() if info.has_EH_CFI() else []
            self._entries = sorted(
                (row for row in rows if isinstance(row, FDE)), key=lambda row: int(row["initial_location"])
            )
        except Exception as error:
            self._starts = []
            raise ImageError(f"call-frame information of the guest image cannot be read ({error})") from error
        self._starts = [int(row["initial_location"]) for row in self._entries]
