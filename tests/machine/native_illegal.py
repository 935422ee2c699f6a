"""Encodings the manual reserves: they must be #UD and change nothing."""

from collections.abc import Iterator

from native_generator import Generator
from native_layout import Vector, World
from native_rows import Row

NO_INSTRUCTION = (0x0F04, 0x0F0A, 0x0F0C, 0x0F24, 0x0F25, 0x0F26, 0x0F27, 0x0F36, 0x0F39, 0x0F3B, 0x0F3C, 0x0F3D)
NO_INSTRUCTION += (0x0F3E, 0x0F3F, 0x0FA6, 0x0FA7)
NOT_IN_64_BIT = (0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x82, 0x9A, 0xCE, 0xD4)
NOT_IN_64_BIT += (0xD6, 0xEA)
# Opcode -> values of ModRM.reg that mean nothing.
GROUP_HOLES = {
    0x8C: (6, 7),
    0x8E: (1, 6, 7),
    0xC6: (1, 2, 3, 4, 5, 6),
    0xC7: (1, 2, 3, 4, 5, 6),
    0xFE: (2, 3, 4, 5, 6, 7),
    0xFF: (7,),
    0x0F00: (7,),
    0x0FBA: (0, 1, 2, 3),
    0x0FC7: (0, 2),
}
LOCK = b"\xf0"


def opcode_bytes(opcode: int) -> bytes:
    return bytes([opcode >> 8, opcode & 0xFF]) if opcode > 0xFF else bytes([opcode])


def illegal_codes(world: World) -> Iterator[bytes]:
    for opcode in NO_INSTRUCTION:
        yield opcode_bytes(opcode) + b"\xc0\x00\x00"
    if world.bits == 64:
        for opcode in NOT_IN_64_BIT:
            yield opcode_bytes(opcode) + bytes(7)
    for opcode, holes in GROUP_HOLES.items():
        for reg in holes:
            for mod in (0x00, 0x40, 0x80, 0xC0):
                yield opcode_bytes(opcode) + bytes([mod | reg << 3 | 3]) + bytes(8)
    # Far transfers, LEA and the like from a register.
    for code in ("ffd8", "ffe8", "8dc0", "0fb2c0", "0fb4c0", "0fb5c0", "0fc3c0", "0f0b"):
        yield bytes.fromhex(code)


def illegal_vectors(g: Generator) -> Iterator[Vector]:
    """Reserved opcodes in every world, and LOCK before everything that may not have it."""
    for world in g.worlds:
        for code in illegal_codes(world):
            yield vector(g, world, "reserved", code)
    for row in g.rows:
        for world in g.worlds:
            if world.bits not in row.bits or row.form in ("Rd_Cd",):
                continue
            yield locked(g, row, world)


def locked(g: Generator, row: Row, world: World) -> Vector:
    """LOCK with a register operand, or before what is not lockable at all: with memory only if it is not."""
    for _ in range(100):
        made = g.of_row(row, world)
        has_memory = row.modrm and g.last.tail[0] < 0xC0
        if not (row.lockable and has_memory):
            break
    made.code = LOCK + made.code
    made.text = f"{world.name}: lock {row}: {made.code.hex(' ')}"
    return made


def vector(g: Generator, world: World, name: str, code: bytes) -> Vector:
    made = g.fresh(world)
    made.code, made.name, made.text = code, name, f"{world.name}: {name} {code.hex(' ')}"
    return made
