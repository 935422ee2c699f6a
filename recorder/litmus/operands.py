"""Operands of an instruction as litmus tests write them, AT&T or Intel.

$1  $-1  $0x10  5           constant           $x          address of a variable
%eax  EAX                   register           L           label (jumps) or variable
(x)  [x]  x+4  x(%rip)      memory at a variable
(%rdi)  4(%rdi)  8(%rdi,%rcx,4)  [rdi+rcx*4+8]  dword ptr [x]   memory at registers
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from recorder.litmus.registers import part
from recorder.litmus.tokens import integer

_PTR: Final = re.compile(r"(byte|word|dword|qword|oword|xmmword)\s+ptr\b\s*", re.IGNORECASE)
_PTR_BYTES: Final = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "oword": 16, "xmmword": 16}
_NUMBER: Final = r"-?(?:0[xX][0-9a-fA-F]{1,40}|\d{1,40})"
_NAME: Final = r"[A-Za-z_][\w.]*"
_SEGMENT: Final = re.compile(r"%?([c-gs]s)\s*:", re.IGNORECASE)


class OperandError(Exception):
    """Says what is wrong with an operand."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register, by its lower-case name."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant, or the address of a variable plus a constant."""

    value: int
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """`variable + offset + base + index * scale`; registers by lower-case name, "" for none. `size_bytes` is what the
    operand itself says (`dword ptr`), 0 mostly. `bare`: a name alone, which in a jump is a label."""

    variable: str = ""
    offset: int = 0
    base: str = ""
    index: str = ""
    scale: int = 1
    size_bytes: int = 0
    bare: bool = False


Operand = Register | Constant | Memory


def split_operands(text: str) -> list[str]:
    """The operands' texts: commas inside brackets separate nothing."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    parts.append(text[start:].strip())
    return parts if text.strip() else []


def parse_operand(text: str, bits: int) -> Operand:
    """Raises OperandError."""
    if _SEGMENT.match(text):
        raise OperandError(f"{text}: segments mean nothing in a litmus test")
    if text.startswith("*"):
        raise OperandError(f"{text}: indirect jumps are not supported")
    if text.startswith("$"):
        variable, offset = _sum(text[1:].strip(), text)
        return Constant(offset, variable)
    if re.fullmatch(_NUMBER, text):
        return Constant(integer(text))
    if register := _register(text, bits):
        return Register(register)
    if text.startswith("%"):
        raise OperandError(f"{text}: no register of {bits}-bit code (herd's symbolic registers are not supported)")
    if re.fullmatch(_NAME, text):
        return Memory(variable=text, bare=True)
    size_bytes = 0
    if ptr := _PTR.match(text):
        size_bytes, text = _PTR_BYTES[ptr[1].lower()], text[ptr.end() :]
    return replace(_memory(text, bits), size_bytes=size_bytes)


def _register(text: str, bits: int) -> str:
    name = text.removeprefix("%").strip().lower()
    if name in ("rip", "eip"):
        return "rip"
    return name if part(name, bits) else ""


def _memory(text: str, bits: int) -> Memory:
    """`disp(base,index,scale)`, `disp[...]` or `[sum]`."""
    match = re.fullmatch(r"([^()\[\]]*)([(\[])([^()\[\]]*)[)\]]", text)
    if match is None:
        variable, offset = _sum(text, text)
        return Memory(variable=variable, offset=offset)
    before, bracket, inside = match[1].strip(), match[2], match[3].strip()
    variable, offset = _sum(before, text) if before else ("", 0)
    if bracket == "(" and "," in inside:
        fields = [field.strip() for field in inside.split(",")]
        if len(fields) > 3:
            raise OperandError(f"{text}: no address")
        base, index = (_address_register(field, bits, text) for field in fields[:2])
        scale = _scale(fields[2], text) if len(fields) == 3 and fields[2] else 1
        return Memory(variable, offset, base, index, scale)
    memory = Memory(variable, offset)
    for term in re.findall(r"[+-]?[^+-]+", inside.replace(" ", "")):
        memory = _add_term(memory, term, bits, text)
    if not inside:
        raise OperandError(f"{text}: no address")
    return memory


def _address_register(text: str, bits: int, whole: str) -> str:
    if not text:
        return ""
    register = _register(text, bits)
    if not register:
        raise OperandError(f"{whole}: {text} is no register")
    return register


def _add_term(memory: Memory, term: str, bits: int, whole: str) -> Memory:
    """One term of the sum in brackets: a number, a variable, a register, or a register times a scale."""
    plain = term.removeprefix("+")
    if re.fullmatch(_NUMBER, plain):
        return replace(memory, offset=memory.offset + integer(plain))
    if match := re.fullmatch(r"(%?\w+)\*([1248])|([1248])\*(%?\w+)", plain):
        register = _register(match[1] or match[4], bits)
        if register and not memory.index:
            return replace(memory, index=register, scale=int(match[2] or match[3]))
    elif register := _register(plain, bits):
        if not memory.base:
            return replace(memory, base=register)
        if not memory.index:
            return replace(memory, index=register, scale=1)
    elif re.fullmatch(_NAME, plain) and not memory.variable:
        return replace(memory, variable=plain)
    raise OperandError(f"{whole}: no address")


def _scale(text: str, whole: str) -> int:
    if text not in ("1", "2", "4", "8"):
        raise OperandError(f"{whole}: the scale must be 1, 2, 4 or 8")
    return int(text)


def _sum(text: str, whole: str) -> tuple[str, int]:
    """(variable or "", constant) of `x+4`, `-4`, `4+x`."""
    variable, offset = "", 0
    compact = text.replace(" ", "")
    if not re.fullmatch(rf"[+-]?(?:{_NAME}|0[xX][0-9a-fA-F]+|\d+)(?:[+-](?:{_NAME}|0[xX][0-9a-fA-F]+|\d+))*", compact):
        raise OperandError(f"{whole}: neither constant, register nor address")
    for term in re.findall(r"[+-]?[^+-]+", compact):
        plain = term.removeprefix("+")
        if re.fullmatch(_NUMBER, plain):
            offset += integer(plain)
        elif not variable and re.fullmatch(_NAME, plain):
            variable = plain
        else:
            raise OperandError(f"{whole}: a sum of numbers and at most one variable, no number longer than 40 digits")
    return variable, offset
