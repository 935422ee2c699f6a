"""Which page frames a guest's allocator manages, where the guest says so as docs/platform.md has it."""

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


@dataclass(frozen=True, slots=True)
class PagePool:
    """What `Machine.page_pool` wants to know: where the first page's `struct page` lies, its size, the frames, and the
    identifiers of the tracepoints."""

    pages: int
    page_bytes: int
    first_frame: int
    frame_count: int
    alloc: int
    free: int

    def tell(self, machine: Machine) -> None:
        """From now on the machine keeps account of freed pages; none is freed yet."""
        machine.page_pool(self.pages, self.page_bytes, self.first_frame, self.frame_count, self.alloc, self.free)


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
    return PagePool(pages, page_bytes, first, end - first, numbers[_ALLOC], numbers[_FREE])
