"""Page tables for the bare machine: two-level, PAE and four-level. Intel SDM vol. 3, chapter 4."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from machine._core import Machine
from machine.errors import UsageError

Paging = Literal["none", "2-level", "pae", "4-level"]

PAGE_BYTES: Final = 4096
PRESENT, WRITABLE, USER, LARGE, GLOBAL = 1, 2, 4, 0x80, 0x100
NO_EXECUTE: Final = 1 << 63
_FRAME: Final = 0x000F_FFFF_FFFF_F000
_RIGHTS: Final = ("r", "rw", "rx", "rwx")


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells one kind of page tables from another. Levels count from 1, the table whose entries map 4 KB."""

    level_max: int
    index_bits: int
    entry_bytes: int
    page_bytes: tuple[int, ...]
    """Page sizes, by level."""
    space_bits: int
    """Linear addresses have this many bits (the topmost is extended to 64)."""


SHAPES: Final[dict[Paging, Shape]] = {
    "2-level": Shape(2, 10, 4, (4096, 4 << 20), 32),
    "pae": Shape(3, 9, 8, (4096, 2 << 20), 32),
    "4-level": Shape(4, 9, 8, (4096, 2 << 20, 1 << 30), 48),
}


@dataclass(slots=True)
class Frames:
    """Hands out physical memory, first fit. Frame 0 is never given away, so that address 0 means nothing."""

    ram_bytes: int
    _used: list[tuple[int, int]] = field(default_factory=lambda: [(0, PAGE_BYTES)])

    def reserve(self, start: int, size_bytes: int) -> None:
        """Keep a range from being handed out."""
        self._used = sorted({*self._used, (start, start + size_bytes)})

    def take(self, size_bytes: int, alignment: int = PAGE_BYTES) -> int:
        """Physical address of free memory. Raises UsageError if there is not enough."""
        start = 0
        for used_start, used_end in self._used:
            if start + size_bytes <= used_start:
                break
            start = max(start, -(-used_end // alignment) * alignment)
        if start + size_bytes > self.ram_bytes:
            raise UsageError(
                f"{size_bytes:,} bytes do not fit: make the machine with more than {self.ram_bytes:,} bytes"
            )
        self.reserve(start, size_bytes)
        return start


class PageTables:
    """The page tables of one address space in the RAM of `machine`; `root` goes into CR3.

    Upper entries grant every right, so that the last one decides alone.
    """

    def __init__(self, machine: Machine, frames: Frames, kind: Paging) -> None:
        self._machine = machine
        self._frames = frames
        self._shape = SHAPES[kind]
        self._kind = kind
        self.root = frames.take(PAGE_BYTES)
        if kind == "pae":  # all four pointers exist from the start: they are read only when CR3 is loaded
            for index in range(4):
                self._write(self.root + 8 * index, frames.take(PAGE_BYTES) | PRESENT)

    def map(
        self,
        addr: int,
        size_bytes: int,
        phys: int | None,
        *,
        rights: str,
        user: bool,
        global_page: bool,
        page_bytes: int,
    ) -> int:
        """See `BareMachine.map`."""
        level = self._level(page_bytes)
        self.check(addr, size_bytes, page_bytes)
        if rights not in _RIGHTS:
            raise UsageError(f"rights are one of {', '.join(_RIGHTS)}, not {rights!r}")
        if phys is None:
            phys = self._frames.take(size_bytes, page_bytes)
        elif phys % page_bytes or phys < 0:
            raise UsageError(f"physical address {phys:#x} is not a multiple of the page size {page_bytes:#x}")
        else:
            self._frames.reserve(phys, size_bytes)
        flags = PRESENT | (WRITABLE if "w" in rights else 0) | (USER if user else 0) | (GLOBAL if global_page else 0)
        flags |= LARGE if level > 1 else 0
        if "x" not in rights and self._shape.entry_bytes == 8:
            flags |= NO_EXECUTE
        for offset in range(0, size_bytes, page_bytes):
            self._write(self._entry_made(addr + offset, level), phys + offset | flags)
        return phys

    def unmap(self, addr: int, size_bytes: int) -> None:
        """See `BareMachine.unmap`."""
        self.check(addr, size_bytes, PAGE_BYTES)
        end = addr + size_bytes
        while addr < end:
            phys, level = self.entry(addr)
            size = self._shape.page_bytes[level - 1]
            if addr % size or addr + size > end:
                raise UsageError(f"a page of {size:,} bytes is mapped at {addr & -size:#x}: unmap all of it")
            self._write(phys, 0)
            addr += size

    def entry(self, addr: int) -> tuple[int, int]:
        """(physical address, level) of the entry that maps `addr`. Raises UsageError if nothing does."""
        table = self.root
        for level in range(self._shape.level_max, 0, -1):
            phys = table + self._index(addr, level) * self._shape.entry_bytes
            entry = self._read(phys)
            if not entry & PRESENT:
                break
            if level == 1 or entry & LARGE:
                return phys, level
            table = entry & _FRAME
        raise UsageError(f"address {addr:#x} is not mapped")

    def check(self, addr: int, size_bytes: int, page_bytes: int) -> None:
        """Raises UsageError for a range that is not whole pages of the address space."""
        if size_bytes <= 0 or size_bytes % page_bytes or addr % page_bytes:
            raise UsageError(f"{addr:#x}, {size_bytes:#x} bytes: not whole pages of {page_bytes:#x} bytes")
        bits = self._shape.space_bits
        half = 1 << (bits - 1)
        last = addr + size_bytes - 1
        if bits == 32:
            inside = addr >= 0 and last < 1 << 32
        else:
            inside = (addr >= 0 and last < half) or ((1 << 64) - half <= addr and last < 1 << 64)
        if not inside:
            raise UsageError(f"{addr:#x}, {size_bytes:#x} bytes: no linear addresses of {self._kind} paging")

    def _level(self, page_bytes: int) -> int:
        sizes = self._shape.page_bytes
        if page_bytes not in sizes:
            raise UsageError(f"{self._kind} paging has pages of {', '.join(map(str, sizes))} bytes, not {page_bytes}")
        return sizes.index(page_bytes) + 1

    def _index(self, addr: int, level: int) -> int:
        shift = 12 + self._shape.index_bits * (level - 1)
        return addr >> shift & ((1 << self._shape.index_bits) - 1)

    def _entry_made(self, addr: int, wanted: int) -> int:
        """Physical address of the entry of level `wanted` for `addr`, after making the tables above it."""
        table = self.root
        for level in range(self._shape.level_max, wanted, -1):
            phys = table + self._index(addr, level) * self._shape.entry_bytes
            entry = self._read(phys)
            if not entry & PRESENT:
                entry = self._frames.take(PAGE_BYTES) | PRESENT | WRITABLE | USER
                self._write(phys, entry)
            elif entry & LARGE:
                raise UsageError(f"a large page is mapped at {addr:#x}: unmap it first")
            table = entry & _FRAME
        return table + self._index(addr, wanted) * self._shape.entry_bytes

    def _read(self, phys: int) -> int:
        return int.from_bytes(self._machine.read(phys, self._shape.entry_bytes), "little")

    def _write(self, phys: int, entry: int) -> None:
        self._machine.write(phys, entry.to_bytes(self._shape.entry_bytes, "little"))
