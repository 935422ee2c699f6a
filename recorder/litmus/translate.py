"""One instruction of a litmus test into one line for the GNU assembler, in AT&T order with explicit sizes.

X86_64 tests are in AT&T order; X86 tests, as herd reads them, in Intel order (`MOV [x],$1`), unless they write
registers as `%eax` or put a constant first. An instruction whose size nothing tells works on an int, as in herd.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from recorder.litmus.operands import Constant, Memory, Operand, OperandError, Register, parse_operand, split_operands
from recorder.litmus.registers import PARTS, part

_PREFIXES: Final = ("lock", "rep", "repe", "repz", "repne", "repnz")
_SUFFIX: Final = {1: "b", 2: "w", 4: "l", 8: "q"}
_SIZE: Final = {suffix: size for size, suffix in _SUFFIX.items()}
_SIZED_TEXT: Final = """
    mov add sub adc sbb and or xor cmp test inc dec neg not xchg cmpxchg xadd bt bts btr btc shl sal shr sar rol ror rcl
    rcr shld shrd mul imul div idiv push pop movnti bsf bsr popcnt lzcnt tzcnt movbe bswap
"""
_SIZED: Final = frozenset(_SIZED_TEXT.split())
"""Mnemonics that take a size suffix."""
_SHIFTS: Final = frozenset({"shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr"})
_ALIASES: Final = {"jgt": "jg", "jlt": "jl", "endbr64": "nop", "endbr32": "nop"}
"""herd's names for what the assembler calls otherwise; ENDBR is a NOP where there is no control-flow enforcement."""
_STRINGS: Final = frozenset({"movsd", "stosd", "lodsd", "cmpsd", "scasd"})
"""Intel's names of string instructions on doublewords."""
_JUMPS: Final = re.compile(
    r"j(?:mp|n?[abegl]e?|n?[coszp]|p[eo]|gt|lt|r?cxz|ecxz)|loop(?:n?[ez])?|retq?|retl?|call[lq]?", re.IGNORECASE
)
_FORBIDDEN: Final = {
    "call": "calls are not supported", "calll": "calls are not supported", "callq": "calls are not supported",
    "uxch": "no x86 instruction (XCHG with memory is always locked)",
    "rdtsc": "its value is the number of the step", "rdtscp": "its value is the number of the step",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Names:
    """How a test's own names are spelled in the assembler text.

    absolute, relative: symbol of a variable as an address, and as a place in the section (for RIP-relative operands).
    label: symbol of a label of the thread, end: symbol behind the thread's last instruction.
    """

    absolute: Callable[[str], str]
    relative: Callable[[str], str]
    label: Callable[[str], str]
    labels: Collection[str]
    end: str


def att_order(texts: Collection[str], bits: int) -> bool:
    """Whether a test's instructions are in AT&T order."""
    if bits == 64:
        return True
    for text in texts:
        if any(part(name, 64) for name in re.findall(r"%(\w+)", text)):
            return True
        operands = split_operands(_split(text)[2])
        if len(operands) == 2 and operands[0].startswith("$") and not operands[1].startswith("$"):
            return True
    return False


def variables_of(text: str, bits: int, labels: Collection[str]) -> list[tuple[str, int]]:
    """Variables that an instruction names, each with the size in bytes of the access (0 if only its address is used).

    Raises OperandError.
    """
    _, mnemonic, rest = _split(text)
    if _JUMPS.fullmatch(mnemonic):
        return []
    operands = [parse_operand(operand, bits) for operand in split_operands(rest)]
    size = _access_size(mnemonic, operands)
    found = []
    for operand in operands:
        if isinstance(operand, Memory) and operand.variable:
            if operand.bare and operand.variable in labels:
                raise OperandError(f"{operand.variable} is a label")
            found.append((operand.variable, 0 if operand.offset or operand.base not in ("", "rip") else size))
        elif isinstance(operand, Constant) and operand.variable:
            found.append((operand.variable, 0))
    return found


def translate(text: str, bits: int, att: bool, names: Names) -> str:
    """The line for the assembler. Raises OperandError."""
    prefixes, mnemonic, rest = _split(text)
    if mnemonic in _FORBIDDEN:
        raise OperandError(f"{mnemonic}: {_FORBIDDEN[mnemonic]}")
    before = "".join(prefix + " " for prefix in prefixes)
    if _JUMPS.fullmatch(mnemonic):
        return before + _jump(mnemonic, rest, names)
    mnemonic = _ALIASES.get(mnemonic, mnemonic)
    if not rest.strip() and mnemonic in _STRINGS:
        mnemonic = mnemonic[:-1] + "l"
    operands = [parse_operand(operand, bits) for operand in split_operands(rest)]
    if not att and mnemonic != "enter":  # which is the one instruction in the same order everywhere
        operands.reverse()
    base, size = _base(mnemonic)
    operands = _in_order(base, operands)
    if base in ("movzx", "movsx"):
        mnemonic = _extension(base, operands)
    elif base in _SIZED or base.startswith("cmov"):
        mnemonic = base + _SUFFIX.get(size or _size_of(base, operands), "")
    return f"{before}{mnemonic} {', '.join(_operand(operand, bits, names) for operand in operands)}".rstrip()


def _split(text: str) -> tuple[list[str], str, str]:
    """Prefixes, mnemonic (lower case) and the rest."""
    prefixes: list[str] = []
    while True:
        match = re.fullmatch(r"\s*([A-Za-z][A-Za-z0-9]*)\b\s*;?\s*(.*)", text, re.DOTALL)
        if match is None:
            raise OperandError(f"{text!r} is no instruction")
        word, text = match[1].lower(), match[2]
        if word not in _PREFIXES:
            return prefixes, word, text
        prefixes.append(word)
        if len(prefixes) > 4:
            raise OperandError("too many prefixes")


def _base(mnemonic: str) -> tuple[str, int]:
    """The mnemonic without its size suffix, and the size in bytes (0 without one)."""
    if mnemonic in _SIZED or mnemonic in ("movzx", "movsx", "movsxd"):
        return mnemonic, 0
    if mnemonic[:-1] in _SIZED and mnemonic[-1] in _SIZE:
        return mnemonic[:-1], _SIZE[mnemonic[-1]]
    # cmovcl is CMOVC of a long, cmovl and cmovnl are CMOVs on "less".
    if re.fullmatch(r"cmov(?:n?[abgl]e?|n?[ecoszp]|p[eo])[wlq]", mnemonic):
        return mnemonic[:-1], _SIZE[mnemonic[-1]]
    return mnemonic, 0


def _size_of(base: str, operands: list[Operand]) -> int:
    """Size in bytes of an instruction without suffix; 0 where it has none to tell."""
    for position, operand in enumerate(operands):
        is_count = base in (*_SHIFTS, "shld", "shrd") and operand == Register("cl") and len(operands) > 1
        if (
            isinstance(operand, Register)
            and operand.name in PARTS
            and not (is_count and position in (0, len(operands) - 1))
        ):
            return PARTS[operand.name].size_bytes
    if base in ("cmpxchg8b", "cmpxchg16b"):
        return 8 if base == "cmpxchg8b" else 16
    for operand in operands:
        if isinstance(operand, Memory):
            return operand.size_bytes or (4 if base in _SIZED else 0)
    return 0


def _access_size(mnemonic: str, operands: list[Operand]) -> int:
    """Size in bytes of what an instruction accesses in memory; 0 if it accesses nothing or does not tell."""
    if mnemonic.startswith("lea"):
        return 0
    if match := re.fullmatch(r"mov[sz]([bwl])[wlq]", mnemonic):
        return _SIZE[match[1]]
    if mnemonic in ("movzx", "movsx", "movsxd"):
        return next((operand.size_bytes for operand in operands if isinstance(operand, Memory)), 0)
    base, size = _base(mnemonic)
    return size or _size_of(base, operands)


def _extension(base: str, operands: list[Operand]) -> str:
    """movzx and movsx as the assembler wants them: movzbl and the like."""
    if len(operands) != 2 or not isinstance(operands[1], Register):
        raise OperandError(f"{base} needs a source and a register")
    source = operands[0]
    size = source.size_bytes if isinstance(source, Memory) else _size_of(base, [source])
    if not size:
        raise OperandError(f"{base}: the size of the source is missing, write {base[:4]}bl or {base[:4]}wl")
    return base[:4] + _SUFFIX.get(size, "") + _SUFFIX[_size_of(base, [operands[1]])]


def _in_order(base: str, operands: list[Operand]) -> list[Operand]:
    """herd has read `cmpxchg (x),%ebx` and `cmovc %eax,(x)` too; there only one order makes sense."""
    if len(operands) == 2:
        memory_first = isinstance(operands[0], Memory) and isinstance(operands[1], Register)
        memory_last = isinstance(operands[0], Register) and isinstance(operands[1], Memory)
        if (base == "cmpxchg" and memory_first) or (base.startswith("cmov") and memory_last):
            return operands[::-1]
    return operands


def _jump(mnemonic: str, rest: str, names: Names) -> str:
    if mnemonic.startswith("ret"):
        return f"jmp {names.end}"  # as in herd's tests from compilers: the thread is over
    label = rest.strip()
    if label not in names.labels:
        raise OperandError(f"{mnemonic} {label}: no such label in this thread")
    return f"{_ALIASES.get(mnemonic, mnemonic)} {names.label(label)}"


def _operand(operand: Operand, bits: int, names: Names) -> str:
    match operand:
        case Register(name):
            return "%" + name
        case Constant(value, variable):
            return f"${names.absolute(variable)}+({value})" if variable else f"${value}"
        case Memory():
            return _memory(operand, bits, names)


def _memory(operand: Memory, bits: int, names: Names) -> str:
    if operand.base == "rip":
        if bits == 32 or operand.index or not operand.variable:
            raise OperandError("RIP-relative operands are `x(%rip)`, in 64-bit code")
        return f"{names.relative(operand.variable)}+({operand.offset})(%rip)"
    place = f"{names.absolute(operand.variable)}+({operand.offset})" if operand.variable else str(operand.offset)
    operand = _same_width(operand)
    if not operand.base and not operand.index:
        return place
    index = f",%{operand.index},{operand.scale}" if operand.index else ""
    return f"{place}({'%' + operand.base if operand.base else ''}{index})"


def _same_width(operand: Memory) -> Memory:
    """herd looks at the register behind a name only: `(%rax,%ebx,8)` is `(%rax,%rbx,8)`."""
    if operand.base and operand.index:
        base, index = PARTS.get(operand.base), PARTS.get(operand.index)
        if base and index and base.size_bytes != index.size_bytes:
            return replace(operand, base=base.register, index=index.register)
    return operand
