"""Machine code from assembler text, through the GNU assembler and linker (`as` and `ld` of binutils)."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from machine.errors import UsageError

_ALLOCATED: Final = 2
"""SHF_ALLOC: the section takes room in memory."""
_MESSAGE: Final = re.compile(r"[^:]*:(\d+): (?:Error|Fatal error|Warning): (.*)")


class AssemblyError(UsageError):
    """The assembler refuses the text.

    Attributes:
        complaints: (line number in the text, from 1, what it says of it), in order; empty if it names no line.
    """

    def __init__(self, message: str, complaints: tuple[tuple[int, str], ...] = ()) -> None:
        super().__init__(message)
        self.complaints = complaints


@dataclass(frozen=True, slots=True)
class Code:
    """Assembled code: `data` runs at address `origin`; `labels` are addresses by name."""

    origin: int
    data: bytes
    labels: dict[str, int]


@lru_cache(maxsize=1024)
def assemble(text: str, *, bits: int, origin: int = 0) -> Code:
    """Assemble AT&T syntax for 16-, 32- or 64-bit code that runs at the linear address `origin`.

    Statements end at a newline or a semicolon. `.intel_syntax noprefix` in the first line switches the syntax.
    Raises UsageError with the line and the assembler's complaint, or if binutils are missing.
    """
    from elftools.elf.elffile import ELFFile  # only here: it takes longer to import than all of `machine`

    if bits not in (16, 32, 64):
        raise UsageError(f"code is of 16, 32 or 64 bits, not {bits}")
    emulation = "elf_x86_64" if bits == 64 else "elf_i386"
    with tempfile.TemporaryDirectory() as folder:
        unlinked, linked = Path(folder, "code.o"), Path(folder, "code.elf")
        unlinked.write_bytes(object_file(text, bits))
        # -N: code and data follow each other without page alignment.
        link = ["ld", "-m", emulation, "-N", f"-Ttext={origin:#x}", "-e", "0", "-o", str(linked), str(unlinked)]
        if complaints := _run(link, ""):
            raise UsageError(f"the linker failed: {complaints[0].removeprefix('ld: ').replace(str(unlinked), 'code')}")
        elf = ELFFile(io.BytesIO(linked.read_bytes()))
    return Code(origin, _image(elf, origin), _labels(elf))


def object_file(text: str, bits: int) -> bytes:
    """The ELF object of AT&T text for 16-, 32- or 64-bit code, not linked. Raises AssemblyError."""
    mode = ".code16; " if bits == 16 else ""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "code.o")
        size = "64" if bits == 64 else "32"
        command = ["as", f"--{size}", "-mx86-used-note=no", "--fatal-warnings", "-o", str(out), "-"]
        lines = _run(command, f"{mode}{text}\n")
        if not lines:
            return out.read_bytes()
    matches = (_MESSAGE.fullmatch(line) for line in lines)
    complaints = tuple((int(match[1]), match[2]) for match in matches if match)
    if complaints:
        raise AssemblyError(f"line {complaints[0][0]}: {complaints[0][1]}", complaints)
    raise AssemblyError(f"the assembler failed: {lines[0]}")


def _run(command: Sequence[str], text: str) -> list[str]:
    """What a failed command complains about, in lines; empty if it succeeded."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise UsageError(f"`{command[0]}` is missing: install binutils (it comes with gcc)") from None
    if done.returncode == 0:
        return []
    lines = [line for line in done.stderr.splitlines() if "Assembler messages" not in line and "warning:" not in line]
    return lines or [f"status {done.returncode}"]


def _image(elf: Any, origin: int) -> bytes:
    """The bytes of all sections that take room, from `origin` on."""
    image = bytearray()
    for section in elf.iter_sections():
        if section["sh_flags"] & _ALLOCATED and section["sh_size"]:
            start = section["sh_addr"] - origin
            data = bytes(section["sh_size"]) if section["sh_type"] == "SHT_NOBITS" else section.data()
            image.extend(bytes(max(0, start + len(data) - len(image))))
            image[start : start + len(data)] = data
    return bytes(image)


def _labels(elf: Any) -> dict[str, int]:
    """Labels and constants of the text, not those that the linker adds."""
    table = elf.get_section_by_name(".symtab")
    return {
        symbol.name: symbol["st_value"]
        for symbol in (table.iter_symbols() if table else ())
        if symbol.name and symbol["st_info"]["type"] == "STT_NOTYPE" and symbol["st_info"]["bind"] == "STB_LOCAL"
    }
