"""Names of x86 registers and their parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

LEGACY: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
"""The eight registers that 32-bit code has, by their 64-bit names."""

ALL: Final = (*LEGACY, *(f"r{number}" for number in range(8, 16)))
"""All sixteen, by their 64-bit names."""


@dataclass(frozen=True, slots=True)
class Part:
    """A register's name: the 64-bit register it is a part of, its size, and its distance in bits from bit 0."""

    register: str
    size_bytes: int
    shift: int = 0


def _parts() -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for register in LEGACY:
        letters = register[1:]
        parts[register] = Part(register, 8)
        parts["e" + letters] = Part(register, 4)
        parts[letters] = Part(register, 2)
        parts[letters[0] + "l" if letters.endswith("x") else letters + "l"] = Part(register, 1)
        if letters.endswith("x"):
            parts[letters[0] + "h"] = Part(register, 1, 8)
    for register in ALL[8:]:
        parts[register] = Part(register, 8)
        parts |= {register + suffix: Part(register, size) for suffix, size in (("d", 4), ("w", 2), ("b", 1), ("l", 1))}
    return parts


PARTS: Final = _parts()
"""Lower-case name -> part."""


@cache
def part(name: str, bits: int) -> Part | None:
    """The part of a register that `name` (any case) means in code of this width, or None."""
    found = PARTS.get(name.lower())
    if found is None or (bits == 32 and (found.size_bytes == 8 or found.register not in LEGACY)):
        return None
    if bits == 32 and found.size_bytes == 1 and found.register in LEGACY[4:]:
        return None  # SPL, BPL, SIL, DIL need a REX prefix
    return found


def shown(register: str, bits: int) -> str:
    """How results name a register: as herd does, `rax` in 64-bit tests and `EAX` in 32-bit ones."""
    return register if bits == 64 else "E" + register[1:].upper()
