"""Our machine against the real CPU: 64-, 32- and 16-bit code in user mode.

Everything is generated from the rows of the instruction table (native_generator.py), so what is added there is tested
here; `make fuzz-isa` runs more of the same.
"""

import pytest
from fuzz_isa import from_line
from native_flags import COUNTED, undefined_flags
from native_generator import Generator
from native_illegal import illegal_vectors
from native_layout import (
    CODE,
    COMPARED,
    FLAT_32,
    LONG,
    LOW,
    MIDDLE,
    RAX,
    RBX,
    RDX,
    REGISTERS,
    WORLDS,
    Vector,
    World,
)
from native_oracle import Comparison, build_runner, host_flags, host_maker
from native_rows import FEATURES, LEFT_OUT, allowed, table_rows, vector_rows

from machine import _core


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return Comparison(build_runner(tmp_path_factory.mktemp("native")))


def generator(sides: Comparison, seed: int) -> Generator:
    made = Generator(seed, worlds=sides.worlds, maker=host_maker())
    made.host_flags = host_flags()
    return made


def check(sides: Comparison, batch: list[Vector]) -> None:
    assert batch
    failures = sides.failures(batch)
    assert not failures, f"{len(failures)} of {len(batch)} vectors differ:\n" + "\n".join(failures[:10])


def test_host_can_run_all_vectors(sides: Comparison) -> None:
    """Says by name what this host cannot judge; all else is compared."""
    missing = sorted({flag for flag in (*FEATURES.values(), "lahf_lm") if flag not in host_flags()})
    missing += [world.name for world in WORLDS if world not in sides.worlds]
    if missing:
        pytest.skip(f"not on this host, vectors left out: {', '.join(missing)}")


@pytest.mark.parametrize("seed", range(5))
def test_random_vectors(sides: Comparison, seed: int) -> None:
    check(sides, list(generator(sides, seed).vectors(16_000)))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_random_vectors_soak(sides: Comparison, seed: int) -> None:
    check(sides, list(generator(sides, seed).vectors(50_000)))


def test_every_row_in_every_world(sides: Comparison) -> None:
    g = generator(sides, 77)
    batch = [
        g.of_row(row, world) for row in g.rows for world in sides.worlds if allowed(row, world.bits) for _ in range(6)
    ]
    check(sides, batch)


def test_illegal_encodings(sides: Comparison) -> None:
    check(sides, list(illegal_vectors(generator(sides, 6))))


def register_vector(g: Generator, world: World, name: str, code: bytes, size: int, count: int = 1) -> Vector:
    vector = g.fresh(world)
    vector.flags &= COMPARED & ~(1 << 8)
    vector.code, vector.name, vector.text = code, name, f"{world.name}: {name} {code.hex(' ')}"
    vector.undefined = undefined_flags(name, size, count)
    return vector


SIZES = ((2, b"\x66"), (4, b""), (8, b"\x48"))


def test_shifts_by_every_count(sides: Comparison) -> None:
    g = generator(sides, 3)
    batch = []
    for row in g.rows:
        if row.name not in COUNTED or row.tokens[-1] != "Ub":
            continue
        double = row.name in ("shld", "shrd")
        for size, prefix in SIZES if row.tokens[0] == "Ev" else ((1, b""),):
            for count in range(256):
                if double and size == 2 and count & 31 > 16:
                    continue  # undefined result
                code = prefix + (b"\x0f" if row.map else b"") + bytes([row.opcode])
                code += bytes([0xC0 | max(row.extension, 3 if double else 0) << 3 | RAX, count])
                world = LONG if size == 8 or count & 1 else FLAT_32
                batch.append(register_vector(g, world, row.name, code, size, count))
    check(sides, batch)


def test_division_corners(sides: Comparison) -> None:
    g = generator(sides, 4)
    edges = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
    edges += (0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF)
    batch = []
    for size, code in ((1, b"\xf6"), (2, b"\x66\xf7"), (4, b"\xf7"), (8, b"\x48\xf7")):
        for modrm in (0xF3, 0xFB):
            for high in edges:
                for low in edges:
                    for divisor in (
                        0,
                        1,
                        2,
                        0x80,
                        0xFF,
                        0x8000,
                        0xFFFF,
                        0x80000000,
                        0xFFFFFFFF,
                        1 << 63,
                        (1 << 64) - 1,
                    ):
                        name = "div" if modrm == 0xF3 else "idiv"
                        vector = register_vector(g, LONG, name, code + bytes([modrm]), size)
                        vector.gpr[RAX], vector.gpr[RDX], vector.gpr[RBX] = low, high, divisor
                        batch.append(vector)
    check(sides, batch)


def test_decimal_adjustments_of_every_value(sides: Comparison) -> None:
    g = generator(sides, 8)
    batch = []
    for name, code in (("daa", b"\x27"), ("das", b"\x2f"), ("aaa", b"\x37"), ("aas", b"\x3f")):
        for value in range(256):
            for flags in (0, 1, 0x10, 0x11):
                vector = register_vector(g, FLAT_32, name, code, 1)
                vector.gpr[RAX], vector.flags = value | 0xA500, 2 | flags
                batch.append(vector)
    for name, opcode in (("aam", 0xD4), ("aad", 0xD5)):
        for base in range(256):
            vector = register_vector(g, FLAT_32, name, bytes([opcode, base]), 1)
            vector.gpr[RAX] = g.random.getrandbits(16)
            batch.append(vector)
    check(sides, batch)


def single(code: str, text: str, world: World = FLAT_32, **registers: int) -> Vector:
    vector = Generator(1).fresh(world)
    vector.entry, vector.flags = CODE + 0x100, 2
    vector.code, vector.name, vector.text = bytes.fromhex(code), text, f"{world.name}: {text} {code}"
    for name, value in registers.items():
        vector.gpr[REGISTERS.index(name)] = value
    return vector


def test_found_differences_stay_fixed(sides: Comparison) -> None:
    check(
        sides,
        [
            # The first push that faults gives CR2, not the lowest address of all.
            single("60", "pushal", rsp=LOW + 10),
            single("6660", "pushal", rsp=LOW + 5),
            single("c8080002", "enter", rsp=LOW + 4, rbp=MIDDLE),
            single("9a280110002300", "lcall", rsp=LOW + 1),
            # ENTER needs the end of its frame writable.
            single("c8140003", "enter", rsp=LOW + 33, rbp=MIDDLE),
            single("c8ffff00", "enter", rsp=LOW + 64, rbp=MIDDLE),
            # A bad code segment comes before a bad stack.
            single("9a28011000fbff", "lcall", rsp=LOW),
            # No such control register: #UD, not the #GP of its privilege.
            single("0f22fc", "mov"),
            single("0f20c9", "mov"),
            # Page 0 is an address as any other, with bookkeeping (here the trap flag) and without.
            single("8b06", "mov", rsi=0x80),
            single("8b06", "mov", LONG, rsi=0x80),
        ],
    )


@pytest.mark.parametrize(
    "line",
    [
        # AH is not register 4.
        "world=64 name=lahf code=9f entry=0x100100 flags=0x2 rax=0xff00",
        # A 32-bit move that does not happen clears the upper half all the same.
        "world=64 name=cmovb code=0f42c1 entry=0x100100 flags=0x2 rax=0xffffffffffffffff",
        # A null stack segment faults, and SS stays what it was.
        "world=64 name=mov code=8ed0 entry=0x100100 flags=0x2",
        # MOVNTI has no 16-bit form.
        "world=16 name=movnti code=0fc307 entry=0x100100 flags=0x2 rax=0x12345678 rbx=0x8f90",
        # An address that is not canonical comes before one that is not aligned.
        "world=64 name=mov code=8b06 entry=0x100100 flags=0x40002 rsi=0x800000000001",
        # POP of a segment register is an access of the operand size.
        "world=64 name=pop code=0fa9 entry=0x100100 flags=0x40002 rsp=0x120804",
    ],
)
def test_found_by_fuzzing_stays_fixed(sides: Comparison, line: str) -> None:
    check(sides, [from_line(line)])


@pytest.mark.parametrize("length", [14, 15, 16, 17])
def test_more_than_15_bytes_are_a_general_protection_fault(sides: Comparison, length: int) -> None:
    batch = []
    for world in (FLAT_32, LONG):
        for prefix in ("3e", "66", "2e"):
            for code in ("90", "0100", "f7c005000000", "0faf00"):
                text = prefix * (length - len(code) // 2) + code
                if code == "f7c005000000" and prefix == "66":
                    text = prefix * (length - 4) + "f7c00500"
                batch.append(single(text, "long", world, rax=MIDDLE))
                batch[-1].undefined = COMPARED
    check(sides, batch)


def test_a_seed_always_gives_the_same_vectors() -> None:
    first, second = list(Generator(9).vectors(300)), list(Generator(9).vectors(300))
    assert [v.pack() for v in first] == [v.pack() for v in second]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_generated_vectors_reach_every_row(bits: int) -> None:
    """Each row's own generator gives code that decodes as that row's mnemonic, unless it is made to be undefined."""
    g = Generator(5, worlds=[world for world in WORLDS if world.bits == bits])
    aliases = {"cmpxchg16b": "cmpxchg8b"}
    for row in g.rows:
        if row.name == "ud1" or bits not in row.bits:
            continue
        names = set()
        for _ in range(40):
            try:
                names.add(_core.decode(g.of_row(row).code, bits=bits)[0])
            except ValueError:
                names.add("undefined")
        name = aliases.get(row.name, row.name)
        assert name in names, row
        assert names <= {name, "undefined"}, (row, names)


def test_every_row_of_the_table_has_vectors() -> None:
    covered = set(vector_rows())
    missing = [str(row) for row in table_rows() if row not in covered and row.name not in LEFT_OUT]
    assert not missing
    assert set(LEFT_OUT) <= {row.name for row in table_rows()} | {"rdtscp", "rdpmc"}


ISSUE = """
    add or adc sbb and sub xor cmp inc dec neg not mul imul div idiv daa das aaa aas aam aad rol ror rcl rcr shl shr sar
    shld shrd bt bts btr btc bsf bsr mov movzx movsx movsxd xchg xadd cmpxchg cmpxchg8b bswap lea push pop pushal popal
    pushfd popfd lahf sahf cwde cdq movsb movsd cmpsb cmpsd stosb stosd lodsb lodsd scasb scasd insb insd outsb outsd
    xlatb enter leave call ret lcall retf jmp ljmp loop loope loopne jecxz int int3 into iretd bound arpl salc test nop
    movbe popcnt lzcnt tzcnt crc32 movnti rdtsc cpuid lfence mfence sfence clc stc cmc cld std cli sti hlt in out
    les lds lss lfs lgs lar lsl verr verw sgdt sidt sldt str lgdt lidt lldt ltr smsw lmsw clts invlpg wbinvd invd
    rdmsr wrmsr sysenter sysexit syscall sysret ud2
"""


def test_the_table_has_every_integer_instruction() -> None:
    names = {row.name for row in table_rows()}
    assert not set(ISSUE.split()) - names
    for condition in ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]:
        assert {f"j{condition}", f"set{condition}", f"cmov{condition}"} <= names
