"""x and print: guest memory as bytes, instructions, strings, and typed values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import drgn

from debugger.commands.arguments import complete_symbol, take_format
from debugger.registry import REGISTRY
from machine.disassembly import INSTRUCTION_BYTES_MAX, disassemble
from machine.errors import ExpressionError, UsageError

if TYPE_CHECKING:
    from debugger.session import Session

TOPIC = "Memory and values"
COUNT_MAX = 65536
STRING_BYTES_MAX = 4096
OUTPUT_LINES_MAX = 400
NUMBER_LETTERS = "xduotca"


def number_text(value: int, letter: str, size_bytes: int, session: Session) -> str:
    """An unsigned `value` of `size_bytes` in gdb format `letter`."""
    top = 1 << (8 * size_bytes - 1)
    as_signed = value - 2 * top if value & top else value
    match letter:
        case "d":
            return str(as_signed)
        case "u":
            return str(value)
        case "o":
            return f"{value:#o}"
        case "t":
            return f"{value:b}"
        case "c":
            return f"{as_signed} {chr(value & 0xFF)!r}"
        case "a":
            name = session.symbols.symbolise(value)
            return f"{value:#x}" if name.startswith("0x") else f"{value:#x} <{name}>"
        case _:
            return f"{value:#0{2 * size_bytes + 2}x}"


@REGISTRY.command(
    "x", arguments="/NFU ADDRESS", topic=TOPIC, complete=complete_symbol, repeats=True,
    examples=("x/8xw $esp", "x/5i $pc", "x/s contig_page_data.node_zones[0].name", "x/2dw &vm_stat"),
)  # fmt: skip
def examine(session: Session, arguments: str) -> str:
    """Show memory at a linear address as the selected CPU would load it.
    N is a count; F a format: x hex, d signed, u unsigned, o octal, t binary, c character, a address, i instruction,
    s string; U a unit: b 1, h 2, w 4, g 8 bytes. Format and unit are remembered (c alone means b, a an address);
    an empty line goes on."""
    form, rest = take_format(arguments, NUMBER_LETTERS + "is", "x")
    state = session.examination
    letter = form.letter or state.format
    size_bytes = form.size_bytes or _unit(session, form.letter) or state.size_bytes
    count = 1 if form.count is None else form.count
    if not 1 <= count <= COUNT_MAX:
        raise UsageError(f"x: the count is 1 to {COUNT_MAX}")
    address = session.integer(rest) if rest.strip() else state.address
    address &= (1 << session.symbols.bits) - 1
    state.format, state.size_bytes = letter, size_bytes
    if letter == "i":
        lines, state.address = _instructions(session, address, count)
    elif letter == "s":
        lines, state.address = _strings(session, address, count)
    else:
        lines, state.address = _numbers(session, address, count, letter, size_bytes)
    return "\n".join(lines)


def _unit(session: Session, letter: str | None) -> int | None:
    """The unit in bytes that a format letter implies, as gdb has it; None: that of the last `x`."""
    return {"c": 1, "a": session.symbols.bits // 8}.get(letter or "")


def _label(session: Session, address: int, size_bytes: int | None = None) -> str:
    name = session.symbols.symbolise(address, size_bytes)
    return f"{address:#x}" if name.startswith("0x") else f"{address:#x} <{name}>"


def _numbers(session: Session, address: int, count: int, letter: str, size_bytes: int) -> tuple[list[str], int]:
    data = session.symbols.read(address, count * size_bytes)
    row_count = 2 if letter == "a" else max(1, min(8, 16 // size_bytes))
    values = [int.from_bytes(data[at : at + size_bytes], "little") for at in range(0, count * size_bytes, size_bytes)]
    lines = []
    for start in range(0, count, row_count):
        texts = [number_text(value, letter, size_bytes, session) for value in values[start : start + row_count]]
        lines.append(f"{_label(session, address + start * size_bytes, size_bytes)}:\t" + "\t".join(texts))
    return lines, address + count * size_bytes


def _instructions(session: Session, address: int, count: int) -> tuple[list[str], int]:
    lines = []
    # As the CPU would decode it now: a 64-bit image begins in 32-bit code.
    bits = min(session.symbols.bits, max(32, session.registers()["bits"]))
    for _ in range(count):
        (row,) = disassemble(
            _readable(session, address, INSTRUCTION_BYTES_MAX), address, bits, count=1,
            name=session.symbols.symbolise, tracepoints=session.symbols.tracepoints(),
        )  # fmt: skip
        lines.append(f"{'=>' if address == session.pc else '  '} {_label(session, address)}:\t{row.text}")
        address += row.size_bytes
    return lines, address


def _readable(session: Session, address: int, size: int) -> bytes:
    """Up to `size` bytes: fewer where the next page is not mapped. Raises ExpressionError if there are none."""
    try:
        return session.symbols.read(address, size)
    except ExpressionError:
        inside = 0x1000 - address % 0x1000
        if inside >= size:
            raise
        return session.symbols.read(address, inside)


def _strings(session: Session, address: int, count: int) -> tuple[list[str], int]:
    lines = []
    for _ in range(count):
        data = b""
        while b"\0" not in data and len(data) < STRING_BYTES_MAX:
            data += _readable(session, address + len(data), 64)
        text, _, _ = data.partition(b"\0")
        shown = text.decode("latin-1").encode("unicode_escape").decode("ascii").replace('"', '\\"')
        lines.append(f'{_label(session, address)}:\t"{shown}"')
        address += len(text) + 1
    return lines, address


@REGISTRY.command(
    "print", arguments="[/F] EXPRESSION", shortest="p", aliases=("inspect",), topic=TOPIC, complete=complete_symbol,
    examples=(
        "print contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]",
        "p/x $eflags",
        "p *contig_page_data.node_zones[0].zone_pgdat",
    ),
)  # fmt: skip
def print_(session: Session, arguments: str) -> str:
    """Show the value of a C expression over the guest's symbols, at this moment.
    F is a format as in `x`: x d u o t c a s. Registers are written $eax, $eip, ...; nothing can be assigned."""
    form, rest = take_format(arguments, NUMBER_LETTERS + "s", "print")
    value = session.symbols.evaluate(rest, session.registers())
    if form.letter == "s":
        return "\n".join(_strings(session, session.integer(rest), 1)[0])
    if form.letter is not None:
        number = session.integer(rest)
        size_bytes = form.size_bytes or _size_of(session, value)
        text = number_text(number & ((1 << 8 * size_bytes) - 1), form.letter, size_bytes, session)
        return f"0x{number & ((1 << 8 * size_bytes) - 1):x}" if form.letter == "x" else text
    lines = session.symbols.format(value).splitlines()
    if len(lines) > OUTPUT_LINES_MAX:
        lines = [*lines[:OUTPUT_LINES_MAX], f"... {len(lines) - OUTPUT_LINES_MAX} more lines; print a member"]
    return "\n".join(lines)


def _size_of(session: Session, value: object) -> int:
    """Bytes of a value shown as a number; arrays and functions show their address."""
    try:
        size = int(drgn.sizeof(value))
    except TypeError:
        size = 0
    return size if size in (1, 2, 4, 8) else session.symbols.bits // 8
