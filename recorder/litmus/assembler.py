"""Machine code for litmus tests, made by the GNU assembler: one run of it for all tests of a width.

Each test is a section of its own whose offset 0 stands for address BASE: variables first, a page for stacks, then the
threads. Variables are labels there for RIP-relative operands, and absolute constants for all others, so the assembler
resolves everything and nothing is left to link.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from elftools.elf.elffile import ELFFile

from machine._core import decode as core_decode
from machine.assembler import AssemblyError, object_file
from machine.errors import UsageError
from recorder.litmus.errors import LitmusError
from recorder.litmus.instructions import Instruction, decode, instruction, refusal
from recorder.litmus.layout import BASE, PAGE_BYTES, Layout, blamed, lay_out
from recorder.litmus.program import Cell, LitmusTest
from recorder.litmus.translate import Names, att_order, translate

CODE_BYTES_MAX: Final = 64 * PAGE_BYTES
"""Most machine code of a test, padding between threads included."""


@dataclass(frozen=True, slots=True)
class ThreadCode:
    """A thread's machine code: first address, address behind the last instruction, instructions by address."""

    start: int
    end: int
    instructions: dict[int, Instruction]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A test ready to run: `code` lies at `layout.code_page`."""

    test: LitmusTest
    layout: Layout
    code: bytes
    threads: tuple[ThreadCode, ...]

    @property
    def uses_stack(self) -> bool:
        """Whether any instruction names or moves the stack pointer."""
        return any(row.uses_stack for thread in self.threads for row in thread.instructions.values())


class _Text:
    """Assembler text under construction; knows which test and cell each of its lines came from."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.origins: dict[int, tuple[LitmusTest, Cell]] = {}

    def add(self, line: str) -> None:
        self.lines.append(line)

    def add_instruction(self, line: str, test: LitmusTest, cell: Cell) -> None:
        self.lines.append(line)
        self.origins[len(self.lines)] = (test, cell)


def assemble(tests: Sequence[LitmusTest]) -> list[Assembled]:
    """Assemble tests, in order. Raises LitmusError for what is no instruction or cannot run."""
    done: dict[int, Assembled] = {}
    for bits in (32, 64):
        numbered = [(number, test) for number, test in enumerate(tests) if test.bits == bits]
        if not numbered:
            continue
        layouts = {number: lay_out(test) for number, test in numbered}
        text = _Text()
        for number, test in numbered:
            _write_test(text, number, test, layouts[number])
        elf = ELFFile(io.BytesIO(_run_assembler(text, bits)))
        table: Any = elf.get_section_by_name(".symtab")
        symbols = {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}
        for number, test in numbered:
            section: Any = elf.get_section_by_name(f".t{number}")
            data: bytes = section.data()
            done[number] = _collect(number, test, layouts[number], data, symbols)
    return [done[number] for number in range(len(tests))]


def _write_test(text: _Text, number: int, test: LitmusTest, layout: Layout) -> None:
    text.add(f'.section .t{number},"ax",@progbits')
    names = {name: index for index, name in enumerate(layout.slots)}
    for name, index in names.items():
        address = layout.slots[name].address
        text.add(f".set A{number}_{index}, {address:#x}")
        text.add(f".org {address - BASE:#x}")
        text.add(f"V{number}_{index}:")
    text.add(f".org {layout.code_page - BASE:#x}")
    att = att_order([cell.text for thread in test.threads for cell in thread if cell.text], test.bits)
    for thread_number, thread in enumerate(test.threads):
        prefix = f"{number}_{thread_number}"
        labels = _labels(test, thread)
        spelled = Names(
            absolute=lambda name: f"A{number}_{names[name]}",
            relative=lambda name: f"V{number}_{names[name]}",
            label=lambda label, prefix=prefix, labels=labels: f"L{prefix}_{labels[label]}",  # type: ignore[misc]
            labels=labels,
            end=f"E{prefix}",
        )
        text.add(f".balign {PAGE_BYTES}, 0xcc")
        text.add(f"S{prefix}:")
        for cell in thread:
            for label in cell.labels:
                text.add(f"L{prefix}_{labels[label]}:")
            if cell.text:
                line = _translated(test, cell, att, spelled)
                text.add_instruction(line, test, cell)
        text.add(f"E{prefix}:")
        text.add("ud2")


def _labels(test: LitmusTest, thread: Sequence[Cell]) -> dict[str, int]:
    """Label -> its number in the thread."""
    labels: dict[str, int] = {}
    for cell in thread:
        for label in cell.labels:
            if label in labels:
                raise LitmusError(test.path, cell.line, f"label {label} stands twice in one thread")
            labels[label] = len(labels)
    return labels


def _translated(test: LitmusTest, cell: Cell, att: bool, names: Names) -> str:
    return blamed(test.path, cell.line, cell.text, lambda: translate(cell.text, test.bits, att, names))


def _run_assembler(text: _Text, bits: int) -> bytes:
    """The object file. Raises LitmusError at the first instruction that the assembler refuses."""
    try:
        return object_file("\n".join(text.lines), bits)
    except AssemblyError as error:
        for line, message in error.complaints:
            if line in text.origins:
                test, cell = text.origins[line]
                raise LitmusError(test.path, cell.line, f"`{cell.text}`: {message}") from None
        raise LitmusError("as", 0, str(error)) from None
    except UsageError as error:
        raise LitmusError("as", 0, str(error)) from None


def _collect(number: int, test: LitmusTest, layout: Layout, data: bytes, symbols: dict[str, int]) -> Assembled:
    code = data[layout.code_page - BASE :]
    if len(code) > CODE_BYTES_MAX:
        raise LitmusError(test.path, 0, f"more than {CODE_BYTES_MAX:,} bytes of machine code")
    threads = []
    for thread_number, thread in enumerate(test.threads):
        start, end = (symbols[f"{letter}{number}_{thread_number}"] for letter in "SE")
        cells = [cell for cell in thread if cell.text]
        rows = decode(data[start:end], BASE + start, test.bits)
        if len(rows) != len(cells):
            raise LitmusError(test.path, cells[min(len(rows), len(cells) - 1)].line, "not one instruction per cell")
        for row, cell in zip(rows, cells, strict=True):
            _check(test, cell, row)
        instructions = {
            row.address: instruction(row, cell.text, cell.line) for row, cell in zip(rows, cells, strict=True)
        }
        threads.append(ThreadCode(BASE + start, BASE + end, instructions))
    return Assembled(test, layout, code, tuple(threads))


def _check(test: LitmusTest, cell: Cell, row: Any) -> None:
    """Whether the machine executes an instruction, and a test may hold it."""
    reason = refusal(row)
    if not reason:
        try:
            core_decode(bytes(row.bytes), bits=test.bits)
        except ValueError:
            reason = "the machine does not have this instruction"
    if reason:
        raise LitmusError(test.path, cell.line, f"`{cell.text}`: {reason}")
