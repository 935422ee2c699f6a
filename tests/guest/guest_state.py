"""Reading the guest's counters, on any machine that can read lowmem."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from machine.symbols import Symbols

ZONES = ("DMA", "Normal", "HighMem")
ISOLATED = ("NR_ISOLATED_ANON", "NR_ISOLATED_FILE")
NR_CPUS = 8
Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Layout:
    """Where an image keeps its zone counters: taken from its debug information once."""

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
            items=items,
            mem_map=symbols.symbol("mem_map").address,
            zones=zones,
            vm_stat=offset["vm_stat"],
            pageset=offset["pageset"],
            vm_stat_diff=offset["vm_stat_diff"] if smp else 0,
            per_cpu_offset=symbols.symbol("__per_cpu_offset").address if smp else 0,
            global_vm_stat=symbols.symbol("vm_stat").address,
        )

    def counters(self, read: Read) -> Counter[tuple[str, str]]:
        """(zone, item) -> value, with every CPU's differential; what is 0 is left out."""
        found: Counter[tuple[str, str]] = Counter()
        for zone, address in zip(ZONES, self.zones, strict=True):
            stat = struct.unpack("<26i", read(address + self.vm_stat, 26 * 4))
            diffs = [0] * 26
            for cpu in range(NR_CPUS if self.per_cpu_offset else 0):
                area = struct.unpack("<I", read(self.per_cpu_offset + 4 * cpu, 4))[0]
                pageset = struct.unpack("<I", read(address + self.pageset, 4))[0] + area & 0xFFFFFFFF
                row = struct.unpack("<26b", read(pageset + self.vm_stat_diff, 26))
                diffs = [a + b for a, b in zip(diffs, row, strict=True)]
            for item, number in self.items.items():
                if value := stat[number] + diffs[number]:
                    found[zone, item] = value
        return found

    def global_counters(self, read: Read) -> dict[str, int]:
        stat = struct.unpack("<26i", read(self.global_vm_stat, 26 * 4))
        return {item: stat[number] for item, number in self.items.items()}

    def ghost(self, read: Read, page: int, word: int) -> tuple[tuple[str, str], int]:
        """((zone, item), delta) of a ghost tracepoint: the zone is the page's own."""
        zone = struct.unpack("<I", read(page, 4))[0] >> 30
        delta = word & 0xFFFFFF
        item = next(name for name, number in self.items.items() if number == word >> 24)
        return (ZONES[zone], item), delta - (delta >> 23 << 24)
