"""A second decoder of the streams, written from docs/tape-format.md alone, for tests: slow, plain Python."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable
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
    addr_streak: int = 1
    value_streak: int = 1
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
    """Of codec 3 or 4; `self.control`, `addr`, `value` and `site` may be replaced before the first event."""

    def __init__(self, streams: bytes, sizes: tuple[int, int, int, int], codec: int = 4) -> None:
        ends = [sum(sizes[: i + 1]) for i in range(4)]
        assert ends[3] == len(streams)
        parts = [Stream(streams[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
        self.codec = codec
        self.control, self.addr = parts[:2]
        self.value, self.site = parts[2:] if codec == 3 else parts[:1:-1]
        self.sites = [Site(addr_streak=0, value_streak=0) for _ in range(4096)]
        self.cells: defaultdict[int, int] = defaultdict(int)
        self.distances: defaultdict[int, int] = defaultdict(int)
        self.recent = deque([0] * 8, maxlen=8)
        self.replaced = 0
        self.step = 0
        self.last = 0

    def slot_for(self, pc: int, meta: int) -> int:
        group = mix(pc ^ meta << 29, 12) & ~3
        for slot in range(group, group + 4):
            site = self.sites[slot]
            if not site.used or (site.pc, site.meta) == (pc, meta):
                return slot
        self.replaced += 1
        return group + (self.replaced - 1) % 4

    def addr_bases(self, site: Site) -> dict[int, int]:
        return {0: site.addr, **dict(enumerate(self.recent, 1))}

    def value_bases(self, site: Site, cell: int) -> dict[int, int]:
        return {0: self.cells[cell], 9: site.value, **dict(enumerate(self.recent, 1))}

    def learns(self, streak: int) -> bool:
        return self.codec == 3 or streak in (2, 4, 8, 16, 32, 64, 128)

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
        t.addr_streak = (t.addr_streak + 1) % 256 if lengths & 15 else 0
        t.value_streak = (t.value_streak + 1) % 256 if lengths >> 4 else 0
        if lengths & 15 and self.learns(t.addr_streak):
            t.addr_base = min(bases, key=lambda b: zigzag((addr - bases[b]) & U64))
            t.addr_plus = addr - bases[t.addr_base]
        phys = (addr + t.distance) & U64
        cell = ((phys >> 2) + (0 if self.codec == 3 else phys % 4 * 2048)) % 8192
        bases = self.value_bases(t, cell)
        value = (bases[t.value_base] + t.value_plus + unzigzag(self.value.residue(lengths >> 4))) & U64
        if lengths >> 4 and self.learns(t.value_streak):
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


class Invented(Stream):
    """Gives whatever is asked for, and keeps it."""

    def __init__(self, rng: random.Random, slot: Callable[[], int]) -> None:
        super().__init__(b"")
        self.rng = rng
        self.slot = slot
        self.given = b""

    def residue(self, length: int) -> int:
        # In the site stream only slots are residues without a length before them.
        number = self.slot() if length == 2 else self.rng.choice((0, 1, 8, self.rng.getrandbits(8 * length)))
        self.given += (number % (1 << 8 * length)).to_bytes(length, "little")
        return number % (1 << 8 * length)

    def number(self) -> int:
        length = self.rng.choice((0, 1, 1, 3, 4))
        self.given += bytes([length])
        return self.residue(length)


class Inventor:
    """A decoder whose streams are made up while it decodes, and obey the document: more than a coder ever makes."""

    def __init__(self, rng: random.Random, codec: int, slots: int) -> None:
        self.rng = rng
        self.decoder = Decoder(b"", (0, 0, 0, 0), codec)
        known = [rng.randrange(4096) for _ in range(slots)]

        def wide() -> int:
            return rng.getrandbits(16)

        self.addr, self.value = Invented(rng, wide), Invented(rng, wide)
        self.site = Invented(rng, lambda: rng.choice(known))
        self.decoder.addr, self.decoder.value, self.decoder.site = self.addr, self.value, self.site
        self.control = b""

    def script(self, count: int) -> int:
        """Make up the control stream of at least `count` events; the number of events."""
        rng, control, events = self.rng, bytearray(), 0
        while events < count:
            run = rng.choice((0, 0, 0, 1, 2, 5, 255 if rng.random() < 0.02 else 3))
            control.append(run)
            events += run
            if run == 255:
                continue
            if rng.random() < 0.5:
                control.append(rng.choice((10, 11, 11, 12, 12)))
            if rng.random() < 0.3:
                control.append(rng.choice((9, 13)))
            lengths = (0, 0, 0, 1, 2, 3, 8)
            control.append(rng.choice(lengths) | rng.choice(lengths) << 4)
            events += 1
        control.append(0)
        self.control = bytes(control)
        self.decoder.control = Stream(self.control)
        return events

    def streams(self) -> tuple[bytes, tuple[int, int, int, int]]:
        last = (self.value, self.site) if self.decoder.codec == 3 else (self.site, self.value)
        parts = [self.control, self.addr.given, *(stream.given for stream in last)]
        sizes = [len(part) for part in parts]
        return b"".join(parts), (sizes[0], sizes[1], sizes[2], sizes[3])
