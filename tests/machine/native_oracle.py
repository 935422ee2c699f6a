"""Vectors for 32-bit user-mode code, run on the real CPU and on our machine.

`vectors(seed, count)` generates, `run_native` and `run_machine` execute, `differences` compares all that the manual
defines: registers, memory, flags, and which exception came with which error code and address.
"""

import random
import struct
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from machine import _core

CODE, DATA, STACK, FIXED = 0x100000, 0x110000, 0x120000, 0x130000
MIDDLE, EDGE, TOP, LOW = DATA + 0x1000 - 128, DATA + 0x2000 - 128, STACK + 0x800 - 128, STACK
WINDOWS = ((MIDDLE, 256), (EDGE, 128), (TOP, 256), (LOW, 128))
HOLES = (DATA - 64, DATA + 0x2000, STACK + 0x1000, FIXED + 0x1000)
CODE_SIZE = 64
VECTOR = struct.Struct("<8III64s256s128s256s128s")
OUTCOME = struct.Struct("<8I5I4I256s128s256s128s")
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)

CF, PF, AF, ZF, SF, DF, OF = 1, 4, 16, 64, 128, 1024, 2048
ARITHMETIC = CF | PF | AF | ZF | SF | OF
COMPARED = ARITHMETIC | DF
IF = 0x200

CORNERS = (0, 1, 2, 3, 7, 8, 31, 32, 0x7F, 0x80, 0x81, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF)
CORNERS += (*(~value & 0xFFFFFFFF for value in CORNERS), 0x55555555, 0x12345678)

# Their result depends on more than the vector (time, model), or the kernel answers in the CPU's place (UMIP, INT 80).
LEFT_OUT = {"cpuid", "rdtsc", "sgdt", "sidt", "sldt", "str"}
# They store several times: where a later store faults, CPUs differ in what the earlier ones leave in memory below the
# stack pointer. Ours leave nothing.
PARTIAL_STORES = {"pushal", "enter", "lcall"}
STRINGS = {"movsb", "movsd", "cmpsb", "cmpsd", "stosb", "stosd", "lodsb", "lodsd", "scasb", "scasd"}
STACK_USERS = {"push", "pop", "pushal", "popal", "pushfd", "popfd", "call", "lcall", "ret", "retf", "iretd", "enter"}
STACK_USERS |= {"leave"}
SHIFTS = {"rol", "ror", "rcl", "rcr", "shl", "shr", "sar"}

Row = tuple[int, int, int, str, str, str, bool]


@dataclass
class Vector:
    code: bytes
    gpr: list[int]
    flags: int = 2
    entry: int = CODE + 0x100
    windows: list[bytearray] = field(default_factory=list)
    undefined: int = 0
    """Flags the manual leaves undefined afterwards."""
    text: str = ""

    def pack(self) -> bytes:
        return VECTOR.pack(
            *self.gpr, self.flags | IF, self.entry, self.code.ljust(CODE_SIZE, b"\xcc"), *map(bytes, self.windows)
        )


@dataclass
class Outcome:
    gpr: tuple[int, ...]
    flags: int
    eip: int
    trap: int
    error: int
    address: int
    segments: tuple[int, ...]
    windows: tuple[bytes, ...]


# --- generation ---


class Generator:
    """One seed, any number of vectors."""

    def __init__(self, seed: int, rows: list[Row] | None = None) -> None:
        self.random = random.Random(seed)
        self.rows = [row for row in rows or _core.instructions() if row[3] not in LEFT_OUT]

    def value(self) -> int:
        r = self.random
        kind = r.random()
        if kind < 0.45:
            return r.choice(CORNERS)
        if kind < 0.6:
            return r.randrange(64)
        return r.getrandbits(32)

    def target(self, stack: bool = False) -> int:
        """An address to access: mostly in a window, sometimes where it faults."""
        r = self.random
        kind = r.random()
        if stack:
            return TOP + 128 + (4 * r.randrange(-8, 8) if r.random() < 0.7 else r.randrange(-32, 32))
        if kind < 0.55:
            return MIDDLE + r.randrange(256 - 16)
        if kind < 0.7:
            return MIDDLE + 128 - r.randrange(9)  # over the page boundary
        if kind < 0.85:
            return EDGE + 128 - r.randrange(1, 24)  # often into the hole
        if kind < 0.93:
            return FIXED + r.randrange(0x100)
        return r.choice(HOLES) + r.randrange(32)

    def fresh(self) -> Vector:
        r = self.random
        vector = Vector(b"", [self.value() for _ in range(8)])
        vector.gpr[ESP] = self.target(stack=True)
        vector.flags = 2 | (r.getrandbits(12) & (ARITHMETIC | (DF if r.random() < 0.2 else 0)))
        if r.random() < 0.1:
            vector.entry = CODE + 0x1000 - r.randrange(1, 16)
        vector.windows = [bytearray(r.randbytes(size)) for _, size in WINDOWS]
        return vector

    def put(self, vector: Vector, addr: int, data: bytes) -> None:
        for window, (start, size) in zip(vector.windows, WINDOWS, strict=True):
            at = addr - start
            if at >= 0 and at + len(data) <= size:
                window[at : at + len(data)] = data

    def memory_operand(self, vector: Vector, reg: int, taken: set[int], address16: bool, target: int) -> bytes:
        """ModRM and what follows, for an operand at `target`; sets base and index registers not in `taken`."""
        r = self.random
        if address16:
            return self.memory_operand_16(reg)
        kind = r.random()
        free = [n for n in range(8) if n not in taken and n != ESP]
        base = r.choice(free) if free and kind < 0.8 else r.randrange(8)
        if kind < 0.15:
            return bytes([reg << 3 | 5]) + struct.pack("<I", target)
        settable = base not in taken and base != ESP
        if kind < 0.35 and settable:  # base + disp8
            displacement = r.randrange(-128, 128)
            vector.gpr[base] = (target - displacement) & 0xFFFFFFFF
            return bytes([0x40 | reg << 3 | base]) + struct.pack("<b", displacement)
        if kind < 0.45 and settable and base != EBP:
            vector.gpr[base] = target
            return bytes([reg << 3 | base])
        if kind < 0.7:  # base + disp32
            if base != ESP:
                return bytes([0x80 | reg << 3 | base]) + struct.pack("<I", (target - vector.gpr[base]) & 0xFFFFFFFF)
            return bytes([0x84 | reg << 3, 0x24]) + struct.pack("<I", (target - vector.gpr[ESP]) & 0xFFFFFFFF)
        index, scale = r.randrange(8), r.randrange(4)
        scaled = 0 if index == ESP else vector.gpr[index] << scale
        if kind < 0.8:  # index * scale + disp32
            rest = (target - scaled) & 0xFFFFFFFF
            return bytes([reg << 3 | 4, scale << 6 | index << 3 | 5]) + struct.pack("<I", rest)
        if kind < 0.9 and settable and index != base:
            displacement = r.randrange(-128, 128)
            vector.gpr[base] = (target - scaled - displacement) & 0xFFFFFFFF
            return bytes([0x44 | reg << 3, scale << 6 | index << 3 | base]) + struct.pack("<b", displacement)
        rest = (target - scaled - vector.gpr[base]) & 0xFFFFFFFF
        return bytes([0x84 | reg << 3, scale << 6 | index << 3 | base]) + struct.pack("<I", rest)

    def memory_operand_16(self, reg: int) -> bytes:
        """Any 16-bit address: nothing is mapped below 64 KB, so only LEA and branches get further than a fault."""
        r = self.random
        mod, rm = r.randrange(3), r.randrange(8)
        size = 2 if mod == 2 or (mod == 0 and rm == 6) else mod
        return bytes([mod << 6 | reg << 3 | rm]) + r.randbytes(size)

    def instruction(self, row: Row, vector: Vector, plain: bool = False) -> bytes:
        """Machine code of one instruction of `row`; registers and memory are set to suit it."""
        r = self.random
        table, opcode, extension, name, form, _, lockable = row
        tokens = form.split("_")
        prefixes = bytearray()
        wide = any(token in form for token in ("v", "z", "none", "M")) and "none_b" not in form
        size16 = wide and r.random() < 0.25 and not (name in ("lfence", "mfence", "sfence", "bswap") or "J" in form)
        if name in ("ret", "call", "jmp", "jecxz", "loop", "loope", "loopne", "wbinvd", "invd") and not plain:
            size16 = size16 and r.random() < 0.1  # EIP is cut to 16 bits: all that follows is a fetch fault
        if size16:
            prefixes.append(0x66)
        address16 = not plain and r.random() < 0.06
        if address16:
            prefixes.append(0x67)
        if not plain and r.random() < 0.08:
            prefixes.append(r.choice((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)))
        # LOCK MOV CR is CR8 on processors of one vendor.
        locked = r.random() < (0.3 if lockable else 0.02) and not plain and form != "Rd_Cd"
        if locked:
            prefixes.append(0xF0)
        repeat = False
        # Processors of one vendor let F2 and F3 choose between LOOPE and LOOPNE: reserved, so not compared.
        if table == 0 and not plain and "loop" not in name and r.random() < (0.7 if name in STRINGS else 0.03):
            prefixes.append(r.choice((0xF2, 0xF3)))
            repeat = True
        size = 1 if "b" in tokens[0] and tokens[0] != "none" else 2 if size16 else 4
        code = bytearray([0x0F] * table) + bytes([opcode])

        operand = tokens[0]
        modrm = operand[0] in "EGMRS" or operand == "Rd"
        memory, target = False, 0
        reg = extension if extension >= 0 else r.randrange(8)
        taken = self.prepare_registers(name, vector, size16)
        if modrm:
            target = self.target()
            memory = operand != "Rd" and r.random() < 0.6
            if any(token.startswith("M") for token in tokens):
                memory = r.random() < 0.95
            if name in ("lfence", "mfence", "sfence"):
                memory = False  # FXSAVE and its kin
            if name.startswith("prefetch") or (table == 1 and opcode == 0x01):
                memory = True  # hints without a name; VMX, XGETBV and their kin
            if operand == "Rd":
                code.append(0xC0 | reg << 3 | r.randrange(8))
            elif memory:
                if name.startswith("bt") and len(tokens) == 2 and tokens[1] == "Gv":
                    taken.add(reg)
                    reach = r.choice((32, 512))  # bits: 64 bytes to either side stay within a window or a hole
                    vector.gpr[reg] = r.randrange(-reach, reach) & 0xFFFFFFFF
                    if reg == ESP:  # ESP may be a base too: keep it small all the same
                        vector.gpr[reg] &= 0x1FF
                    target = r.choice((MIDDLE + 64 + r.randrange(128), EDGE + 124 - r.randrange(32)))
                    address16 = False
                    prefixes = bytearray(p for p in prefixes if p != 0x67)
                code += self.memory_operand(vector, reg, taken, address16, target)
                self.put(vector, target, struct.pack("<I", self.value())[:4])
            elif name in ("jmp", "call"):
                code.append(0xC0 | reg << 3 | r.choice((EAX, ECX, EDX, EBX, EBP, ESI, EDI)))  # no jump to the stack
            else:
                code.append(0xC0 | reg << 3 | r.randrange(8))
        self.prepare(name, form, vector, repeat, address16, target if memory else None, size16)

        for token in tokens[1:] if modrm else tokens:
            if token in ("Ib", "Ub"):
                count = name in SHIFTS or name in ("shld", "shrd")
                value = r.randrange(34) if count and r.random() < 0.8 else self.value()
                if name == "int":
                    value = r.choice((0, 1, 5, 13, 14, 32, 0xEF, 0xFF))
                if token == "Ib" and form == "Iw_Ib":
                    value = r.randrange(8)
                if name.startswith("sh") and size16 and name in ("shld", "shrd") and value & 31 > 16:
                    value &= 0x0F  # the result is undefined
                code.append(value & 0xFF)
            elif token in ("Iz", "Iv"):
                code += struct.pack("<I", self.value())[: 2 if size16 else 4]
                if size == 1:
                    raise AssertionError(form)
            elif token == "Iw":
                code += struct.pack("<H", r.choice((0, 4, 8, 16, r.randrange(64))))
            elif token == "Jb":
                code.append(r.randrange(0, 40))
            elif token == "Jz":
                code += struct.pack("<I", r.randrange(0, 40))[: 2 if size16 else 4]
            elif token in ("Ob", "Ov"):
                target = self.target()
                self.put(vector, target, struct.pack("<I", self.value()))
                code += struct.pack("<I", target)[: 2 if address16 else 4]
            elif token == "Ap":
                code += struct.pack("<I", vector.entry + 40)[: 2 if size16 else 4]
                code += struct.pack("<H", self.selector(True))
        r.shuffle(prefixes)
        vector.undefined |= self.undefined(name, form, vector, code, size)
        return bytes(prefixes) + bytes(code)

    def selector(self, code: bool) -> int:
        if code:
            return self.random.choice((0x23, 0x23, 0x23, 0x20, 0, 0x2B, 0xFFFB, 0x63))
        return self.random.choice((0x2B, 0x2B, 0x28, 0, 3, 0x23, 0x10, 0x18, 0xFFFB, 0x63))

    def prepare_registers(self, name: str, vector: Vector, size16: bool) -> set[int]:
        """Sets registers the instruction uses by itself; an operand's address must leave those alone."""
        r = self.random
        if name in ("div", "idiv"):
            if r.random() < 0.7:
                vector.gpr[EDX] = r.choice((0, 1, 0xFFFFFFFF, r.randrange(0x100)))
            return {EDX}
        if name in SHIFTS or name in ("shld", "shrd"):
            if r.random() < 0.8:
                vector.gpr[ECX] = (vector.gpr[ECX] & ~0xFF) | r.randrange(34)
            if name in ("shld", "shrd") and size16 and vector.gpr[ECX] & 31 > 16:
                vector.gpr[ECX] &= ~0x10
            return {ECX}
        if name in ("leave", "enter"):
            vector.gpr[EBP] = self.target(stack=True)
        if name in STACK_USERS and r.random() < 0.12:
            vector.gpr[ESP] = LOW + r.randrange(40)  # down into the hole
        return set()

    def prepare(
        self, name: str, form: str, vector: Vector, repeat: bool, address16: bool, target: int | None, size16: bool
    ) -> None:
        """Values that make the instruction do something more often than fault."""
        r = self.random
        word = 2 if size16 else 4

        def words(*values: int) -> bytes:
            return b"".join(struct.pack("<I", value)[:word] for value in values)

        if name in STRINGS:
            self.prepare_string(name, vector, repeat, address16)
        elif name == "cmpxchg" and target is not None and r.random() < 0.5:
            self.put(vector, target, struct.pack("<I", vector.gpr[EAX]))
        elif name == "cmpxchg8b" and target is not None and r.random() < 0.5:
            self.put(vector, target, struct.pack("<II", vector.gpr[EAX], vector.gpr[EDX]))
        elif name == "xlatb":
            vector.gpr[EBX] = (self.target() - (vector.gpr[EAX] & 0xFF)) & 0xFFFFFFFF
        elif name in ("loop", "loope", "loopne", "jecxz"):
            vector.gpr[ECX] = r.choice((0, 1, 2, 0x10000, 0x10001, vector.gpr[ECX]))
        elif name in ("ret", "retf", "iretd", "popfd"):
            flags = (r.getrandbits(12) & (COMPARED & ~DF)) | 2 | (IF if r.random() < 0.7 else 0)
            entry = vector.entry + 40
            frame = {"ret": [entry], "popfd": [flags], "retf": [entry, self.selector(True)]}
            frame["iretd"] = [entry, self.selector(True), flags]
            self.put(vector, vector.gpr[ESP], words(*frame[name]))
        elif name in ("jmp", "call") and "E" in form:
            goal = vector.entry + 40
            if target is not None:
                self.put(vector, target, words(goal))
            else:
                vector.gpr = [value if n == ESP else goal for n, value in enumerate(vector.gpr)]
        elif name in ("ljmp", "lcall") and target is not None:
            self.put(vector, target, words(vector.entry + 40) + struct.pack("<H", self.selector(True)))
        elif name == "pop" and form == "none":
            self.put(vector, vector.gpr[ESP], words(self.selector(False)))
        elif "Sw" in form:
            selector = self.selector(False)
            if target is not None:
                self.put(vector, target, struct.pack("<H", selector))
            for n in range(8):
                if n != ESP and form == "Sw_Ew" and target is None:
                    vector.gpr[n] = vector.gpr[n] & 0xFFFF0000 | selector

    def prepare_string(self, name: str, vector: Vector, repeat: bool, address16: bool) -> None:
        r = self.random
        size = 1 if name.endswith("b") else 4
        backward = vector.flags & DF
        count = r.choice((0, 1, 2, 3, r.randrange(14)))

        def start() -> int:
            kind = r.random()
            if kind < 0.75:  # room for 14 elements on both sides
                return MIDDLE + 64 + r.randrange(128 - 8)
            if kind < 0.9:  # runs into a hole on the way
                return LOW + r.randrange(30) if backward else EDGE + 128 - r.randrange(30)
            return FIXED + 64 + r.randrange(64)

        vector.gpr[ESI], vector.gpr[EDI] = start(), start()
        if repeat:
            vector.gpr[ECX] = count | (r.getrandbits(16) << 16 if address16 else 0)
        if name[:4] in ("cmps", "scas") and r.random() < 0.7:  # runs of equal elements
            same = bytes([r.randrange(256)]) * (size * r.randrange(1, 12))
            self.put(vector, vector.gpr[ESI] - (len(same) - size if backward else 0), same)
            self.put(vector, vector.gpr[EDI] - (len(same) - size if backward else 0), same)
            if name.startswith("scas"):
                vector.gpr[EAX] = int.from_bytes(same[:1] * 4, "little")

    def undefined(self, name: str, form: str, vector: Vector, code: bytearray, size: int) -> int:
        """Flags without a defined value after the instruction (SDM vol. 2, the instruction's page)."""
        if name in ("and", "or", "xor", "test"):
            return AF
        if name in SHIFTS or name in ("shld", "shrd"):
            count = 1
            if form.endswith("Ub"):
                count = code[-1] & 31
            elif code[0] in (0xD2, 0xD3) or bytes(code[:2]) in (b"\x0f\xa5", b"\x0f\xad"):
                count = vector.gpr[ECX] & 31
            if not count:
                return 0
            undefined = 0 if count == 1 else OF
            if name[0] == "s":
                undefined |= AF
            if name in ("shl", "shr") and count >= size * 8:
                undefined |= CF
            return undefined
        if name in ("bt", "bts", "btr", "btc"):
            return OF | SF | AF | PF
        if name in ("bsf", "bsr"):
            return CF | OF | SF | AF | PF
        if name in ("mul", "imul"):
            return SF | ZF | AF | PF
        if name in ("div", "idiv"):
            return ARITHMETIC
        return 0

    def single(self) -> Vector:
        row = self.random.choice(self.rows)
        vector = self.fresh()
        vector.code = self.instruction(row, vector)
        vector.text = f"{row[3]} {row[4]} {vector.code.hex(' ')}"
        return vector

    def of_row(self, row: Row) -> Vector:
        vector = self.fresh()
        vector.code = self.instruction(row, vector)
        vector.text = f"{row[3]} {row[4]} {vector.code.hex(' ')}"
        return vector

    @cache  # noqa: B019 (one generator lives for one test)
    def block_rows(self) -> list[Row]:
        """Rows whose flags are all defined and that go on with the next instruction, with register operands."""
        names = {"add", "adc", "sub", "sbb", "cmp", "inc", "dec", "neg", "not", "mov", "movzx", "movsx", "xchg", "xadd"}
        names |= {"cmpxchg", "bswap", "cwde", "cdq", "stc", "clc", "cmc", "lahf", "sahf", "nop"}
        return [
            row
            for row in self.rows
            if (row[3] in names or row[3].startswith(("set", "cmov"))) and row[4] not in ("Rd_Cd", "Ev_Sw", "Sw_Ew")
        ]

    def block(self) -> Vector:
        """Several instructions on one set of registers: what one leaves is what the next finds."""
        r = self.random
        vector = self.fresh()
        parts = []
        while len(parts) < 8:
            row = r.choice(self.block_rows())
            trial = Vector(b"", list(vector.gpr), windows=[bytearray(w) for w in vector.windows], entry=vector.entry)
            code = self.instruction(row, trial, plain=True)
            modrm = row[4][0] in "EGM"
            at = len(code) - len(code.lstrip(b"\x66"))
            at += row[0] + 1
            if modrm and code[at] < 0xC0 and code[at] & 0xC7 != 5:
                continue  # only absolute addresses: base registers change on the way
            if modrm and code[at] >= 0xC0 and (code[at] & 7 == 4 or code[at] >> 3 & 7 == 4):
                continue
            if row[4].startswith("Z") and code[at - 1] & 7 == ESP:
                continue
            if modrm and code[at] >> 3 & 7 == 4 and row[2] < 0:
                continue
            if sum(map(len, parts)) + len(code) > CODE_SIZE - 8:
                break
            parts.append(code)
        vector.code = b"".join(parts)
        vector.text = f"block {vector.code.hex(' ')}"
        return vector


def vectors(seed: int, count: int) -> list[Vector]:
    """Singles over the whole table, one block in eight."""
    generator = Generator(seed)
    return [generator.block() if n % 8 == 7 else generator.single() for n in range(count)]


# --- the real CPU ---


def build_runner(folder: Path) -> Path:
    runner = folder / "native_runner"
    flags = ["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector"]
    flags += ["-mgeneral-regs-only", "-O2"]
    source = Path(__file__).with_name("native_runner.c")
    subprocess.run(["gcc", *flags, "-Wall", "-Wextra", "-Werror", str(source), "-o", str(runner)], check=True)
    return runner


def run_native(runner: Path, batch: list[Vector]) -> list[Outcome]:
    done = subprocess.run([str(runner)], input=b"".join(v.pack() for v in batch), stdout=subprocess.PIPE, timeout=300)
    assert done.returncode == 0, f"the runner ended with {done.returncode}"
    assert len(done.stdout) == OUTCOME.size * len(batch)
    outcomes = []
    for fields in OUTCOME.iter_unpack(done.stdout):
        trap, error = fields[10], fields[11]
        error &= ~0x10 if trap == 14 else 0xFFFFFFFF  # fetch bit: our machine has no NX
        address = fields[12] if trap == 14 else 0
        outcomes.append(Outcome(fields[:8], fields[8], fields[9], trap, error, address, fields[13:17], fields[17:]))
    return outcomes


# --- our machine ---


def descriptor(kind: int, limit: int = 0xFFFFF, base: int = 0, flags: int = 0xC) -> bytes:
    """`kind`: access byte; `flags`: G, D."""
    high = (base >> 16 & 0xFF) | kind << 8 | (limit & 0xF0000) | flags << 20 | (base & 0xFF000000)
    return struct.pack("<II", (limit & 0xFFFF) | (base & 0xFFFF) << 16, high)


PAGE_DIRECTORY, PAGE_TABLE, GDT, BOOT = 0x300000, 0x301000, 0x302000, 0x303000


class MachineRunner:
    """A machine in user mode with the memory map of native_runner.c and Linux's user selectors.

    The interrupt table is empty: every exception ends in shutdown, with the registers as they were when it came.
    """

    def __init__(self) -> None:
        self.machine = m = _core.Machine(ram_bytes=4 << 20, store_buffer=8)
        m.tap_capacity(1024)
        user, read_only, supervisor = 7, 5, 3
        table = [0] * 1024
        for start, size, rights in ((CODE, 2, user), (DATA, 2, user), (STACK, 1, user), (FIXED, 1, read_only)):
            for page in range(size):
                table[(start >> 12) + page] = start + page * 4096 | rights
        for page in (GDT, BOOT):
            table[page >> 12] = page | supervisor
        m.write(PAGE_DIRECTORY, struct.pack("<I", PAGE_TABLE | user))
        m.write(PAGE_TABLE, struct.pack("<1024I", *table))
        entries = [bytes(8), descriptor(0x9B), descriptor(0x9B), descriptor(0x93), descriptor(0xFB), descriptor(0xF3)]
        m.write(GDT, b"".join(entries))
        m.write(FIXED, bytes((i * 37 + 11) & 0xFF for i in range(4096)))
        # mov ds/es, 2b; mov fs/gs, 0; iret to user mode
        boot = bytes.fromhex("66b82b008ed88ec031c08ee08ee8") + b"\x6a\x2b\x68" + struct.pack("<I", STACK + 0x800)
        boot += b"\x68" + struct.pack("<I", 0x202) + b"\x6a\x23\x68" + struct.pack("<I", CODE + 0x100) + b"\xcf"
        m.write(BOOT, boot)
        for name, value in (("cr3", PAGE_DIRECTORY), ("cr0", 0x80010011), ("gdt_base", GDT), ("gdt_limit", 127)):
            m.set_register(0, name, value)
        m.set_register(0, "idt_limit", 0)
        m.set_register(0, "rsp", BOOT + 0x800)
        m.set_register(0, "rip", BOOT)
        m.execute(plan(_core.RUN, 12))
        state = m.registers(0)
        assert (state["cpl"], state["rip"], state["cs"], state["fs"]) == (3, CODE + 0x100, 0x23, 0)
        m.tap = True
        self.start = m.snapshot()
        self.go = plan(_core.RUN, 400) * 3  # PAUSE ends one

    def run(self, vector: Vector) -> Outcome:
        m = self.machine
        m.restore(self.start)
        for name, value in zip(REGISTERS, vector.gpr, strict=True):
            m.set_register(0, name, value)
        m.set_register(0, "rflags", vector.flags | IF)
        m.set_register(0, "rip", vector.entry)
        m.write(vector.entry - CODE_SIZE, (b"\xcc" * CODE_SIZE + vector.code).ljust(CODE_SIZE * 4, b"\xcc"))
        for (start, _), content in zip(WINDOWS, vector.windows, strict=True):
            m.write(start, bytes(content))
        m.events_clear()
        reason, _, _ = m.execute(self.go)
        assert reason == "shutdown", (reason, vector.text)
        trap = error = address = -1
        count, _, _, addr, _, value, kind, _, _, info = m.events()
        for i in range(count):
            if kind[i] == _core.EVENT_KINDS["soft_interrupt"] and info[i] in (3, 4):
                trap, error, address = info[i], 0, 0
                break
            if kind[i] == _core.EVENT_KINDS["fault"]:
                trap, error, address = info[i], value[i], addr[i] if info[i] == 14 else 0
                break
        state = m.registers(0)
        eip = state["rip"]
        if trap in (3, 4):  # reported after the instruction
            eip += _core.decode(m.read(eip, 15))[1]
        return Outcome(
            tuple(state[name] for name in REGISTERS),
            state["rflags"],
            eip,
            trap,
            error,
            address,
            tuple(state[name] for name in ("es", "ds", "fs", "gs")),
            tuple(m.read(start, size) for start, size in WINDOWS),
        )


def plan(op: int, arg: int, cpu: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<BBHIQ", op, cpu, flags, 0, arg)


def run_machine(batch: list[Vector]) -> list[Outcome]:
    runner = MachineRunner()
    return [runner.run(vector) for vector in batch]


def shown(value: int | tuple[int, ...]) -> str:
    return hex(value) if isinstance(value, int) else " ".join(map(hex, value))


def differences(vector: Vector, native: Outcome, ours: Outcome) -> list[str]:
    found = []
    for name in ("trap", "error", "address", "eip", "segments"):
        left, right = getattr(native, name), getattr(ours, name)
        if left != right:
            found.append(f"{name}: CPU {shown(left)}, ours {shown(right)}")
    for number, name in enumerate(REGISTERS):
        if native.gpr[number] != ours.gpr[number]:
            left, right = native.gpr[number], ours.gpr[number]
            found.append(f"{name}: CPU {left:#x}, ours {right:#x} (was {vector.gpr[number]:#x})")
    # A faulting instruction changed no flags, so none is undefined.
    undefined = vector.undefined if native.trap in (3, 4) else 0
    if native.trap == 14 and vector.text[:4] in ("cmps", "scas"):
        undefined = ARITHMETIC  # of the last iteration, or of before: CPUs differ
    if (native.flags ^ ours.flags) & COMPARED & ~undefined:
        found.append(
            f"flags: CPU {native.flags & COMPARED:#x}, ours {ours.flags & COMPARED:#x} (was {vector.flags:#x})"
        )
    partial = native.trap == 14 and vector.text.split()[0] in PARTIAL_STORES
    for (start, _), left, right in [] if partial else zip(WINDOWS, native.windows, ours.windows, strict=True):
        bad = [start + i for i in range(len(left)) if left[i] != right[i]]
        if bad:
            found.append(f"memory at {', '.join(map(hex, bad[:8]))}")
    return found
