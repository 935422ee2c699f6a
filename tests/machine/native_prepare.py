"""Registers and memory that make an instruction do something more often than fault."""

import struct

from native_flags import COUNTED, DOUBLE_SHIFTS
from native_layout import (
    AC,
    COMPARED,
    DF,
    EDGE,
    FIXED,
    FLAT,
    HIGH,
    IF,
    LOW,
    MIDDLE,
    RAX,
    RBP,
    RBX,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    Vector,
    selector_base,
)
from native_operands import REP, REPNE, Encoding, mask
from native_rows import Row
from native_values import Values

STRINGS = {
    stem + width for stem in ("movs", "cmps", "stos", "lods", "scas", "ins", "outs") for width in ("b", "w", "d", "q")
}
PORTS = {name for name in STRINGS if name.startswith(("ins", "outs"))}
LOOPS = {"loop", "loope", "loopne", "jecxz", "jcxz", "jrcxz"}
RETURNS = {"ret", "retf", "iretd", "iret", "popfd", "popf"}
FAR_POINTERS = {"lcall", "ljmp", "les", "lds", "lss", "lfs", "lgs"}
STACK_USERS = RETURNS | {"push", "pop", "pushal", "popal", "pushfd", "pushf", "call", "lcall", "enter", "leave"}
UNALIGNED = {"enter", "lcall", "retf", "iretd", "pushal", "popal"}
"""Several accesses: which of them an alignment check meets first is not said."""
SELECTOR_READERS = {"verr", "verw", "lar", "lsl", "lldt", "ltr"}


class Preparation(Values):
    """What the instructions of each mnemonic need."""

    def prepare_registers(self, row: Row, vector: Vector, e: Encoding, plain: bool) -> set[int]:
        """Sets registers the instruction uses by itself; an operand's address must leave those alone."""
        r = self.random
        name = row.name
        if name in ("div", "idiv"):
            if r.random() < 0.7:
                vector.gpr[RDX] = r.choice((0, 1, mask(e.operand_bits), r.randrange(0x100)))
            return {RDX, RAX}
        if name in COUNTED:
            if plain:
                return {RCX}
            if r.random() < 0.8:
                vector.gpr[RCX] = (vector.gpr[RCX] & ~0xFF) | r.randrange(66)
            if name in DOUBLE_SHIFTS and e.operand_bits == 16 and vector.gpr[RCX] & 31 > 16:
                vector.gpr[RCX] &= ~0x10
            return {RCX}
        if name in UNALIGNED:
            vector.flags &= ~AC
        if name in ("leave", "enter"):
            vector.gpr[RBP] = self.targets.stack() - vector.world.base("ss")
        # CALL to an address from memory: of a bad stack and a bad target, which comes first is not said.
        if name in STACK_USERS and row.tokens not in (["Ev"], ["Mp"]) and r.random() < 0.12 and not plain:
            vector.gpr[RSP] = self.targets.low_stack() - vector.world.base("ss")
        if name in ("cmpxchg", "cmpxchg8b", "cmpxchg16b"):
            return {RAX, RDX, RBX, RCX}
        return set()

    def prepare(self, row: Row, vector: Vector, e: Encoding, target: int) -> None:
        r = self.random
        name, world = row.name, vector.world
        word = e.operand_size
        top = vector.gpr[RSP] & (0xFFFF if world.ss != FLAT else mask(64))
        top += world.base("ss")

        def words(*values: int) -> bytes:
            return b"".join(struct.pack("<Q", value & mask(64))[:word] for value in values)

        if name in STRINGS:
            self.prepare_string(row, vector, e)
        elif name == "cmpxchg" and target >= 0 and r.random() < 0.5:
            vector.put(target, struct.pack("<Q", vector.gpr[RAX]))
        elif name in ("cmpxchg8b", "cmpxchg16b") and target >= 0 and r.random() < 0.5:
            half = 8 if e.rex & 8 else 4
            both = [struct.pack("<Q", vector.gpr[n])[:half] for n in (RAX, RDX)]
            vector.put(target, b"".join(both))
        elif name == "xlatb":
            segment = world.base(e.segment or "ds")
            self.addresses.set_part(vector, e, RBX, self.targets.data(world) - segment - (vector.gpr[RAX] & 0xFF))
        elif name in LOOPS:
            vector.gpr[RCX] = r.choice((0, 1, 2, 0x10000, 0x10001, vector.gpr[RCX]))
            if world.bits == 64:
                vector.gpr[RCX] |= r.choice((0, 0, 1 << 32))
        elif name in RETURNS:
            self.prepare_return(row, vector, e, top)
        elif name in ("jmp", "call") and "E" in row.form:
            goal = vector.ip + 40
            if target >= 0:
                vector.put(target, words(goal))
            else:
                wide = 64 if world.bits == 64 else 32
                vector.gpr = [
                    value if n == RSP or (n > 7 and wide == 32) else goal for n, value in enumerate(vector.gpr)
                ]
        elif name in ("ljmp", "lcall") and target >= 0:
            selector = self.far_selector(world)
            goal = vector.entry + 40 - selector_base(selector)
            vector.put(target, words(goal) + struct.pack("<H", selector))
        elif name in FAR_POINTERS and target >= 0:
            vector.put(target, words(self.value()) + struct.pack("<H", self.selector(False)))
        elif name == "pop" and not row.tokens:
            vector.put(top, words(self.selector(False)))
        elif name == "bound" and target >= 0:
            low = r.choice((0, mask(e.operand_bits), 5, self.value()))
            vector.put(target, words(low, self.value()))
        elif name in SELECTOR_READERS or "Sw" in row.form or name == "arpl":
            selector = self.selector(r.random() < 0.3)
            if target >= 0:
                vector.put(target, struct.pack("<H", selector))
            elif "Ev_Sw" not in row.form:
                base = e.tail[0] & 7 | (e.rex & 1) << 3
                if base != RSP:
                    vector.gpr[base] = vector.gpr[base] >> 16 << 16 | selector

    def prepare_return(self, row: Row, vector: Vector, e: Encoding, top: int) -> None:
        r = self.random
        name = row.name
        flags = (r.getrandbits(22) & (COMPARED & ~DF)) | 2 | (IF if r.random() < 0.7 else 0)
        selector = self.far_selector(vector.world)
        goal = vector.entry + 40
        if name == "ret":
            frame = [vector.ip + 40]
        elif name in ("popfd", "popf"):
            frame = [flags]
        else:
            frame = [goal - selector_base(selector), selector]
        if name in ("iretd", "iret"):
            frame.append(flags)
            if vector.world.bits == 64:
                stack = FLAT
                if r.random() < 0.3:  # one fault at a time: which of several comes first is not said
                    frame = [vector.ip + 40, vector.world.cs, flags]
                    stack = self.selector(False)
                frame += [self.targets.stack(), stack]
        word = e.operand_size
        vector.put(top, b"".join(struct.pack("<Q", value & mask(64))[:word] for value in frame))

    def prepare_string(self, row: Row, vector: Vector, e: Encoding) -> None:
        r = self.random
        name = row.name
        size = 1 if row.form == "none_b" else e.operand_size
        backward = vector.flags & DF
        repeat = REP in e.prefixes or REPNE in e.prefixes
        # Of two bad operands, which faults first is not said: no limits to run into where there are limits.
        segmented = vector.world.ds != FLAT

        def start() -> int:
            kind = r.random()
            if vector.world.bits == 64 and e.address_bits == 64 and r.random() < 0.3:
                return HIGH + 100 + r.randrange(48)
            if kind < 0.75 or segmented:  # room for 14 elements on both sides
                return MIDDLE + 112 + r.randrange(32)
            if kind < 0.9:  # runs into a hole on the way
                return LOW + r.randrange(30) if backward else EDGE + 128 - r.randrange(60)
            return FIXED + 128 + r.randrange(64)

        source, destination = start(), start()
        self.addresses.set_part(vector, e, RSI, source - vector.world.base(e.segment or "ds"))
        self.addresses.set_part(vector, e, RDI, destination - vector.world.base("es"))
        if repeat:
            # Whether a port without permission faults when nothing is to be transferred is not said.
            count = r.choice((1 if name in PORTS else 0, 1, 2, 3, r.randrange(1, 14)))
            self.addresses.set_part(vector, e, RCX, count)
            if vector.world.bits == 64 and e.address_bits == 32 and not count:
                # With nothing to do, the makers differ on whether ECX and what is advanced become 64 bits.
                vector.undefined_bits.update(dict.fromkeys((RCX, RSI, RDI), mask(64) & ~mask(32)))
        if name[:4] in ("cmps", "scas") and r.random() < 0.7:  # runs of equal elements
            same = bytes([r.randrange(256)]) * (size * r.randrange(1, 12))
            vector.put(source - (len(same) - size if backward else 0), same)
            vector.put(destination - (len(same) - size if backward else 0), same)
            if name.startswith("scas"):
                vector.gpr[RAX] = int.from_bytes(same[:1] * (8 if vector.world.bits == 64 else 4), "little")

    def bit_offset(self, row: Row, vector: Vector, e: Encoding, reg: int, taken: set[int]) -> int:
        """A bit number whose bytes stay within a window or a hole; the register is `taken` from then on."""
        r = self.random
        taken.add(reg)
        reach = r.choice((32, 64, 512))
        if reg == RSP:
            reach = 512
            vector.gpr[reg] &= 0x1FF  # it may be a base too: keep it small
        else:
            bits = 64 if e.world.bits == 64 else 32
            offset = r.randrange(-reach, reach)
            vector.gpr[reg] = offset & mask(e.operand_bits) | self.value(bits) >> e.operand_bits << e.operand_bits
        places = [MIDDLE + 64 + r.randrange(120), EDGE + 120 - r.randrange(32)]
        if e.world.bits == 64:
            places.append(HIGH + 64 + r.randrange(120))
        return r.choice(places)
