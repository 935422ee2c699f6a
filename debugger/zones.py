"""Where the guest keeps its zones, pages and zone counters: read through its debug information at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import drgn

from debugger.ghosts import Counter, Place
from machine import Machine
from machine.errors import ExpressionError, UsageError
from machine.symbols import Lvalue, Symbols


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone: name, linear address of its `struct zone`, first page frame and the one after its last."""

    name: str
    address: int
    first_pfn: int
    end_pfn: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a `--counter` argument means.

    Attributes:
        text: as given.
        item: vmstat item number and name, or None for a counter without ghost.
        watched_zone: index of the one zone that is meant; None: all zones, or (`whole`) the global sum.
        whole: whether the global sum is meant.
        lvalue: the place, for a counter without ghost.
    """

    text: str
    item: tuple[int, str] | None
    watched_zone: int | None = None
    whole: bool = False
    lvalue: Lvalue | None = None


class ZoneLayout:
    """Zones and counters of a guest at the machine's present moment.

    Args:
        symbols: over the machine.
        cpus: number of CPUs of the machine.
        phys_of: physical address of a linear one, negative if not mapped.
    Raises ExpressionError: the image has no zones as Linux has them.
    """

    def __init__(self, symbols: Symbols, cpus: int, phys_of: Callable[[int], int]) -> None:
        self._symbols, self._cpus, self._phys_of = symbols, cpus, phys_of
        self.zones = self._read_zones()
        self.items = symbols.enumerators("zone_stat_item")
        self.items.pop("NR_VM_ZONE_STAT_ITEMS", None)
        # An image built for SMP keeps its differentials even if it runs on one CPU.
        self.smp = symbols.program.type("struct per_cpu_pageset").has_member("vm_stat_diff")
        self._page_bytes = drgn.sizeof(symbols.program.type("struct page"))
        self._mem_map = symbols.value(symbols.evaluate("mem_map"))
        self._pfn_offset = min(row.first_pfn for row in self.zones)

    def _read_zones(self) -> list[Zone]:
        symbols = self._symbols
        found = []
        for zone in symbols.evaluate("contig_page_data.node_zones"):
            try:
                name = zone.name.string_().decode("ascii", "replace")
            except drgn.FaultError as error:
                raise ExpressionError(f"cannot read guest memory at {error.address:#x}") from error
            first = symbols.value(zone.zone_start_pfn)
            found.append(Zone(name, int(zone.address_), first, first + symbols.value(zone.spanned_pages)))
        if not found:
            raise ExpressionError("the image has no zones")
        return found

    def zone_of_page(self, page: int) -> int | None:
        """Index of the zone that a `struct page` address belongs to by its frame number; None if it is no page."""
        index, rest = divmod(page - self._mem_map, self._page_bytes)
        pfn = index + self._pfn_offset
        if index < 0 or rest:
            return None
        return next((i for i, row in enumerate(self.zones) if row.first_pfn <= pfn < row.end_pfn), None)

    def target(self, text: str) -> Target:
        """What `text` means: an item's name, or an lvalue. Raises ExpressionError, UsageError."""
        if text in self.items:
            return Target(text, (self.items[text], text))
        lvalue = counter_lvalue(self._symbols, text)
        for item in self.items.items():
            number = (item[1], item[0])
            if self._is_word(lvalue, "vm_stat", item[1]):
                return Target(text, number, whole=True, lvalue=lvalue)
            for index in range(len(self.zones)):
                if self._is_word(lvalue, f"contig_page_data.node_zones[{index}].vm_stat", item[1]):
                    return Target(text, number, watched_zone=index, lvalue=lvalue)
        return Target(text, None, lvalue=lvalue)

    def _is_word(self, lvalue: Lvalue, array: str, item: int) -> bool:
        word = self._symbols.lvalue(f"{array}[{item}]")
        return (lvalue.address, lvalue.size_bytes) == (word.address, word.size_bytes)

    def counters(self, item: tuple[int, str], watched_zone: int | None, *, whole: bool) -> list[Counter]:
        """One counter of `item` per zone, then the sum over all zones, watched as a `Target` says."""
        number, name = item
        found = []
        for index, zone in enumerate(self.zones):
            word = self._symbols.lvalue(f"contig_page_data.node_zones[{index}].vm_stat[{number}]")
            places = [place_of(word, self._phys_of), *self._differentials(index, number)]
            watched = not whole and watched_zone in (None, index)
            found.append(Counter(f"{zone.name} {name}", index, places, watched))
        places = [place_of(self._symbols.lvalue(f"vm_stat[{number}]"), self._phys_of)]
        places += [place for row in found for place in row.places[1:]]
        return [*found, Counter(f"global {name}", None, places, whole)]

    def _differentials(self, zone: int, item: int) -> list[Place]:
        """Every CPU's differential of one zone's item; none on UP."""
        if not self.smp:
            return []
        symbols = self._symbols
        diff = f"contig_page_data.node_zones[{zone}].pageset->vm_stat_diff[{item}]"
        base = symbols.lvalue(diff)
        offsets = [symbols.value(symbols.evaluate(f"__per_cpu_offset[{cpu}]")) for cpu in range(self._cpus)]
        mask = (1 << symbols.bits) - 1
        return [
            place_of(Lvalue((base.address + offset) & mask, 1, True, f"{diff} of cpu{cpu}"), self._phys_of)
            for cpu, offset in enumerate(offsets)
        ]


def counter_lvalue(symbols: Symbols, text: str) -> Lvalue:
    """The integer that `text` names. Raises ExpressionError (also for pointers and structures), UsageError."""
    lvalue = symbols.lvalue(text, integer=True)
    if lvalue.size_bytes not in (1, 2, 4, 8):
        raise UsageError(f"'{text}' has {lvalue.size_bytes} bytes; a counter has 1, 2, 4 or 8")
    return lvalue


def place_of(lvalue: Lvalue, phys_of: Callable[[int], int], *, signed: bool = True) -> Place:
    """An lvalue's place in physical memory; zone counters are signed. Raises UsageError if it is not mapped."""
    phys = phys_of(lvalue.address)
    if phys < 0:
        raise UsageError(f"'{lvalue.text}' at {lvalue.address:#x} is not mapped when recording starts")
    return Place(phys, lvalue.size_bytes, signed=signed)


def read_places(places: Iterable[Place], machine: Machine) -> None:
    """Give places, which lie in RAM, the memory and the held stores that they have now."""
    held = [
        (cpu, phys, size, value)
        for cpu in range(machine.cpus)
        for _addr, phys, size, value, _pc in machine.store_buffer_entries(cpu)
    ]
    for place in places:
        place.memory = int.from_bytes(machine.read(place.phys, place.size_bytes), "little")
        place.held = [row for row in held if place.touches(row[1], row[2])]
