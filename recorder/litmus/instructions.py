"""What the exploration must know about each instruction of a test's machine code.

Only *local* instructions may run without a scheduling point, so being local is what has to be proved: a local one
touches no memory, or does nothing but put one store into the CPU's own buffer, and every other step of any CPU
commutes with it. Whatever is not known to be local is treated as visible, which costs time and never outcomes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

import capstone
from capstone import x86_const

from recorder.litmus.registers import PARTS


class Kind(Enum):
    """How an instruction takes part in the schedule."""

    LOCAL = "registers only"
    BRANCH = "registers only, and the next instruction is not the one behind it"
    STORE = "one plain store, no load"
    FENCE = "waits for the store buffer, nothing else"
    LOCKED = "waits for the store buffer, then loads and stores in one step"
    REPEATED = "a string instruction, one step an iteration"
    VISIBLE = "all others"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: linear address, length, kind, and what the file says.

    writes: the registers it writes, 64-bit names with the most bytes written. uses_stack: it names or moves RSP.
    """

    address: int
    size_bytes: int
    kind: Kind
    text: str
    line: int
    writes: dict[str, int]
    uses_stack: bool


_REGISTER_ONLY_TEXT: Final = """
    mov movzx movsx movsxd movabs lea add adc sub sbb and or xor not neg inc dec cmp test shl sal shr sar rol ror rcl
    rcr shld shrd bt bts btr btc bsf bsr imul mul xchg xadd cmpxchg bswap cwde cbw cdqe cwd cdq cqo nop pause lfence
    sfence clc stc cmc lahf sahf popcnt lzcnt tzcnt crc32
"""
_REGISTER_ONLY: Final = frozenset(_REGISTER_ONLY_TEXT.split())
"""Instructions that touch nothing but registers, if no operand is in memory (NOP and LEA never touch it)."""
_CONDITIONAL: Final = re.compile(r"cmov|set")
_BRANCH: Final = re.compile(r"j|loop")
_PLAIN_STORES: Final = re.compile(r"mov|movabs|movnti|set[a-z]+")
_REFUSED_GROUPS: Final = {
    x86_const.X86_GRP_PRIVILEGE: "privileged",
    x86_const.X86_GRP_INT: "an interrupt",
    x86_const.X86_GRP_IRET: "an interrupt",
    x86_const.X86_GRP_CALL: "a call",
    x86_const.X86_GRP_RET: "a return",
}
_STACK: Final = re.compile(r"push|pop(?!cnt)|enter|leave")
"""Instructions of the stack: capstone does not tell of every one that it moves RSP."""
_REFUSED_TEXT: Final = """
    in out insb insw insd outsb outsw outsd rdtsc rdtscp hlt cli sti popf popfd popfq ud2 syscall sysenter sgdt sidt
    sldt str smsw clts rdmsr monitor mwait rdfsbase rdgsbase wrfsbase wrgsbase lds les lfs lgs lss ljmp lar lsl verr
    verw
"""
_REFUSED: Final = frozenset(_REFUSED_TEXT.split())


@cache
def _engine(bits: int) -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if bits == 32 else capstone.CS_MODE_64)
    engine.detail = True
    return engine


def decode(code: bytes, address: int, bits: int) -> list[Any]:
    """capstone's instructions, with details."""
    return list(_engine(bits).disasm(code, address))


def refusal(row: Any) -> str:
    """Why a litmus test cannot hold this instruction, "" if it can."""
    for group in row.groups:
        if group in _REFUSED_GROUPS:
            return _REFUSED_GROUPS[group]
    return f"{row.mnemonic} is not for litmus tests" if row.mnemonic.split()[-1] in _REFUSED else ""


def instruction(row: Any, text: str, line: int) -> Instruction:
    """From capstone's view of an instruction and the file's."""
    writes: dict[str, int] = {}
    read_ids, written_ids = row.regs_access()
    for register in written_ids:
        part = PARTS.get(row.reg_name(register))
        if part:
            writes[part.register] = max(writes.get(part.register, 0), part.size_bytes)
    named = {row.reg_name(register) for register in (*read_ids, *written_ids)}
    uses_stack = bool(named & {"rsp", "esp", "sp", "spl"}) or bool(_STACK.match(row.mnemonic))
    return Instruction(row.address, row.size, _kind(row), text, line, writes, uses_stack)


def _kind(row: Any) -> Kind:
    mnemonic = row.mnemonic
    if mnemonic.startswith("lock"):
        return Kind.LOCKED
    if mnemonic.startswith("rep"):
        return Kind.REPEATED
    if mnemonic == "mfence":
        return Kind.FENCE
    in_memory = [operand.type == x86_const.X86_OP_MEM for operand in row.operands]
    if mnemonic in ("nop", "lea") or (not any(in_memory) and _registers_only(row)):
        return Kind.LOCAL
    if mnemonic == "xchg":
        return Kind.LOCKED
    if not any(in_memory) and _BRANCH.match(mnemonic):
        return Kind.BRANCH
    if _PLAIN_STORES.fullmatch(mnemonic) and in_memory[0] and not any(in_memory[1:]):
        return Kind.STORE
    return Kind.VISIBLE


def _registers_only(row: Any) -> bool:
    """By name: prefixed mnemonics ("rep stosd") and segment, control or debug registers are never in the list."""
    if row.mnemonic not in _REGISTER_ONLY and not _CONDITIONAL.match(row.mnemonic):
        return False
    registers = [row.reg_name(operand.reg) for operand in row.operands if operand.type == x86_const.X86_OP_REG]
    return all(register in PARTS for register in registers)
