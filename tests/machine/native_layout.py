"""What the native runner and our machine share: memory map, segments, and the layout of a vector and its outcome.

The numbers are those of native_runner.c. Selectors are the ones Linux x86-64 gives to user code, so both sides can use
the same; the LDT is made by the runner through modify_ldt and by us in memory.
"""

import struct
from dataclasses import dataclass, field

CODE, DATA, STACK, FIXED = 0x100000, 0x110000, 0x120000, 0x130000
HIGH_DATA, HIGH_CODE = 0x7A5A5A000000, 0x7A5A5A100000
MIDDLE, EDGE, TOP, LOW = DATA + 0x1000 - 128, DATA + 0x2000 - 128, STACK + 0x800 - 128, STACK
HIGH = HIGH_DATA + 0x1000 - 128
WINDOWS = ((MIDDLE, 256), (EDGE, 128), (TOP, 256), (LOW, 128), (HIGH, 256))
HOLES = (DATA - 64, DATA + 0x2000, STACK + 0x1000, FIXED + 0x1000)
HIGH_HOLES = (HIGH_DATA - 64, HIGH_DATA + 0x2000)
NON_CANONICAL = (0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_FF00, 0x5A5A_5A5A_5A5A_5A00)
# (first page, pages, may be written, address in our physical memory)
MAPPED = (
    (CODE, 2, True, CODE),
    (DATA, 2, True, DATA),
    (STACK, 1, True, STACK),
    (FIXED, 1, False, FIXED),
    (HIGH_DATA, 2, True, 0x140000),
    (HIGH_CODE, 2, True, 0x150000),
)
CODE_SIZE = 64
CODE_PAGES = (CODE, HIGH_CODE)
"""Two pages each, INT3 but for the vector's code."""
DATA_PAGES = ((DATA, 2), (STACK, 1), (HIGH_DATA, 2))
"""Zero but for the windows."""

CODE_32, FLAT, CODE_64 = 0x23, 0x2B, 0x33
FS_BASE, GS_BASE = HIGH_DATA - 0x20000000, DATA - 0x8000
"""Bases of FS and GS in 64-bit code."""


def physical(addr: int) -> int:
    """Where our machine keeps the byte at linear address `addr`, which must be mapped."""
    return next(phys + addr - start for start, pages, _, phys in MAPPED if 0 <= addr - start < pages * 4096)


@dataclass(frozen=True)
class Segment:
    """One descriptor for privilege 3. `kind`: access byte; `flags`: G, D/B, L, AVL; limit in bytes or pages."""

    base: int
    limit: int
    kind: int
    flags: int

    def descriptor(self) -> bytes:
        return descriptor(self.kind, self.limit, self.base, self.flags)


def descriptor(kind: int, limit: int = 0xFFFFF, base: int = 0, flags: int = 0xC) -> bytes:
    """`kind`: access byte; `flags`: G, D, L, AVL."""
    high = (base >> 16 & 0xFF) | kind << 8 | (limit & 0xF0000) | flags << 20 | (base & 0xFF000000)
    return struct.pack("<II", (limit & 0xFFFF) | (base & 0xFFFF) << 16, high)


# The kernel marks every descriptor of an LDT as accessed and, as asked, as available (flag 1).
LDT = (
    Segment(CODE, 0xFFFF, 0xFB, 0x1),  # 0x07: 16-bit code
    Segment(DATA - 0x8000, 0xFFFF, 0xF3, 0x1),  # 0x0f: data, within reach of 16-bit addresses
    Segment(STACK - 0x8000, 0xFFFF, 0xF3, 0x1),  # 0x17: 16-bit stack
    Segment(DATA, 0x1FBF, 0xF3, 0x5),  # 0x1f: ends in the middle of the EDGE window
    Segment(DATA, 0x0FFF, 0xF7, 0x5),  # 0x27: expands down to the middle of the MIDDLE window
    Segment(0, 0xFFFFF, 0xF1, 0xD),  # 0x2f: read only
    Segment(0, 0xFFFFF, 0xF9, 0xD),  # 0x37: execute only
    Segment(0, 0xFFFFF, 0x73, 0xD),  # 0x3f: not present
    Segment(CODE, 0x1FFF, 0xFB, 0x5),  # 0x4f: 32-bit code, not at 0
)
CODE_16, DATA_16, STACK_16, LIMITED, DOWN, READ_ONLY, EXECUTE_ONLY, ABSENT, CODE_BASED = (
    index * 8 + 7 for index in range(len(LDT))
)
GDT = (
    bytes(8),
    descriptor(0x9B),
    descriptor(0x9B, flags=0xA),
    descriptor(0x93),
    descriptor(0xFB),  # CODE_32
    descriptor(0xF3),  # FLAT
    descriptor(0xFB, flags=0xA),  # CODE_64
)
DATA_SELECTORS = (FLAT, FLAT, FLAT & ~3, 0, 3, CODE_32, CODE_64, 0x10, 0x18, 0xFFFB, 0x63)
LDT_DATA_SELECTORS = (DATA_16, STACK_16, LIMITED, DOWN, READ_ONLY, EXECUTE_ONLY, ABSENT, CODE_BASED, 0x57)
CODE_SELECTORS = (CODE_32, CODE_32, CODE_64, CODE_64, 0x20, 0, FLAT, 0xFFFB, 0x63)
LDT_CODE_SELECTORS = (CODE_16, EXECUTE_ONLY, CODE_BASED, DATA_16, ABSENT, 0x57)


@dataclass(frozen=True)
class World:
    """The segments a vector starts with, and so the mode it runs in."""

    name: str
    bits: int
    cs: int
    ss: int = FLAT
    ds: int = FLAT
    es: int = FLAT
    fs: int = 0
    gs: int = 0

    @property
    def selectors(self) -> tuple[int, ...]:
        return self.cs, self.ss, self.ds, self.es, self.fs, self.gs

    def base(self, segment: str) -> int:
        """Base of "cs", "ss", ... while the vector has not changed it; 0 for a null selector."""
        if self.bits == 64:
            return {"fs": FS_BASE, "gs": GS_BASE}.get(segment, 0)
        return selector_base(getattr(self, segment))

    @property
    def needs_ldt(self) -> bool:
        return any(selector & 4 for selector in self.selectors)


def selector_base(selector: int) -> int:
    return LDT[selector >> 3].base if selector & 4 and selector >> 3 < len(LDT) else 0


WORLDS = (
    World("64-bit", 64, CODE_64),
    World("32-bit", 32, CODE_32),
    World("32-bit with limits", 32, CODE_32, fs=LIMITED, gs=DOWN),
    World("32-bit with bases", 32, CODE_BASED, ds=DATA_16, es=DATA_16, fs=READ_ONLY),
    World("16-bit", 16, CODE_16, ds=DATA_16, es=DATA_16, gs=FLAT),
    World("16-bit stack", 16, CODE_16, ss=STACK_16, ds=DATA_16, es=DATA_16, fs=LIMITED),
)
LONG, FLAT_32 = WORLDS[0], WORLDS[1]

REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
CF, PF, AF, ZF, SF, TF, IF, DF, OF, NT, AC, ID = (1 << bit for bit in (0, 2, 4, 6, 7, 8, 9, 10, 11, 14, 18, 21))
ARITHMETIC = CF | PF | AF | ZF | SF | OF
COMPARED = ARITHMETIC | TF | DF | NT | AC | ID

VECTOR = struct.Struct("<16Q3Q6H4x64s256s128s256s128s256s")
OUTCOME = struct.Struct("<16Q5Q6H4xQ256s128s256s128s256s")
HEADER = struct.Struct("<II")


@dataclass
class Vector:
    """Machine code and what it finds."""

    world: World
    code: bytes
    gpr: list[int]
    flags: int = 2
    entry: int = CODE + 0x100
    windows: list[bytearray] = field(default_factory=list)
    undefined: int = 0
    """Flags the manual leaves undefined afterwards."""
    undefined_bits: dict[int, int] = field(default_factory=dict)
    """Register number -> bits the manual leaves undefined."""
    undefined_bytes: set[int] = field(default_factory=set)
    """Addresses of bytes that the manual leaves undefined."""
    needs: set[str] = field(default_factory=set)
    """What not every processor has."""
    name: str = ""
    text: str = ""

    @property
    def ip(self) -> int:
        return self.entry - self.world.base("cs")

    def pack(self) -> bytes:
        return VECTOR.pack(
            *self.gpr,
            self.flags | IF,
            self.entry,
            self.ip,
            *self.world.selectors,
            self.code.ljust(CODE_SIZE, b"\xcc"),
            *map(bytes, self.windows),
        )

    def put(self, addr: int, data: bytes) -> None:
        """Memory content at a linear address; what lies in no window stays as it is."""
        for window, (start, size) in zip(self.windows, WINDOWS, strict=True):
            at = addr - start
            if at >= 0 and at + len(data) <= size:
                window[at : at + len(data)] = data


@dataclass
class Outcome:
    """Everything compared after a vector."""

    gpr: tuple[int, ...]
    flags: int
    ip: int
    trap: int
    error: int
    address: int
    segments: tuple[int, ...]
    """CS, SS, DS, ES, FS, GS"""
    pages: int
    """Checksum of all data pages."""
    windows: tuple[bytes, ...]
