"""Prefixes, REX and ModRM: everything about an instruction but its opcode and its meaning."""

import random
import struct
from dataclasses import dataclass, field

from native_layout import (
    CODE,
    EDGE,
    FIXED,
    HIGH,
    HIGH_CODE,
    HIGH_HOLES,
    HOLES,
    LOW,
    MIDDLE,
    NON_CANONICAL,
    RBP,
    RBX,
    RDI,
    RSI,
    RSP,
    TOP,
    Vector,
    World,
)

SEGMENT_PREFIXES = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
HIGH_START = 1 << 40

# Base and index register of a 16-bit address by ModRM.rm.
PAIRS = ((RBX, RSI), (RBX, RDI), (RBP, RSI), (RBP, RDI), (RSI, None), (RDI, None), (RBP, None), (RBX, None))


@dataclass
class Encoding:
    """One instruction under construction."""

    world: World
    operand_bits: int
    address_bits: int
    segment: str = ""
    """Segment override in force, or ""."""
    prefixes: list[int] = field(default_factory=list)
    rex_allowed: bool = True
    rex: int = 0
    """W, R, X, B in bits 3 to 0."""
    rex_bare: bool = False
    """A REX prefix even if no bit of it is set: SPL, BPL, SIL and DIL instead of AH, CH, DH and BH."""
    tail: bytes = b""
    """ModRM, SIB and displacement."""
    relative_to: int = -1
    """RIP-relative: the target. The displacement, last in `tail`, is filled in once the length is known."""

    @property
    def register_count(self) -> int:
        return 16 if self.world.bits == 64 and self.rex_allowed else 8

    @property
    def operand_size(self) -> int:
        return self.operand_bits // 8

    def assemble(self, opcode: bytes, immediate: bytes, mandatory: int, at: int) -> bytes:
        """The whole instruction, to stand at linear address `at`."""
        prefixes = bytearray(self.prefixes)
        if mandatory:
            prefixes.append(mandatory)
        if self.rex or self.rex_bare:
            prefixes.append(0x40 | self.rex)
        code = bytes(prefixes) + opcode + self.tail + immediate
        if self.relative_to >= 0:
            end = len(prefixes) + len(opcode) + len(self.tail)
            displacement = self.relative_to - (at + len(code)) & 0xFFFFFFFF
            code = code[: end - 4] + struct.pack("<I", displacement) + code[end:]
        return code


class Targets:
    """Addresses to access: mostly in a window, sometimes where it faults."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def data(self, world: World) -> int:
        r = self.random
        kind = r.random()
        if world.bits == 64 and kind < 0.35:
            return self.high()
        kind = r.random()
        if kind < 0.55:
            return MIDDLE + r.randrange(256 - 16)
        if kind < 0.7:
            return MIDDLE + 128 - r.randrange(17)  # over the page boundary
        if kind < 0.85:
            return EDGE + 128 - r.randrange(1, 24)  # often into the hole
        if kind < 0.93:
            return FIXED + r.randrange(0x100)
        return r.choice(HOLES) + r.randrange(32)

    def high(self) -> int:
        r = self.random
        kind = r.random()
        if kind < 0.75:
            return HIGH + r.randrange(256 - 16)
        if kind < 0.9:
            return HIGH + 128 - r.randrange(17)
        return r.choice(HIGH_HOLES if r.random() < 0.6 else NON_CANONICAL) + r.randrange(32)

    def stack(self) -> int:
        r = self.random
        return TOP + 128 + (8 * r.randrange(-6, 6) if r.random() < 0.7 else r.randrange(-32, 32))

    def low_stack(self) -> int:
        """So little stack left that pushing more than a few words runs into the hole below."""
        return LOW + self.random.randrange(40)

    def entry(self, world: World) -> int:
        r = self.random
        code = HIGH_CODE if world.bits == 64 and r.random() < 0.4 else CODE
        return code + (0x1000 - r.randrange(1, 16) if r.random() < 0.1 else 0x100)


def mask(bits: int) -> int:
    return (1 << bits) - 1


class Addresses:
    """Memory operands in every addressing form."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def operand(self, vector: Vector, e: Encoding, reg: int, taken: set[int], target: int) -> int:
        """Sets `e.tail` to a ModRM with memory operand, and registers not in `taken` so that it is at `target`.

        Returns the linear address it really has: some forms cannot reach every target. -1 if that is anywhere.
        """
        if e.address_bits == 16:
            return self.operand_16(vector, e, reg, taken, target)
        r = self.random
        reach = target if e.address_bits == 32 or target < HIGH_START else -1
        kind = r.random()
        if kind < 0.1 and reach >= 0:
            return self.absolute(e, reg, target)
        if kind < 0.25 and e.world.bits == 64 and abs(target - vector.entry) < 1 << 30:
            e.tail = bytes([(reg & 7) << 3 | 5]) + bytes(4)
            e.relative_to = target - self.base(e, "ds") & mask(64)
            if e.address_bits == 32:
                e.relative_to &= mask(32)
            return e.relative_to + self.base(e, "ds") & mask(64)
        return self.base_and_index(vector, e, reg, taken, target)

    def base(self, e: Encoding, default: str) -> int:
        return e.world.base(e.segment or default)

    def absolute(self, e: Encoding, reg: int, target: int) -> int:
        offset = target - self.base(e, "ds")
        if e.world.bits == 64:
            if not 0 <= offset < 1 << 31:
                offset &= 0x7FFFFFFF
            e.tail = bytes([(reg & 7) << 3 | 4, 0x25 | self.random.randrange(4) << 6]) + struct.pack("<I", offset)
        else:
            e.tail = bytes([(reg & 7) << 3 | 5]) + struct.pack("<I", offset & mask(32))
        return offset + self.base(e, "ds") & mask(64 if e.world.bits == 64 else 32)

    def base_and_index(self, vector: Vector, e: Encoding, reg: int, taken: set[int], target: int) -> int:
        r = self.random
        bits = e.address_bits
        free = [n for n in range(e.register_count) if n not in taken and n != RSP]
        kind = r.random()
        base: int | None = None
        if kind < 0.9:
            base = r.choice(free) if free and kind < 0.7 else r.randrange(e.register_count)
        index: int | None = None
        if base is None or r.random() < 0.4:
            index = r.choice([n for n in range(e.register_count) if n != RSP])
        scale = r.randrange(4)
        offset = target - self.base(e, "ss" if base in (RSP, RBP) else "ds") & mask(64 if e.world.bits == 64 else 32)
        offset &= mask(bits)

        scaled = vector.gpr[index] << scale if index is not None else 0
        size = 32
        displacement = 0
        if base is not None and base not in taken and base not in (RSP, index):
            size = r.choice((0, 8, 8, 32))
            if size == 0 and base & 7 == RBP:
                size = 8
            displacement = r.randrange(-128, 128) if size == 8 else r.getrandbits(32) - (1 << 31) if size else 0
            self.set_part(vector, e, base, offset - scaled - displacement)
        else:
            total = scaled + (vector.gpr[base] if base is not None else 0)
            displacement = offset - total & mask(bits)
            if displacement >= 1 << bits - 1:
                displacement -= 1 << bits
            if not -(1 << 31) <= displacement < 1 << 31:  # 64-bit: out of reach, so set the index
                others = [n for n in free if n not in (base, RSP)]
                if not others:
                    return self.absolute(e, reg, MIDDLE + r.randrange(200))
                index, scale, displacement = r.choice(others), 0, r.randrange(-(1 << 31), 1 << 31)
                self.set_part(vector, e, index, offset - displacement - (vector.gpr[base] if base is not None else 0))
        e.tail = self.encode(e, reg, base, index, scale, size, displacement)
        return offset + self.base(e, "ss" if base in (RSP, RBP) else "ds") & mask(64 if e.world.bits == 64 else 32)

    def set_part(self, vector: Vector, e: Encoding, register: int, value: int) -> None:
        """A register that is part of an address; what the address size cuts off is arbitrary."""
        width = 64 if e.world.bits == 64 else 32
        value &= mask(e.address_bits)
        vector.gpr[register] = value | self.random.getrandbits(width) >> e.address_bits << e.address_bits

    def by_fixed_base(self, vector: Vector, e: Encoding, reg: int, base: int, target: int) -> int:
        """As `operand`, but sets no register: `base` plus a displacement, or none where it is too far away."""
        space = mask(64 if e.world.bits == 64 else 32)
        segment = self.base(e, "ds")
        displacement = target - segment - vector.gpr[base]
        if e.address_bits == 16:
            e.tail = bytes([0x80 | (reg & 7) << 3 | (4 if base == RSI else 5)]) + struct.pack(
                "<H", displacement & 0xFFFF
            )
            return (vector.gpr[base] + displacement & 0xFFFF) + segment
        if not -(1 << 31) <= displacement < 1 << 31:
            displacement = self.random.randrange(-60, 60)
        e.tail = self.encode(e, reg, base, None, 0, 8 if -128 <= displacement < 128 else 32, displacement)
        return (vector.gpr[base] + displacement & mask(e.address_bits)) + segment & space

    def encode(
        self, e: Encoding, reg: int, base: int | None, index: int | None, scale: int, size: int, displacement: int
    ) -> bytes:
        mod = {0: 0, 8: 1, 32: 2}[size]
        reg_bits = (reg & 7) << 3
        if index is not None and index >= 8:
            e.rex |= 2
        if base is not None and base >= 8:
            e.rex |= 1
        if base is None:
            code = bytes([reg_bits | 4, scale << 6 | (4 if index is None else index & 7) << 3 | 5])
        elif index is None and base & 7 != RSP:
            code = bytes([mod << 6 | reg_bits | base & 7])
        else:
            code = bytes([mod << 6 | reg_bits | 4, scale << 6 | (4 if index is None else index & 7) << 3 | base & 7])
        return code + struct.pack("<i", (displacement + (1 << 31)) % (1 << 32) - (1 << 31))[: size // 8]

    def operand_16(self, vector: Vector, e: Encoding, reg: int, taken: set[int], target: int) -> int:
        r = self.random
        mod, rm = r.randrange(3), r.randrange(8)
        bare = mod == 0 and rm == 6
        size = 16 if bare or mod == 2 else mod * 8
        base, index = (None, None) if bare else PAIRS[rm]
        default = "ss" if base == RBP else "ds"
        offset = target - self.base(e, default) & 0xFFFF
        displacement = r.randrange(-128, 128) if size == 8 else r.getrandbits(16) - 0x8000 if size else 0
        if bare:
            displacement = offset
        elif base is not None and base not in taken:
            self.set_part(vector, e, base, offset - displacement - (vector.gpr[index] if index is not None else 0))
        elif size == 16:
            total = sum(vector.gpr[n] for n in (base, index) if n is not None)
            displacement = offset - total
        total = displacement + sum(vector.gpr[n] for n in (base, index) if n is not None)
        e.tail = bytes([mod << 6 | (reg & 7) << 3 | rm]) + (displacement & 0xFFFF).to_bytes(2, "little")[: size // 8]
        return (total & 0xFFFF) + self.base(e, default)
