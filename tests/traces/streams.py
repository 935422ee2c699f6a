"""A second decoder of the streams, written from docs/tape-format.md alone, for tests: slow, plain Python."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from traces import Event

U64 = (1 << 64) - 1


def mix(x: int, bits: int) -> int:
    return (x * 0x9E3779B97F4A7C15 & U64) >> (64 - bits)


def zigzag(x: int) -> int:
    """Of a difference modulo 2^64."""
    return 2 * x if x < 1 << 63 else 2 * (U64 + 1 - x) - 1


def unzigzag(x: int) -> int:
    return (x >> 1 if x % 2 == 0 else -(x + 1) // 2) & U64


@dataclass
class Site:
    pc: int = 0
    meta: int = 0
    next: list[int] = field(default_factory=lambda: [0, 0])
    steps: list[int] = field(default_factory=lambda: [0, 0])
    addr: int = 0
    value: int = 0
    addr_base: int = 0
    addr_plus: int = 0
    value_base: int = 0
    value_plus: int = 0
    distance: int = 0
    used: bool = False


class Stream:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def residue(self, length: int) -> int:
        assert len(self.data) >= length
        head, self.data = self.data[:length], self.data[length:]
        return int.from_bytes(head, "little")

    def number(self) -> int:
        return self.residue(self.residue(1))


class Decoder:
    def __init__(self, streams: bytes, sizes: tuple[int, int, int, int]) -> None:
        ends = [sum(sizes[: i + 1]) for i in range(4)]
        assert ends[3] == len(streams)
        self.control, self.addr, self.value, self.site = (
            Stream(streams[end - size : end]) for end, size in zip(ends, sizes, strict=True)
        )
        self.sites = [Site() for _ in range(4096)]
        self.cells: defaultdict[int, int] = defaultdict(int)
        self.distances: defaultdict[int, int] = defaultdict(int)
        self.recent = deque([0] * 8, maxlen=8)
        self.replaced = 0
        self.step = 0
        self.last = 0

    def slot_for(self, pc: int, meta: int) -> int:
        group = mix(pc ^ meta << 29, 12) & ~3
        for slot in range(group, group + 4):
            if not self.sites[slot].used:
                return slot
        self.replaced += 1
        return group + (self.replaced - 1) % 4

    def addr_bases(self, site: Site) -> dict[int, int]:
        return {0: site.addr, **dict(enumerate(self.recent, 1))}

    def value_bases(self, site: Site, cell: int) -> dict[int, int]:
        return {0: self.cells[cell], 9: site.value, **dict(enumerate(self.recent, 1))}

    def event(self, code: int | None) -> Event:
        """The next event; `code` is the control byte after the run, None for one as foretold."""
        s = self.sites[self.last]
        slot, steps = s.next[0], s.steps[0]
        if code in (10, 11, 12):
            if code == 10:
                slot, steps = s.next[1], s.steps[1]
            elif code == 11:
                slot, steps = self.site.residue(2), self.site.number()
            else:
                pc, meta = (s.pc + unzigzag(self.site.number())) & U64, self.site.number()
                slot = self.slot_for(pc, meta)
                self.sites[slot] = Site(pc, meta, used=True)
                steps = self.site.number()
            s = self.sites[self.last]  # The new site may have taken its place.
            s.next = [slot, s.next[0]]
            s.steps = [steps % (1 << 16), s.steps[0]]
            code = self.control.residue(1)
        t = self.sites[slot]
        place = code if code in (9, 13) else None
        if place is not None:
            code = self.control.residue(1)
        lengths = code or 0
        bases = self.addr_bases(t)
        addr = (bases[t.addr_base] + t.addr_plus + unzigzag(self.addr.residue(lengths & 15))) & U64
        page = mix(addr >> 12, 9)
        if place == 9:
            t.distance = self.distances[page]
        elif place == 13:
            t.distance = self.distances[page] = unzigzag(self.site.number())
        if lengths & 15:
            t.addr_base = min(bases, key=lambda b: zigzag((addr - bases[b]) & U64))
            t.addr_plus = addr - bases[t.addr_base]
        phys = (addr + t.distance) & U64
        cell = (phys >> 2) % 8192
        bases = self.value_bases(t, cell)
        value = (bases[t.value_base] + t.value_plus + unzigzag(self.value.residue(lengths >> 4))) & U64
        if lengths >> 4:
            t.value_base = min(bases, key=lambda b: zigzag((value - bases[b]) & U64))
            t.value_plus = value - bases[t.value_base]
        t.addr, t.value, self.cells[cell] = addr, value, value
        self.recent.extendleft((addr, value))
        self.last = slot
        self.step = (self.step + steps) & U64
        return Event(self.step, t.pc, addr, phys, value, *t.meta.to_bytes(4, "little"))

    def events(self, count: int) -> list[Event]:
        found: list[Event] = []
        while True:
            run = self.control.residue(1)
            found += [self.event(None) for _ in range(run)]
            if run == 255:
                continue
            if len(found) == count:
                break
            found.append(self.event(self.control.residue(1)))
        assert [stream.data for stream in (self.control, self.addr, self.value, self.site)] == [b""] * 4
        return found
