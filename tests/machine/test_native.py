"""Our machine against the real CPU, in 32-bit user mode."""

from pathlib import Path

import pytest
from native_oracle import (
    ARITHMETIC,
    CODE,
    EAX,
    EBP,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    LOW,
    MIDDLE,
    Generator,
    Vector,
    build_runner,
    differences,
    run_machine,
    run_native,
    vectors,
)

from machine import _core


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_runner(tmp_path_factory.mktemp("native"))


def check(runner: Path, batch: list[Vector]) -> None:
    failures = []
    for vector, native, ours in zip(batch, run_native(runner, batch), run_machine(batch), strict=True):
        found = differences(vector, native, ours)
        if found:
            failures.append("\n    ".join([vector.text, *found]))
    assert not failures, f"{len(failures)} of {len(batch)} vectors differ:\n" + "\n".join(failures[:10])


@pytest.mark.parametrize("seed", range(4))
def test_random_vectors(runner: Path, seed: int) -> None:
    check(runner, vectors(seed, 10_000))


def test_every_row_of_the_table(runner: Path) -> None:
    generator = Generator(77)
    check(runner, [generator.of_row(row) for row in generator.rows for _ in range(16)])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_random_vectors_soak(runner: Path, seed: int) -> None:
    check(runner, vectors(seed, 50_000))


def test_shifts_by_every_count(runner: Path) -> None:
    generator = Generator(3)
    batch = []
    for row in generator.rows:
        _, opcode, _, name, form, _, _ = row
        if form not in ("Eb_Ub", "Ev_Ub", "Ev_Gv_Ub") or name.startswith("bt"):
            continue
        for size16 in (False, True):
            for count in range(256):
                if size16 and form == "Ev_Gv_Ub" and count & 31 > 16:
                    continue  # undefined result
                vector = generator.fresh()
                code = bytearray(b"\x66" * size16 + b"\x0f" * row[0] + bytes([opcode]))
                code += bytes([0xC0 | (max(row[2], 0) << 3) | EAX, count])
                vector.code, vector.text = bytes(code), f"{name} {form} {code.hex(' ')}"
                size = 1 if form == "Eb_Ub" else 2 if size16 else 4
                vector.undefined = generator.undefined(name, form, vector, code[size16:], size)
                batch.append(vector)
    check(runner, batch)


def test_division_corners(runner: Path) -> None:
    values = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
    generator = Generator(4)
    batch = []
    for code in (b"\xf6\xf3", b"\xf6\xfb", b"\x66\xf7\xf3", b"\x66\xf7\xfb", b"\xf7\xf3", b"\xf7\xfb"):
        for high in values:
            for low in values:
                for divisor in (0, 1, 2, 0x80, 0xFF, 0x8000, 0xFFFF, 0x80000000, 0xFFFFFFFF):
                    vector = generator.fresh()
                    vector.gpr[EAX], vector.gpr[EDX], vector.gpr[3] = low, high, divisor
                    vector.code, vector.text, vector.undefined = code, f"div {code.hex(' ')}", ARITHMETIC
                    batch.append(vector)
    check(runner, batch)


def single(code: str, text: str, **registers: int) -> Vector:
    vector = Generator(1).fresh()
    vector.entry = CODE + 0x100
    vector.code, vector.text = bytes.fromhex(code), f"{text} {code}"
    numbers = {"eax": EAX, "ecx": ECX, "edx": EDX, "esp": ESP, "ebp": EBP, "esi": ESI, "edi": EDI}
    for name, value in registers.items():
        vector.gpr[numbers[name]] = value
    return vector


def test_found_differences_stay_fixed(runner: Path) -> None:
    check(
        runner,
        [
            # The first push that faults gives CR2, not the lowest address of all.
            single("60", "pushal", esp=LOW + 10),
            single("6660", "pushal", esp=LOW + 5),
            single("c8080002", "enter", esp=LOW + 4, ebp=MIDDLE),
            single("9a280110002300", "lcall", esp=LOW + 1),
            # ENTER needs the end of its frame writable.
            single("c8140003", "enter", esp=LOW + 33, ebp=MIDDLE),
            single("c8ffff00", "enter", esp=LOW + 64, ebp=MIDDLE),
            # A bad code segment comes before a bad stack.
            single("9a28011000fbff", "lcall", esp=LOW),
            # No such control register: #UD, not the #GP of its privilege.
            single("0f22fc", "mov"),
            single("0f20c9", "mov"),
        ],
    )


@pytest.mark.parametrize("length", [14, 15, 16, 17])
def test_more_than_15_bytes_are_a_general_protection_fault(runner: Path, length: int) -> None:
    batch = []
    for prefix in ("3e", "66", "2e"):
        for code in ("90", "0100", "f7c005000000", "0faf00"):
            batch.append(single(prefix * (length - len(code) // 2) + code, "long", eax=MIDDLE))
            batch[-1].undefined = ARITHMETIC
    check(runner, batch)


def test_a_seed_always_gives_the_same_vectors() -> None:
    first, second = vectors(9, 300), vectors(9, 300)
    assert [v.pack() for v in first] == [v.pack() for v in second]


def test_generated_vectors_reach_every_row() -> None:
    """Each row's own generator gives code that decodes as that row's mnemonic, unless it is made to be undefined."""
    generator = Generator(5)
    for row in generator.rows:
        names = set()
        for _ in range(30):
            try:
                names.add(_core.decode(generator.of_row(row).code)[0])
            except ValueError:
                names.add("undefined")
        assert row[3] in names, row
        assert names <= {row[3], "undefined"}, (row, names)
