"""Random values, selectors and registers to start with: corners more often than not."""

import random
from collections.abc import Sequence

from native_layout import (
    AC,
    ARITHMETIC,
    CODE_32,
    CODE_64,
    CODE_SELECTORS,
    DATA_SELECTORS,
    DF,
    FLAT,
    LDT_CODE_SELECTORS,
    LDT_DATA_SELECTORS,
    RSP,
    TF,
    WINDOWS,
    Vector,
    World,
)
from native_operands import Addresses, Targets, mask

CORNERS = (0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 0x7F, 0x80, 0x81, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000)
CORNERS += (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF)
CORNERS += (*(~value & mask(64) for value in CORNERS), 0x5555555555555555, 0x123456789ABCDEF0)


class Values:
    """One seed."""

    def __init__(self, seed: int, worlds: Sequence[World]) -> None:
        self.random = random.Random(seed)
        self.worlds = list(worlds)
        self.targets = Targets(self.random)
        self.addresses = Addresses(self.random)
        self.ldt = any(world.needs_ldt for world in worlds)

    def value(self, bits: int = 64) -> int:
        r = self.random
        kind = r.random()
        if kind < 0.45:
            return r.choice(CORNERS) & mask(bits)
        if kind < 0.6:
            return r.randrange(64)
        return r.getrandbits(r.choice((bits, bits, 32))) & mask(bits)

    def selector(self, code: bool) -> int:
        r = self.random
        if self.ldt and r.random() < 0.4:
            return r.choice(LDT_CODE_SELECTORS if code else LDT_DATA_SELECTORS)
        return r.choice(CODE_SELECTORS if code else DATA_SELECTORS)

    def far_selector(self, world: World) -> int:
        """Where a far transfer goes. Some hypervisors hang when 64-bit code on a 16-bit stack segment faults."""
        selector = self.selector(True)
        return CODE_32 if selector == CODE_64 and world.ss != FLAT else selector

    def world(self) -> World:
        r = self.random
        if r.random() < 0.75:  # the two flat ones
            flat = [world for world in self.worlds if not world.needs_ldt]
            if flat:
                return r.choice([*flat, flat[0]])
        return r.choice(self.worlds)

    def fresh(self, world: World | None = None) -> Vector:
        """A vector without code."""
        r = self.random
        world = world or self.world()
        width = 64 if world.bits == 64 else 32
        vector = Vector(world, b"", [self.value(width) if n < 8 or width == 64 else 0 for n in range(16)])
        vector.gpr[RSP] = self.targets.stack() - world.base("ss")
        if world.bits != 64 and world.ss != FLAT:  # a 16-bit stack: the upper half is not part of the address
            vector.gpr[RSP] |= r.choice((0, 0x10000, 0xFFFF0000))
        vector.flags = 2 | (r.getrandbits(12) & (ARITHMETIC | (DF if r.random() < 0.2 else 0)))
        if r.random() < 0.03:
            vector.flags |= TF  # one instruction, or one iteration of a string instruction, then #DB
        if r.random() < 0.02:
            vector.flags |= AC  # accesses must be aligned
        vector.entry = self.targets.entry(world)
        vector.windows = [bytearray(r.randbytes(size)) for _, size in WINDOWS]
        return vector
