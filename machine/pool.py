"""Which page frames and zones a guest's allocator manages, where the guest says so as docs/platform.md has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import drgn

from machine import Machine
from machine.errors import ExpressionError
from machine.symbols import Symbols

FreedUse: TypeAlias = tuple[str, int, int, int, int, int, int, int]
"""As `Machine.freed_use` has it."""

_ALLOC: Final = "page_alloc"
_FREE: Final = "page_free"
_GHOST: Final = "ghost"
_ZONES_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class PagePool:
    """What `Machine.page_pool` and `Machine.ledger` want to know: where the first page's `struct page` lies, its size,
    the frames, those of each zone, and the identifiers of the tracepoints (`ghost` 0: there is none)."""

    pages: int
    page_bytes: int
    first_frame: int
    frame_count: int
    zones: tuple[tuple[int, int], ...]
    alloc: int
    free: int
    ghost: int

    def tell(self, machine: Machine) -> None:
        """From now on the machine keeps account of freed pages, none of which is freed yet, and of ghosts by zone."""
        machine.page_pool(self.pages, self.page_bytes, self.first_frame, self.frame_count, self.alloc, self.free)
        machine.ledger(self.ghost, self.pages, self.page_bytes, self.first_frame, self.zones)


def page_pool(machine: Machine, image: bytes) -> PagePool | None:
    """The pool of the guest that has been booted from `image`; None if it has none, or not as Linux has it."""
    symbols = Symbols(image, lambda address, size: machine.read_linear(0, address, size))
    numbers = {name: number for number, name in symbols.tracepoints().items()}
    if _ALLOC not in numbers or _FREE not in numbers:
        return None
    try:
        zones = [
            (symbols.value(zone.zone_start_pfn), symbols.value(zone.spanned_pages))
            for zone in symbols.evaluate("contig_page_data.node_zones")
        ]
        pages = symbols.value(symbols.evaluate("mem_map"))
        page_bytes = drgn.sizeof(symbols.program.type("struct page"))
    except (ExpressionError, LookupError, AttributeError, TypeError):
        return None
    spans = [(first, first + count) for first, count in zones if count]
    frames = machine.ram_bytes // 4096
    first, end = min((row[0] for row in spans), default=0), min(max((row[1] for row in spans), default=0), frames)
    if first >= end:
        return None
    regions = tuple((start, start + count) for start, count in zones[:_ZONES_MAX])
    return PagePool(
        pages, page_bytes, first, end - first, regions, numbers[_ALLOC], numbers[_FREE], numbers.get(_GHOST, 0)
    )
