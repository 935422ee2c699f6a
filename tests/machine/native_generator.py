"""Vectors from the rows of the instruction table: a seed gives any number, always the same.

Below it: native_values.py (what is random), native_operands.py (how operands are encoded), native_prepare.py (what an
instruction needs to do something). Here the instructions themselves, singly and in blocks.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from native_flags import COUNTED, DOUBLE_SHIFTS, ROTATES, undefined_flags
from native_layout import (
    CODE_SIZE,
    FLAT,
    MIDDLE,
    RCX,
    RDI,
    RSI,
    RSP,
    WORLDS,
    Vector,
    World,
    selector_base,
)
from native_operands import (
    ADDRESS_SIZE,
    LOCK,
    OPERAND_SIZE,
    REP,
    REPNE,
    SEGMENT_PREFIXES,
    Encoding,
    mask,
)
from native_prepare import FAR_POINTERS, LOOPS, STRINGS, Preparation
from native_rows import FEATURES, Row, allowed, vector_rows

STACK_64 = {"push", "pop", "pushfd", "pushf", "popfd", "popf", "call", "ret", "jmp", "enter", "leave"}
"""64-bit operands in 64-bit code whatever REX says."""
PRIVILEGED_0F01 = {"lgdt", "lidt", "invlpg", "sgdt", "sidt"}
FENCES = {"lfence", "mfence", "sfence"}
BLOCK_NAMES = {"add", "adc", "sub", "sbb", "cmp", "inc", "dec", "neg", "not", "mov", "movzx", "movsx", "movsxd", "xchg"}
BLOCK_NAMES |= {"xadd", "cmpxchg", "bswap", "cwde", "cdq", "stc", "clc", "cmc", "lahf", "sahf", "nop", "popcnt", "lea"}
BLOCK_NAMES |= {"movbe", "crc32", "push", "pop", "std", "cld", "bswap", "movnti"} | ROTATES


def is_near_branch(row: Row) -> bool:
    return row.name in LOOPS or row.name in ("jmp", "call", "ret") or any(t in ("Jb", "Jz") for t in row.tokens)


class Generator(Preparation):
    """One seed, any number of vectors.

    Args:
        seed: of everything random.
        rows: those vectors are made for; by default all.
        worlds: those vectors run in.
        maker: "intel" or "amd": what only one of the two does as the manual says is tested only there.
    """

    def __init__(
        self,
        seed: int,
        rows: Sequence[Row] | None = None,
        worlds: Sequence[World] = WORLDS,
        maker: str = "amd",
    ) -> None:
        super().__init__(seed, worlds)
        rows = vector_rows() if rows is None else rows
        self.rows = [row for row in rows if any(allowed(row, world.bits) for world in worlds)]
        self.maker = maker
        self.host_flags: frozenset[str] = frozenset()
        """What the host has that changes which operands are good: split_lock_detect."""
        self.last: Encoding
        """Of the last instruction made."""
        self.bases: tuple[int, ...] = ()
        """In a block: the registers that addresses are made of, which its instructions leave alone."""

    # --- one instruction ---

    def encoding(self, row: Row, world: World, plain: bool) -> Encoding:
        """Sizes and prefixes, without knowing the operands."""
        r = self.random
        bits = world.bits
        prefixes: list[int] = []
        e = Encoding(world, 16 if bits == 16 else 32, bits)
        e.rex_allowed = bits == 64
        near = is_near_branch(row)
        sized = not ({"none_b"} & {row.form}) and (not row.tokens or row.tokens[0][-1] not in "b")
        toggle = r.random() < 0.25 and self.may_toggle(row, bits, near, plain) and (sized or r.random() < 0.2)
        if toggle:
            prefixes.append(OPERAND_SIZE)
            e.operand_bits = 48 - e.operand_bits
        if bits == 64:
            if row.name in STACK_64 or near:
                e.operand_bits = 16 if toggle else 64
            if row.name == "cmpxchg16b" or (r.random() < 0.45 and self.may_rex_w(row)):
                e.rex |= 8
                if row.name not in ("enter", "leave") or not toggle:
                    e.operand_bits = 64
            e.rex_bare = r.random() < 0.25
        if r.random() < 0.1 and (not plain or bits == 64):
            prefixes.append(ADDRESS_SIZE)
            e.address_bits = {16: 32, 32: 16, 64: 32}[bits]
        if r.random() < (0.02 if plain else 0.12) and row.name != "arpl":
            prefixes.append(r.choice(tuple(SEGMENT_PREFIXES)))
            if r.random() < 0.1 and not plain:
                prefixes.append(r.choice(tuple(SEGMENT_PREFIXES)))
        # LOCK MOV CR is CR8 on processors of one maker.
        if not plain and r.random() < (0.3 if row.lockable else 0.02) and row.form not in ("Rd_Cd", "Rd_Dd", "Rm_Cm"):
            prefixes.append(LOCK)
        # One maker lets F2 and F3 choose between LOOPE and LOOPNE: reserved, so not compared.
        chance = 0.7 if row.name in STRINGS else 0.03
        if row.map == 0 and not plain and row.name not in LOOPS and row.opcode != 0x90 and r.random() < chance:
            prefixes.append(r.choice((REPNE, REP)))  # before 90 it would be PAUSE
        if not plain and r.random() < 0.06 and prefixes:
            prefixes += [r.choice(prefixes)] * r.randrange(1, 3)
        if row.prefix and OPERAND_SIZE in prefixes and row.map == 2 and row.name != "crc32":
            prefixes = [p for p in prefixes if p != OPERAND_SIZE]
        r.shuffle(prefixes)
        if bits == 64 and prefixes and not plain and r.random() < 0.04:
            prefixes.insert(0, 0x40 | r.randrange(16))  # a REX that is not the last prefix does nothing
        e.prefixes = prefixes
        overrides = [SEGMENT_PREFIXES[p] for p in prefixes if p in SEGMENT_PREFIXES]
        if bits == 64:  # of the six only FS and GS count
            overrides = [name for name in overrides if name in ("fs", "gs")]
        e.segment = overrides[-1] if overrides else ""
        return e

    def may_toggle(self, row: Row, bits: int, near: bool, plain: bool) -> bool:
        """Whether a 66 prefix has a meaning that is the same everywhere and mostly not a fault."""
        r = self.random
        if (
            row.name in FENCES
            or row.name == "bswap"
            or row.name in ("movnti", "ud1")
            or (row.map == 1 and row.opcode == 0xC7)
        ):
            return False
        if row.name == "movsxd":
            return self.maker == "intel"  # the other reads 32 bits for 16
        if near or any(token[0] == "J" for token in row.tokens):
            # 64-bit: one maker ignores it, the other cuts RIP. Else EIP is cut: what follows is mostly a fetch fault.
            return (bits != 64 or self.maker == "intel") and not plain and r.random() < (1 if bits == 16 else 0.1)
        return True

    def may_rex_w(self, row: Row) -> bool:
        if row.name in FAR_POINTERS:
            return self.maker == "intel"  # 64-bit offsets in far pointers
        return row.name not in ("cmpxchg8b", "ud1", "movnti") or row.name == "movnti"

    def width(self, token: str, e: Encoding) -> int:
        """Operand bytes by the letter after the addressing letter."""
        letter = token[1:] or "v"
        if letter == "z":
            return min(e.operand_size, 4)
        if letter == "y":
            return 8 if e.rex & 8 else 4
        return {"b": 1, "w": 2, "d": 8 if e.rex & 8 and token in ("Gd", "Rd") else 4, "q": 8}.get(
            letter, e.operand_size
        )

    def instruction(self, row: Row, vector: Vector, plain: bool = False, at: int | None = None) -> bytes:
        """Machine code of one instruction of `row`, to stand at `at`; registers and memory are set to suit it."""
        r = self.random
        at = vector.entry if at is None else at
        e = self.encoding(row, vector.world, plain)
        tokens = row.tokens
        size = self.width(tokens[0], e) if tokens and tokens[0] not in ("AL", "AX") else e.operand_size
        if row.form == "none_b" or tokens[:1] == ["AL"]:
            size = 1
        if row.name in FEATURES:
            vector.needs.add(FEATURES[row.name])
        if vector.world.bits == 64 and row.name in ("lahf", "sahf"):
            vector.needs.add("lahf_lm")
        # AH, CH, DH and BH exist only without REX: sometimes give up REX for them.
        if vector.world.bits == 64 and "b" in "".join(tokens) and r.random() < 0.25 and not e.rex:
            e.rex_allowed, e.rex_bare = False, False
        taken = self.prepare_registers(row, vector, e, plain)
        opcode = bytes([0x0F, 0x38][: row.map]) + bytes([row.opcode])
        target = -1
        if row.modrm:
            target = self.modrm(row, vector, e, taken, plain)
        elif tokens and tokens[0][0] == "Z":
            self.opcode_register(row, vector, e)
        if row.name == "bswap" and e.operand_bits == 16:  # 16 bits: the result is undefined
            e.prefixes.append(OPERAND_SIZE)
        self.prepare(row, vector, e, target)
        immediate = self.immediate(row, vector, e)
        if row.name in COUNTED:
            count = 1
            if tokens[-1] == "Ub":
                count = immediate[0]
            elif row.opcode in (0xD2, 0xD3, 0xA5, 0xAD):
                count = vector.gpr[RCX] & 0xFF
            vector.undefined |= undefined_flags(row.name, size, count)
        else:
            vector.undefined |= undefined_flags(row.name, size)
        if row.name in ("bsf", "bsr"):
            # Without a bit set: nothing is written, or the upper half is cleared.
            register = (e.tail[0] >> 3 & 7) | (8 if e.rex & 4 else 0)
            if size == 4 and vector.world.bits == 64:
                vector.undefined_bits[register] = mask(64) & ~mask(32)
        if row.name == "push" and not row.tokens and e.operand_bits == 32:
            # A segment register into 32 bits: the upper half is written or not.
            top = (vector.gpr[RSP] - 4) & (0xFFFF if vector.world.ss != FLAT else mask(32))
            vector.undefined_bytes |= {top + n + vector.world.base("ss") for n in (2, 3)}
        self.last = e
        return e.assemble(opcode, immediate, row.prefix, at)

    def opcode_register(self, row: Row, vector: Vector, e: Encoding) -> None:
        """REX.B or not, for a register in the low bits of the opcode."""
        low = row.opcode & 7
        if vector.world.bits == 64 and e.rex_allowed and self.random.random() < 0.5:
            e.rex |= 1
        if low | (e.rex & 1) << 3 in self.bases and vector.world.bits == 64:
            e.rex ^= 1
            e.rex_bare = True

    def modrm(self, row: Row, vector: Vector, e: Encoding, taken: set[int], plain: bool) -> int:
        """Chooses register or memory; the linear address of the memory operand, or -1."""
        r = self.random
        tokens = row.tokens
        usable = [n for n in range(e.register_count) if not self.bases or n not in (*self.bases, RSP)]
        reg = row.extension if row.extension >= 0 else r.choice(usable)
        memory = r.random() < 0.6
        if any(token[0] == "M" for token in tokens):
            # With a register, LES and LDS are VEX, BOUND is EVEX.
            memory = (r.random() < 0.95 and not plain) or row.opcode in (0xC4, 0xC5, 0x62) or plain
        if row.name in FENCES or tokens[0][0] in "RCD":
            memory = False  # FXSAVE and its kin; MOV to and from control registers knows no memory
        if row.name.startswith("prefetch") or row.name in PRIVILEGED_0F01:
            memory = True  # hints without a name; VMX, XGETBV and their kin
        if row.map == 1 and row.opcode == 0xC7:
            memory = memory or r.random() < 0.9  # RDRAND and its kin have other numbers: this is #UD
        if reg >= 8:
            e.rex |= 4
        if not memory:
            rm = r.choice([n for n in usable if not (row.name in ("jmp", "call") and n == RSP)])
            if rm >= 8:
                e.rex |= 1
            e.tail = bytes([0xC0 | (reg & 7) << 3 | rm & 7])
            return -1
        target = self.targets.data(vector.world)
        if row.name == "arpl":  # whether what is not changed has to be writable is not said
            target = MIDDLE + r.randrange(240)
        if row.name.startswith("bt") and tokens[-1].startswith("G"):
            target = self.bit_offset(row, vector, e, reg, taken)
        if row.name == "cmpxchg16b" and r.random() < 0.8:
            target &= ~15
        if "split_lock_detect" in self.host_flags and LOCK in e.prefixes:
            target &= ~15
        if self.bases:
            target = self.addresses.by_fixed_base(vector, e, reg, r.choice(self.bases), target)
        else:
            target = self.addresses.operand(vector, e, reg, taken, target)
        vector.put(target, struct.pack("<Q", self.value()))
        return target

    def immediate(self, row: Row, vector: Vector, e: Encoding) -> bytes:
        r = self.random
        z = min(e.operand_size, 4)
        code = b""
        for token in row.tokens:
            if token in ("Ib", "Ub"):
                value = self.value() & 0xFF
                if row.name in COUNTED and r.random() < 0.8:
                    value = r.randrange(66)
                if row.name in DOUBLE_SHIFTS and e.operand_bits == 16 and value & 31 > 16:
                    value &= 0x0F  # the result is undefined
                if row.name == "int":
                    value = r.choice((0, 1, 5, 13, 14, 32, 0xEF, 0xFF))
                if row.form == "Iw_Ib":
                    value = r.choice((*range(6), 31, 32, 33)) if r.random() < 0.9 else value
                code += bytes([value])
            elif token == "Iz" or (token == "Iv" and row.form != "Zv_Iv"):
                code += struct.pack("<Q", self.value())[: 1 if row.form.startswith(("Eb", "AL")) else z]
            elif token == "Iv":
                code += struct.pack("<Q", self.value())[: e.operand_size]
            elif token == "Iw":
                code += struct.pack("<H", r.choice((0, 4, 8, 16, r.randrange(64))))
            elif token == "Jb":
                code += struct.pack("<b", self.jump())
            elif token == "Jz":
                code += struct.pack("<i", self.jump())[: 2 if e.operand_bits == 16 else 4]
            elif token in ("Ob", "Ov"):
                target = self.targets.data(vector.world)
                vector.put(target, struct.pack("<Q", self.value()))
                offset = target - vector.world.base(e.segment or "ds")
                code += struct.pack("<Q", offset & mask(64))[: e.address_bits // 8]
            elif token == "Ap":
                selector = self.far_selector(vector.world)
                offset = vector.entry + 40 - selector_base(selector) & mask(32)
                code += struct.pack("<I", offset)[:z] + struct.pack("<H", selector)
            elif token[0] not in "EGMSRCDZP" and token not in ("AL", "AX"):
                raise LookupError(f"no vectors for operand {token} of {row}")
        return code

    def jump(self) -> int:
        """Into the INT3s before or after the code."""
        r = self.random
        return r.randrange(0, 40) if r.random() < 0.8 else r.randrange(-48, -20)

    # --- vectors ---

    def of_row(self, row: Row, world: World | None = None) -> Vector:
        """One instruction of `row`, in a world where it may stand."""
        while world is None or not allowed(row, world.bits):
            world = self.world()
        vector = self.fresh(world)
        vector.code = self.instruction(row, vector)
        vector.name = row.name
        vector.text = f"{world.name}: {row}: {vector.code.hex(' ')}"
        return vector

    def single(self) -> Vector:
        return self.of_row(self.random.choice(self.rows))

    def block_rows(self) -> list[Row]:
        """Rows whose flags are all defined and that go on with the next instruction."""
        return [
            row
            for row in self.rows
            if (row.name in BLOCK_NAMES or row.name.startswith(("set", "cmov")))
            and not any(token[0] in "SRCD" for token in row.tokens)
            and not (row.name in ("push", "pop") and not row.tokens)
            and not (row.name in ROTATES and row.opcode in (0xD2, 0xD3))
        ]

    def block(self) -> Vector:
        """Two to eight instructions on one set of registers: what one leaves is what the next finds."""
        r = self.random
        rows = self.block_rows()
        vector = self.fresh()
        bits = vector.world.bits
        self.bases = (RSI, RDI) if bits != 64 else (r.choice((RSI, RDI)), r.randrange(8, 16))
        for base in self.bases:
            vector.gpr[base] = MIDDLE + r.randrange(60, 180) - vector.world.base("ds")
        code = b""
        count = r.randrange(2, 9)
        for row in r.choices(rows, k=60):
            in_opcode = bool(row.tokens) and row.tokens[0][0] == "Z"
            if bits not in row.bits or (in_opcode and row.opcode & 7 in (RSP, *self.bases)):
                continue
            trial = replace(vector, windows=[bytearray(window) for window in vector.windows], needs=set())
            part = self.instruction(row, trial, plain=True, at=vector.entry + len(code))
            if trial.undefined or trial.undefined_bytes or trial.undefined_bits:
                continue
            if len(code) + len(part) > CODE_SIZE - 4:
                continue
            code += part
            vector.windows = trial.windows
            vector.needs |= trial.needs
            count -= 1
            if not count:
                break
        self.bases = ()
        vector.code, vector.name = code, "block"
        vector.text = f"{vector.world.name}: block {code.hex(' ')}"
        return vector

    def vectors(self, count: int) -> Iterator[Vector]:
        """Singles over all rows, one block in eight."""
        for n in range(count):
            yield self.block() if n % 8 == 7 else self.single()
