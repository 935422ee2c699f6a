"""The rows of the instruction table as the generator takes them, and what is left out where, with the reason."""

from dataclasses import dataclass

from machine import _core


@dataclass(frozen=True)
class Row:
    """One row of the instruction table.

    map: 0 one-byte opcodes, 1 after 0F, 2 after 0F 38. extension: the ModRM.reg that selects it, or -1. prefix: the
    mandatory prefix (F2, F3), or 0. bits: the code sizes in which it exists.
    """

    map: int
    opcode: int
    extension: int
    name: str
    form: str
    access: str
    lockable: bool
    prefix: int = 0
    bits: tuple[int, ...] = (16, 32, 64)

    @property
    def tokens(self) -> list[str]:
        """The operands in the letters of the SDM's opcode maps; empty if there is none."""
        return [] if self.form.startswith("none") else self.form.split("_")

    @property
    def modrm(self) -> bool:
        return any(token[0] in "EGMSRCDP" and token not in ("AL", "AX") for token in self.tokens)

    def __str__(self) -> str:
        extension = f"/{self.extension}" if self.extension >= 0 else ""
        prefix = f"{self.prefix:02x} " if self.prefix else ""
        return f"{prefix}{('', '0f ', '0f 38 ')[self.map]}{self.opcode:02x}{extension} {self.name} {self.form}"


# Encodings that are no rows of their own in the table, but get vectors of their own.
EXTRA = (
    Row(1, 0xC7, 1, "cmpxchg16b", "Mq", "RW", True, bits=(64,)),
    Row(1, 0xB9, -1, "ud1", "Gv_Ev", "", False),
)

LEFT_OUT = {
    "cpuid": "depends on the model",
    "rdtsc": "depends on time",
    "rdtscp": "depends on time",
    "rdpmc": "depends on the model",
    **dict.fromkeys(("sgdt", "sidt", "sldt", "str", "smsw"), "the kernel answers in the CPU's place (UMIP)"),
    **dict.fromkeys(("syscall", "sysenter"), "enters the kernel"),
    **dict.fromkeys(("sysret", "sysexit"), "the makers differ on which exception comes first"),
    "int1": "hypervisors report it at different addresses",
    "x87": "the host has one",
}
"""Mnemonics that no vector runs, with the reason."""

NO_64_BIT = {
    **dict.fromkeys(range(0x40, 0x50), "a REX prefix"),
    0x62: "an EVEX prefix",
    0x63: "MOVSXD",
    0xC4: "a VEX prefix",
    0xC5: "a VEX prefix",
    0xD5: "a REX2 prefix on the newest processors",
}
"""One-byte opcodes that are something else in 64-bit code."""

FEATURES = {
    "popcnt": "popcnt",
    "lzcnt": "abm",
    "tzcnt": "bmi1",
    "movbe": "movbe",
    "crc32": "sse4_2",
    "cmpxchg16b": "cx16",
}
"""Mnemonic -> flag of /proc/cpuinfo without which the host does not have it."""


MAPS = {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (1, 0xF3), 4: (2, 0xF2)}
"""Map of the table -> opcode map and mandatory prefix."""


def table_rows() -> list[Row]:
    """Every row of the instruction table."""
    rows = []
    for map_, opcode, extension, name, form, access, lockable, modes in _core.instructions():
        opcodes, prefix = MAPS[map_]
        bits = tuple(int(size) for size in modes.split(","))
        rows.append(Row(opcodes, opcode, extension, name, form, access, lockable, prefix, bits))
    return rows


def vector_rows() -> list[Row]:
    """The rows vectors are made for: those of the table and of EXTRA without LEFT_OUT."""
    return [row for row in (*table_rows(), *EXTRA) if row.name not in LEFT_OUT]


def allowed(row: Row, bits: int) -> bool:
    """Whether vectors of `row` may run in code of `bits` bits: there it exists, or is plainly undefined."""
    if bits in row.bits:
        return True
    return bits == 64 and row.map == 0 and row.opcode not in NO_64_BIT
