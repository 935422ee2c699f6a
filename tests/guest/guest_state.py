"""Reading the guest's counters, on any machine that can read the kernel's memory."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from machine.symbols import Symbols

ZONES = {32: ("DMA", "Normal", "HighMem"), 64: ("DMA", "DMA32", "Normal")}
ISOLATED = ("NR_ISOLATED_ANON", "NR_ISOLATED_FILE")
NR_CPUS = 8
ITEMS = 26
PAGINGS = ("2level", "pae", "x86_64")
PAGE_OFFSET = {32: 0xC0000000, 64: 0xFFFF880000000000}
START_KERNEL_MAP = 0xFFFFFFFF80000000
Read = Callable[[int, int], bytes]


def image_name(flavour: str, kind: str, paging: str, variant: str) -> str:
    """As in machine/images.py: 2-level paging goes without saying."""
    return "-".join((flavour, kind, variant) if paging == "2level" else (flavour, kind, paging, variant))


def to_physical(address: int, bits: int) -> int:
    """Where a linear address of the kernel's lies: as __pa() has it."""
    if bits == 64 and address >= START_KERNEL_MAP:
        return address - START_KERNEL_MAP
    return address - PAGE_OFFSET[bits]


@dataclass(frozen=True)
class Layout:
    """Where an image keeps its zone counters: taken from its debug information once."""

    bits: int
    items: dict[str, int]
    mem_map: int
    zones: list[int]
    vm_stat: int
    pageset: int
    vm_stat_diff: int
    per_cpu_offset: int
    global_vm_stat: int

    @classmethod
    def of(cls, image: bytes) -> Layout:
        symbols = Symbols(image)
        zone = symbols.program.type("struct zone")
        per_cpu = symbols.program.type("struct per_cpu_pageset")
        offset = {row.name: row.bit_offset // 8 for row in (*zone.members, *per_cpu.members)}
        zones = [symbols.evaluate(f"&contig_page_data.node_zones[{i}]").value_() for i in range(3)]
        items: dict[str, int] = {}
        for name, number in symbols.program.type("enum zone_stat_item").enumerators:
            if name not in ("NR_LRU_BASE", "NR_VM_ZONE_STAT_ITEMS"):
                items[name] = number
        smp = "vm_stat_diff" in offset
        return cls(
            bits=symbols.bits,
            items=items,
            mem_map=symbols.symbol("mem_map").address,
            zones=zones,
            vm_stat=offset["vm_stat"],
            pageset=offset["pageset"],
            vm_stat_diff=offset["vm_stat_diff"] if smp else 0,
            per_cpu_offset=symbols.symbol("__per_cpu_offset").address if smp else 0,
            global_vm_stat=symbols.symbol("vm_stat").address,
        )

    @property
    def zone_names(self) -> tuple[str, ...]:
        return ZONES[self.bits]

    @property
    def word_bytes(self) -> int:
        return self.bits // 8

    def word(self, read: Read, address: int) -> int:
        return int.from_bytes(read(address, self.word_bytes), "little")

    def _longs(self, read: Read, address: int) -> tuple[int, ...]:
        return struct.unpack(f"<{ITEMS}{'i' if self.bits == 32 else 'q'}", read(address, ITEMS * self.word_bytes))

    def counters(self, read: Read) -> Counter[tuple[str, str]]:
        """(zone, item) -> value, with every CPU's differential; what is 0 is left out."""
        found: Counter[tuple[str, str]] = Counter()
        for zone, address in zip(self.zone_names, self.zones, strict=True):
            stat = self._longs(read, address + self.vm_stat)
            diffs = [0] * ITEMS
            for cpu in range(NR_CPUS if self.per_cpu_offset else 0):
                area = self.word(read, self.per_cpu_offset + self.word_bytes * cpu)
                pageset = self.word(read, address + self.pageset) + area & (1 << self.bits) - 1
                row = struct.unpack(f"<{ITEMS}b", read(pageset + self.vm_stat_diff, ITEMS))
                diffs = [a + b for a, b in zip(diffs, row, strict=True)]
            for item, number in self.items.items():
                if value := stat[number] + diffs[number]:
                    found[zone, item] = value
        return found

    def global_counters(self, read: Read) -> dict[str, int]:
        stat = self._longs(read, self.global_vm_stat)
        return {item: stat[number] for item, number in self.items.items()}

    def isolated(self, read: Read) -> list[tuple[int, ...]]:
        """(anon, file) isolated in each zone, from the lowest up."""
        counters = self.counters(read)
        return [tuple(counters[zone, item] for item in ISOLATED) for zone in self.zone_names]

    def ghost(self, read: Read, page: int, word: int) -> tuple[tuple[str, str], int]:
        """((zone, item), delta) of a ghost tracepoint: the zone is the page's own."""
        zone = self.word(read, page) >> (self.bits - 2)
        delta = word & 0xFFFFFF
        item = next(name for name, number in self.items.items() if number == word >> 24)
        return (self.zone_names[zone], item), delta - (delta >> 23 << 24)
