"""Disassembly for people: capstone's text, with targets and tracepoints named. Execution never uses this."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

INSTRUCTION_BYTES_MAX: Final = 15
"""Longest x86 instruction."""

TRACEPOINT_MARK: Final = 0x5254
"""Upper half of a tracepoint's displacement (docs/platform.md)."""

_TARGET = re.compile(r"^\*?(0x[0-9a-f]+)$")
_ABSOLUTE = re.compile(r"(?<![\w$])(0x[0-9a-f]{4,16})(?![\w])")
_IMMEDIATE = re.compile(r"\$(0x[0-9a-f]{5,16})\b")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: linear address, encoding, and AT&T text with names after `#` or in `<>`."""

    address: int
    code: bytes
    text: str

    @property
    def size_bytes(self) -> int:
        """Length of the encoding."""
        return len(self.code)


_TOUCHES_STACK: Final = ("push", "pop", "call", "ret", "lret", "enter", "leave", "iret")
_TOUCHES_NOTHING: Final = ("lea", "nop")


def first_access(code: bytes, pc: int, bits: int = 32) -> int | None:
    """Address of the instruction by whose memory access each run through a function can be told; None if there is none.

    It is the first that touches memory. No jump may come before it, nor any jump of the function go to it or before it:
    then each call passes it once.

    Args:
        code: the whole function, which lies at linear address `pc`.
    """
    site = None
    for row in disassemble(code, pc, bits):
        mnemonic, _, operands = row.text.partition(" ")
        jumps = mnemonic.startswith(("j", "loop"))
        if site is None:
            if jumps or mnemonic == "(bad)":
                return None
            if mnemonic.startswith(_TOUCHES_STACK) or ("(" in operands and not mnemonic.startswith(_TOUCHES_NOTHING)):
                site = row.address
        elif jumps:
            target = _TARGET.match(operands.split(" ")[0])
            if target is not None and pc <= int(target[1], 16) <= site:
                return None
    return site


@cache
def _engine(bits: int) -> Any:
    # Imported here: it cannot be loaded under sanitizers, where tapes are tested, too.
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if bits == 32 else capstone.CS_MODE_64)
    engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    return engine


def disassemble(
    code: bytes,
    pc: int,
    bits: int = 32,
    *,
    count: int | None = None,
    name: Callable[[int], str] | None = None,
    tracepoints: Mapping[int, str] | None = None,
) -> list[Instruction]:
    """Instructions of `code`, which lies at linear address `pc`.

    Args:
        bits: 32 or 64.
        count: most instructions to return (None: all of `code`).
        name: gives an address its name (`Symbols.symbolise`); a result starting with 0x counts as no name.
        tracepoints: identifier -> name (`Symbols.tracepoints`).
    A byte that starts no instruction comes out as `(bad)`, one byte long.
    """
    found: list[Instruction] = []
    offset = 0
    while offset < len(code) and (count is None or len(found) < count):
        window = code[offset : offset + INSTRUCTION_BYTES_MAX]
        row = next(_engine(bits).disasm_lite(window, pc + offset, 1), None)
        if row is None:
            found.append(Instruction(pc + offset, code[offset : offset + 1], "(bad)"))
            offset += 1
            continue
        address, size, mnemonic, operands = row
        encoding = window[:size]
        text = f"{mnemonic} {_named(mnemonic, operands, name)}".rstrip()
        mark = _tracepoint(encoding)
        if mark is not None:
            text += f"  # tracepoint {(tracepoints or {}).get(mark, mark)}"
        found.append(Instruction(address, bytes(encoding), text))
        offset += size
    return found


def _named(mnemonic: str, operands: str, name: Callable[[int], str] | None) -> str:
    if name is None:
        return str(operands)
    target = _TARGET.match(operands)
    if target and mnemonic.startswith(("j", "call", "loop")):
        known = name(int(target[1], 16))
        return operands if known.startswith("0x") else f"{operands} <{known}>"
    notes = [
        known
        for found in (*_ABSOLUTE.findall(operands), *_IMMEDIATE.findall(operands))
        if not (known := name(int(found, 16))).startswith("0x")
    ]
    return f"{operands}  # {', '.join(dict.fromkeys(notes))}" if notes else str(operands)


def _tracepoint(encoding: bytes) -> int | None:
    """The identifier if `encoding` is the 8-byte NOP that marks a tracepoint."""
    if len(encoding) != 8 or encoding[:3] != b"\x0f\x1f\x84":
        return None
    displacement = int.from_bytes(encoding[4:], "little")
    return displacement & 0xFFFF if displacement >> 16 == TRACEPOINT_MARK else None
