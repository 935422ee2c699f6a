"""The classic x86-TSO tests, with what is known about them.

Each: name, threads (CPUs separated by ` | `), initial memory, condition, whether x86-TSO allows it, and the number of
final states over all loaded registers and all variables. Verdicts and counts were computed by independent checkers,
herd7 among them, and run on hardware.

Notation: `x=1` store, `a=x` load into register a, `xchg x,a`, `lock inc x`, `mfence`; `.b` and `.w` after a variable
make the access 8 or 16 bits wide, `+n` moves it. Registers a, c, d, b are EAX, ECX, EDX, EBX.
"""

import re
from collections.abc import Callable

from tso_enumerator import Instruction, Program, Thread

VARIABLES = {"x": 0x8000, "y": 0x8040, "z": 0x8080, "t": 0x80C0}
REGISTERS = {"a": 0, "c": 1, "d": 2, "b": 3}

TESTS: tuple[tuple[str, str, dict[str, int], str, bool, int], ...] = (
    ("sb", "x=1; a=y | y=1; a=x", {}, "0a==0 and 1a==0", True, 4),
    ("sb-mfence", "x=1; mfence; a=y | y=1; mfence; a=x", {}, "0a==0 and 1a==0", False, 3),
    ("sb-lfence", "x=1; lfence; a=y | y=1; lfence; a=x", {}, "0a==0 and 1a==0", True, 4),
    ("sb-sfence", "x=1; sfence; a=y | y=1; sfence; a=x", {}, "0a==0 and 1a==0", True, 4),
    ("sb-xchg", "a=1; xchg x,a; c=y | a=1; xchg y,a; c=x", {}, "0c==0 and 1c==0", False, 3),
    ("n8", "a=1; xchg x,a; c=y | y=1; a=x", {}, "0c==0 and 1a==0", True, 4),
    ("mp", "x=1; y=1 | a=y; b=x", {}, "1a==1 and 1b==0", False, 3),
    ("lb", "a=x; y=1 | a=y; x=1", {}, "0a==1 and 1a==1", False, 3),
    ("s", "x=2; y=1 | a=y; x=1", {}, "1a==1 and x==2", False, 3),
    ("22w", "x=1; y=2 | y=1; x=2", {}, "x==1 and y==1", False, 3),
    ("r", "x=1; y=1 | y=2; a=x", {}, "y==2 and 1a==0", True, 4),
    ("isa2", "x=1; y=1 | a=y; z=1 | a=z; b=x", {}, "1a==1 and 2a==1 and 2b==0", False, 7),
    ("corr", "x=1 | a=x; b=x", {}, "1a==1 and 1b==0", False, 3),
    ("wrc", "x=1 | a=x; y=1 | a=y; b=x", {}, "1a==1 and 2a==1 and 2b==0", False, 7),
    ("iriw", "x=1 | y=1 | a=x; b=y | a=y; b=x", {}, "2a==1 and 2b==0 and 3a==1 and 3b==0", False, 15),
    ("n2", "y=1; x=1 | x=2; z=1 | a=x; b=x | a=z; b=y", {}, "2a==1 and 2b==2 and 3a==1 and 3b==0", False, 42),
    ("own-store", "x=1; a=x", {}, "0a==0", False, 1),
    ("forward", "x=1; a=x; b=y | y=1; a=y; b=x", {}, "0a==1 and 0b==0 and 1a==1 and 1b==0", True, 4),
    ("n6", "x=1; a=x; b=y | y=2; x=2", {}, "0a==1 and 0b==0 and x==1", True, 5),
    ("n5", "x=1; a=x | x=2; a=x", {}, "0a==2 and 1a==1", False, 4),
    ("n7", "x=1; a=x; b=y | y=1 | a=y; b=x", {}, "0a==1 and 0b==0 and 2a==1 and 2b==0", True, 8),
    ("amd10", "x=1; mfence; a=x; b=y | y=1; mfence; a=y; b=x", {}, "0a==1 and 0b==0 and 1a==1 and 1b==0", False, 3),
    ("rwc", "x=1 | a=x; b=y | y=1; a=x", {}, "1a==1 and 1b==0 and 2a==0", True, 8),
    ("rwc-mfence", "x=1 | a=x; b=y | y=1; mfence; a=x", {}, "1a==1 and 1b==0 and 2a==0", False, 7),
    ("inc-inc", "add x,1 | add x,1", {}, "x==1", True, 2),
    ("inc-inc-lock", "lock add x,1 | lock add x,1", {}, "x==1", False, 1),
    ("bts-race", "bts x,0 | bts x,1", {}, "x!=3", True, 3),
    (
        "cas-chain",
        "a=0; b=1; lock cmpxchg x,b | a=1; b=2; lock cmpxchg x,b | a=2; b=3; lock cmpxchg x,b",
        {},
        "x==3 and 1a==0",
        False,
        5,
    ),
    ("dirty-bit-clear-xchg", "lock or t,64 | a=0; xchg t,a", {"t": 1}, "1a==1 and t==0", False, 2),
    ("dirty-bit-lost", "lock or t,64 | a=t; a|=32; t=a", {"t": 1}, "t==33", True, 3),
    # A load that takes one byte from each of two own stores while neither is visible yet.
    ("two-forwarded", "x.b=1; x+1.b=2; a=x.w; b=y | y=1; mfence; a=x.w", {}, "0a==513 and 0b==0 and 1a==0", True, 6),
    ("whole-half-reads", "x=4294967295 | a=x.w; b=x+2.w", {}, "1a==65535 and 1b==0", False, 3),
    # A load that takes one byte from its own store and the rest from memory.
    ("merge", "x.b=1; a=x.w; b=y | y=1; mfence; x+1.b=1", {}, "0a==1 and 0b==0", True, 3),
)

_ACCESS = re.compile(r"([xyzt])(?:\+(\d+))?(?:\.([bw]))?$")


def _access(text: str) -> tuple[int, int] | None:
    """(address, size)"""
    match = _ACCESS.match(text)
    if not match:
        return None
    return VARIABLES[match[1]] + int(match[2] or 0), {"b": 1, "w": 2, None: 4}[match[3]]


def parse_instruction(text: str) -> Instruction:
    words = text.split()
    if words[0] in ("mfence", "lfence", "sfence"):
        return (words[0],)
    if words[0] in ("lock", "add", "or", "bts", "xadd", "xchg", "cmpxchg"):
        locked = words[0] == "lock"
        kind, operands = words[1:] if locked else words
        where, what = operands.split(",")
        addr, size = _access(where) or (0, 0)
        argument = REGISTERS[what] if what in REGISTERS else int(what)
        return (kind, addr, size, argument, locked or kind == "xchg")
    if "|=" in text:
        reg, value = text.split("|=")
        return ("or_reg", REGISTERS[reg], int(value))
    left, right = text.split("=")
    to, source = _access(left), _access(right)
    if to:
        return ("store_reg", *to, REGISTERS[right]) if right in REGISTERS else ("store", *to, int(right))
    return ("load", REGISTERS[left], *source) if source else ("imm", REGISTERS[left], int(right))


def parse(text: str) -> Program:
    return tuple(tuple(parse_instruction(i.strip()) for i in thread.split(";")) for thread in text.split(" | "))


def loaded(thread: Thread) -> list[int]:
    """Registers of a thread that hold something read from memory or that a locked instruction names."""
    registers = set()
    for instruction in thread:
        if instruction[0] == "load":
            registers.add(instruction[1])
        elif instruction[0] in ("xchg", "xadd"):
            registers.add(instruction[3])
        elif instruction[0] == "cmpxchg":
            registers.update((0, instruction[3]))
    return sorted(registers)


def condition(text: str) -> Callable[[dict[str, int]], bool]:
    code = compile(re.sub(r"\b(\d)([acdb])\b", r"r\1\2", text), text, "eval")
    return lambda state: bool(eval(code, {}, {"r" + k if k[0].isdigit() else k: v for k, v in state.items()}))
