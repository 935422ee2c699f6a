"""Everything in the guest images is in the one instruction table, by capstone's reading of it."""

import io
from collections import Counter
from collections.abc import Iterator

import capstone
import pytest
from capstone import x86 as cs
from elftools.elf.elffile import ELFFile
from native_generator import Generator
from native_layout import WORLDS
from native_rows import table_rows

from machine import _core, images

# What one name in the table stands for: operand sizes and hints that share a row.
ALIASES = {
    "pause": "xchg",
    "cbw": "cwde",
    "cdqe": "cwde",
    "cwd": "cdq",
    "cqo": "cdq",
    "fwait": "wait",
    "jcxz": "jecxz",
    "jrcxz": "jecxz",
    "iret": "iretd",
    "iretq": "iretd",
    "retfq": "retf",
    "pushaw": "pushal",
    "popaw": "popal",
    "pushf": "pushfd",
    "pushfq": "pushfd",
    "popf": "popfd",
    "popfq": "popfd",
    "sal": "shl",
    "movabs": "mov",
    "cmpxchg16b": "cmpxchg8b",
    "sysretq": "sysret",
    "sysexitq": "sysexit",
    **{
        f"{name}{width}": f"{name}d"
        for name in ("movs", "cmps", "stos", "lods", "scas", "ins", "outs")
        for width in "wq"
    },
}
PREFIXES = {"lock", "rep", "repne", "repe", "repz", "repnz", "xacquire", "xrelease", "bnd", "notrack"}

Instruction = capstone.CsInsn


ELF_64 = 2
"""Class byte of an ELF file for 64-bit code."""
MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}


def disassembler(bits: int) -> capstone.Cs:
    engine = capstone.Cs(capstone.CS_ARCH_X86, MODES[bits])
    engine.detail = True
    return engine


def mnemonic(instruction: Instruction) -> str:
    name = next(word for word in instruction.mnemonic.split() if word not in PREFIXES)
    if name == "nop" and instruction.opcode[0] == 0x90:
        return "xchg"
    if instruction.opcode[0] == 0xFF and instruction.modrm >> 3 & 7 in (3, 5):
        return "l" + name.removeprefix("l")  # far; capstone prints some like the near ones
    if 0xD8 <= instruction.opcode[0] <= 0xDF:
        return "x87"
    return ALIASES.get(name, name)


def memory_access(instruction: Instruction) -> str | None:
    for operand in instruction.operands:
        if operand.type == cs.X86_OP_MEM:
            return {0: "", 1: "R", 2: "W", 3: "RW"}[operand.access]
    return None


def functions(image: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, address, code) of every function symbol in executable sections."""
    elf = ELFFile(io.BytesIO(image))
    sections = {n: s for n, s in enumerate(elf.iter_sections()) if s["sh_flags"] & 4 and s["sh_type"] == "SHT_PROGBITS"}
    covered: Counter[int] = Counter()
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        section = sections.get(symbol["st_shndx"])
        if section is None or symbol["st_info"]["type"] != "STT_FUNC" or not symbol["st_size"]:
            continue
        start = symbol["st_value"] - section["sh_addr"]
        covered[symbol["st_shndx"]] += symbol["st_size"]
        yield symbol.name, symbol["st_value"], section.data()[start : start + symbol["st_size"]]
    for number, section in sections.items():  # little more than alignment may lie outside
        assert covered[number] > 0.8 * section["sh_size"], (section.name, covered[number], section["sh_size"])


@pytest.fixture(scope="session")
def image_names() -> tuple[str, ...]:
    images.build(images.image_names())
    return images.image_names()


def test_every_instruction_of_every_image(image_names: tuple[str, ...]) -> None:
    assert image_names
    seen: dict[tuple[int, bytes], str] = {}
    for image in image_names:
        count = 0
        content = images.image_bytes(image)
        bits = 64 if content[4] == ELF_64 else 32
        engine = disassembler(bits)
        for name, address, code in functions(content):
            at = 0
            for instruction in engine.disasm(code, address):
                at += instruction.size
                count += 1
                raw = bytes(instruction.bytes)
                if (bits, raw) in seen:
                    continue
                place = f"{image} {name} {instruction.address:#x}: {raw.hex(' ')} {instruction.mnemonic}"
                seen[bits, raw] = place
                try:
                    found, length, _ = _core.decode(raw, bits=bits)
                except ValueError as error:
                    pytest.fail(f"{place}: {error}")
                assert (found, length) == (mnemonic(instruction), instruction.size), place
            assert at == len(code), f"{image} {name}: capstone stops at {address + at:#x}"
        assert count > 1000
    assert len(seen) > 1000


# Capstone 5 takes these for readers only, or TEST for neither; and hints and LEA for readers. x87 code is not executed.
ACCESS_WRONG = {"cmpxchg", "cmpxchg8b", "rol", "ror", "rcl", "rcr", "test", "lea", "invlpg", "nop", "arpl", "movnti"}
ACCESS_WRONG |= {"x87"}


@pytest.mark.parametrize("bits", MODES)
def test_every_row_means_what_capstone_says(bits: int) -> None:
    """Length, mnemonic and memory access of generated code for each row."""
    engine = disassembler(bits)
    rows = [row for row in table_rows() if bits in row.bits]
    generator = Generator(11, rows, [world for world in WORLDS if world.bits == bits])
    checked = 0
    for row in rows:
        for _ in range(12):
            code = generator.of_row(row).code
            try:
                name, length, access = _core.decode(code, bits=bits)
            except ValueError:
                continue
            instruction = next(engine.disasm(code, 0x1000), None)
            if instruction is None:
                continue
            text = f"{code.hex(' ')}: {instruction.mnemonic} {instruction.op_str}"
            # Hints have names where a processor has what they hint at: MPX, CLDEMOTE, CET.
            hint = name == "nop" and row.map == 1
            assert hint or name == mnemonic(instruction), text
            assert length == instruction.size, text
            theirs = memory_access(instruction)
            wrong = name in ACCESS_WRONG or name.startswith(("set", "prefetch"))
            if theirs is not None and row.tokens and not wrong:
                assert access == theirs, text
            checked += 1
    assert checked > 9 * len(rows)
