"""Reads herd's litmus format for X86 and X86_64.

The grammar, as herd7 has it: a header line (architecture, name, optional comment in quotes, `Key=value` lines), the
initial state in braces, a table of instructions (columns separated by `|`, rows ended by `;`), and what to ask:
`locations [...]`, `filter`, and one of `exists`, `~exists`, `forall` (no condition: every state counts). Comments are
`(* ... *)` and may nest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from recorder.litmus.constraint import parse_constraint
from recorder.litmus.errors import LitmusError
from recorder.litmus.initial import parse_initial
from recorder.litmus.program import ARCHITECTURES, Cell, LitmusTest
from recorder.litmus.tokens import Tokens

FILE_BYTES_MAX: Final = 1 << 20
"""Longest file that is read: a litmus test is a page."""

ROW_CHARACTERS_MAX: Final = 10_000
"""Longest row of instructions."""

THREADS_MAX: Final = 8
"""Most threads: a machine has no more CPUs."""

_HEADER: Final = re.compile(r"\s*(\w+)[ \t]+(\S+)[ \t]*(?:\([^)\n]*\)[ \t]*)?(?:\n?[ \t]*\"([^\"]*)\"[ \t]*)?;?")
_INFO: Final = re.compile(r"^[ \t]*([A-Za-z][\w/.-]*)[ \t]*=(.*)$", re.MULTILINE)
_CONSTRAINT: Final = re.compile(r"~\s*exists\b|\bnot\s+exists\b|\b(?:final|forall|exists|observed|locations|filter)\b")
_LABEL: Final = re.compile(r"\s*([A-Za-z_][\w.]*)\s*:")
_LOCK_ALONE: Final = re.compile(r"(?:[\w.]+\s*:\s*)*lock", re.IGNORECASE)


def parse_file(path: Path) -> LitmusTest:
    """Parse a file. Raises LitmusError, OSError."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise LitmusError(str(path), 0, f"longer than {FILE_BYTES_MAX:,} bytes: no litmus test")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise LitmusError(str(path), 0, "not a text file: no litmus test") from None
    return parse(text, str(path))


def parse(text: str, path: str) -> LitmusTest:
    """Parse the text of a litmus file; `path` is for messages. Raises LitmusError."""
    text = _without_comments(text.replace("\r\n", "\n"), path)
    header = _HEADER.match(text)
    if header is None:
        raise LitmusError(path, 1, "the first line must be an architecture and a name, e.g. `X86_64 SB`")
    architecture, name, _ = header.groups()
    header_line = text.count("\n", 0, header.start(1)) + 1
    if architecture not in ARCHITECTURES:
        raise LitmusError(path, header_line, f"architecture {architecture!r}: only X86 and X86_64 run here")
    bits = ARCHITECTURES[architecture]
    opening = text.find("{", header.end())
    if opening < 0:
        raise LitmusError(path, header_line, "no initial state: `{` is missing")
    closing = _matching_brace(text, opening, path)
    info = {match[1]: match[2].strip() for match in _INFO.finditer(text, header.end(), opening)}
    variables, registers = parse_initial(Tokens(path, text[opening + 1 : closing], _line(text, opening)), bits)
    constraint = _CONSTRAINT.search(text, closing)
    program_end = constraint.start() if constraint else len(text)
    thread_names, threads = _parse_program(text[closing + 1 : program_end], _line(text, closing), path)
    locations, filter_, condition = parse_constraint(
        Tokens(path, text[program_end:].split("<<")[0], _line(text, program_end))
    )
    return LitmusTest(
        path=path,
        name=Path(path).stem if name == "--" else name,
        bits=bits,
        info=info,
        variables=variables,
        registers=registers,
        thread_names=thread_names,
        threads=threads,
        condition=condition,
        filter=filter_,
        locations=locations,
    )


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _without_comments(text: str, path: str) -> str:
    """The text with every comment blanked out, so that all else keeps its line."""
    out: list[str] = []
    depth = opened = position = 0
    for match in re.finditer(r"\(\*|\*\)", text):
        piece = text[position : match.start()]
        out.append("".join(c if c == "\n" else " " for c in piece) if depth else piece)
        position = match.end()
        if match[0] == "(*":
            if not depth:
                opened = _line(text, match.start())
            depth += 1
            out.append("  ")
        elif depth:
            depth -= 1
            out.append("  ")
        else:
            out.append(match[0])
    if depth:
        raise LitmusError(path, opened, "a comment is opened here and never closed")
    return "".join(out) + text[position:]


def _matching_brace(text: str, opening: int, path: str) -> int:
    depth = 0
    for match in re.finditer(r"[{}]", text[opening:]):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return opening + match.start()
    raise LitmusError(path, _line(text, opening), "the initial state is never closed: `}` is missing")


def _parse_program(text: str, line: int, path: str) -> tuple[list[int], list[list[Cell]]]:
    """Numbers of the threads and their columns of instructions; `line` is that of the first character."""
    rows = _rows(text, line, path)
    if not rows:
        raise LitmusError(path, line, "no program: a row of threads `P0 | P1 ;` must follow the initial state")
    names: list[int] = []
    for cell, cell_line in rows[0]:
        match = re.fullmatch(r"P(\d{1,9})", cell)
        if match is None:
            raise LitmusError(path, cell_line, f"expected a thread's name such as P0, found {cell!r}")
        names.append(int(match[1]))
    if len(set(names)) < len(names):
        raise LitmusError(path, rows[0][0][1], "two threads have the same name")
    if len(names) > THREADS_MAX:
        raise LitmusError(path, rows[0][0][1], f"{len(names)} threads: a machine has at most {THREADS_MAX} CPUs")
    threads: list[list[Cell]] = [[] for _ in names]
    for row in rows[1:]:
        if len(row) > len(names):
            raise LitmusError(path, row[0][1], f"{len(row)} columns for {len(names)} threads")
        for thread, (cell, cell_line) in zip(threads, row, strict=False):
            labels: list[str] = []
            position = 0
            while match := _LABEL.match(cell, position):
                labels.append(match[1])
                position = match.end()
            instruction = " ".join(cell[position:].split())
            if instruction or labels:
                thread.append(Cell(tuple(labels), instruction, cell_line))
    return names, threads


def _rows(text: str, line: int, path: str) -> list[list[tuple[str, int]]]:
    """Cells with their lines, row by row. `lock;` in a cell is the old way to write the prefix: it ends no row."""
    rows: list[list[tuple[str, int]]] = []
    joined = ""
    for piece in text.split(";"):
        row = joined + piece
        joined = ""
        if _LOCK_ALONE.fullmatch(row.rsplit("|", 1)[-1].strip()):
            joined = row + " "
            if len(joined) > ROW_CHARACTERS_MAX:
                start = line + row.count("\n", 0, len(row) - len(row.lstrip()))
                raise LitmusError(path, start, "a row that never ends")
            continue
        if row.strip():
            cells = []
            at = line
            for cell in row.split("|"):
                blank = len(cell) - len(cell.lstrip())
                cells.append((cell.strip(), at + cell.count("\n", 0, blank)))
                at += cell.count("\n")
            rows.append(cells)
        line += row.count("\n")
    if joined.strip():
        rows.append([(cell.strip(), line) for cell in joined.split("|")])
    return rows
