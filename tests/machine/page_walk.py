"""Translation of linear addresses as the manual has it (SDM vol. 3, chapter 4), written from there and for tests only.

Two-level paging (with 4 MB pages if PSE), PAE and four levels (2 MB, 1 GB pages). No caches: every walk reads memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
NO_EXECUTE = 1 << 63
FAULT_PRESENT, FAULT_WRITE, FAULT_USER, FAULT_RESERVED, FAULT_FETCH = 1, 2, 4, 8, 16
FRAME = 0x000F_FFFF_FFFF_F000


class PageFault(Exception):
    """error: the error code."""

    def __init__(self, error: int) -> None:
        super().__init__(hex(error))
        self.error = error


@dataclass
class Paging:
    """The paging in force. levels: 2, 3 (PAE) or 4; physical_bits: addresses beyond are reserved."""

    levels: int
    cr3: int
    read: Callable[[int, int], int]
    """Physical address and size in bytes -> value."""
    pse: bool = True
    write_protect: bool = True
    no_execute: bool = True
    physical_bits: int = 40
    used: set[int] = field(default_factory=set)
    """Physical addresses of entries that successful walks went through."""
    dirty: set[int] = field(default_factory=set)
    """Those of the last entries of successful writes."""

    def translate(self, addr: int, write: bool, fetch: bool, user: bool) -> int:
        """Physical address. Raises PageFault."""
        cause = (FAULT_WRITE if write else 0) | (FAULT_USER if user else 0)
        if fetch and self.no_execute and self.levels > 2:
            cause |= FAULT_FETCH
        entry_size, index_bits = (4, 10) if self.levels == 2 else (8, 9)
        table, rights, path, execute = self.cr3 & (FRAME if self.levels > 2 else 0xFFFFF000), USER | WRITABLE, [], True
        if self.levels == 3:
            table &= ~0x1F
            pointer = self.read((self.cr3 & 0xFFFFFFE0) + (addr >> 30 & 3) * 8, 8)
            if not pointer & PRESENT:
                raise PageFault(cause)
            table = pointer & FRAME
        for level in range(min(self.levels, 4) if self.levels != 3 else 2, 0, -1):
            shift = 12 + index_bits * (level - 1)
            at = table + (addr >> shift & (1 << index_bits) - 1) * entry_size
            entry = self.read(at, entry_size)
            if not entry & PRESENT:
                raise PageFault(cause)
            leaf = level == 1 or (bool(entry & LARGE) and level <= self.large_level)
            if entry & self.reserved(level, leaf, shift):
                raise PageFault(cause | FAULT_PRESENT | FAULT_RESERVED)
            rights &= entry
            execute = execute and not (self.levels > 2 and entry & NO_EXECUTE)
            path.append(at)
            if leaf:
                break
            table = entry & FRAME
        allowed = (
            bool(rights & USER) or not user,
            bool(rights & WRITABLE) or not write or (not user and not self.write_protect),
            execute or not fetch,
        )
        if not all(allowed):
            raise PageFault(cause | FAULT_PRESENT)
        self.used |= set(path)
        if write:
            self.dirty.add(path[-1])
        offset = (1 << shift) - 1
        return (entry & FRAME & ~offset) | (addr & offset)

    @property
    def large_level(self) -> int:
        if self.levels == 2:
            return 2 if self.pse else 1
        return self.levels - 1

    def reserved(self, level: int, leaf: bool, shift: int) -> int:
        """Bits that must be 0 in an entry of `level`."""
        if self.levels == 2:
            return 0x3FE000 if leaf and level == 2 else 0  # bits 13 to 21, without PSE-36
        bits = FRAME & ~((1 << self.physical_bits) - 1)
        if not self.no_execute:
            bits |= NO_EXECUTE
        if self.levels == 3:
            bits |= 0x7FF0_0000_0000_0000
        if level > self.large_level:
            bits |= LARGE
        if leaf and level > 1:
            bits |= (1 << shift) - (1 << 13)
        return bits
