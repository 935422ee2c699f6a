"""Counters against ghosts, on hand-made events: each bug family, tasks in flight, SMP differentials, readers."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from debugger.ghosts import IRET, LOAD, STORE, TRACE, Account, Counter, Place, Tracepoints
from traces import Event
from traces.schema import DRAIN, DRAINED, KINDS

ITEM = 20
GHOST, VMSTAT, SWITCH = 3, 4, 2
DMA, NORMAL = 0xC0001000, 0xC0002000
"""Addresses of the two zones."""
WORDS = {0: 0x1100, 1: 0x2100}
WHOLE = 0x3100
DIFFS = {(zone, cpu): 0x4000 + 0x100 * zone + cpu for zone in (0, 1) for cpu in (0, 1)}
PAGE = {0: 0x1000000, 1: 0x2000000}
"""A page address of each zone."""


class Story:
    """Writes events the way the guest's counter functions cause them."""

    def __init__(self, *, smp: bool = False, item: int | None = ITEM, watched: tuple[int, ...] = (0, 1)) -> None:
        self.rows: list[Event] = []
        self.values: dict[int, int] = {}
        self.smp = smp
        self.step = 100
        counters = []
        for zone, word in WORDS.items():
            places = [Place(word, 4)]
            if smp:
                places += [Place(DIFFS[zone, cpu], 1) for cpu in (0, 1)]
            counters.append(Counter(("DMA", "Normal")[zone], zone, places, zone in watched))
        whole = [Place(WHOLE, 4), *(place for row in counters for place in row.places[1:])]
        counters.append(Counter("global", None, whole, watched=False))
        self.account = Account(
            counters,
            item=item,
            zones={DMA: 0, NORMAL: 1},
            zone_of_page=lambda page: {PAGE[0]: 0, PAGE[1]: 1}.get(page),
            tracepoints=Tracepoints(GHOST, VMSTAT, SWITCH),
            smp=smp,
            owner=self.owner,
        )

    @staticmethod
    def owner(pc: int) -> Hashable:
        """One function per 256 bytes of code."""
        return pc >> 8

    def event(self, kind: int, cpu: int = 0, **fields: int) -> None:
        """One event in a step of its own (or `same=1`: in the last one)."""
        self.step += 1 - fields.pop("same", 0)
        row = dict.fromkeys(Event._fields, 0) | {"step": self.step, "kind": kind, "cpu": cpu} | fields
        self.rows.append(Event(**row))

    def ghost(self, zone: int, delta: int, cpu: int = 0) -> None:
        """A page of `zone` truly changes state."""
        self.event(TRACE, cpu, phys=GHOST, value=PAGE[zone], addr=ITEM << 24 | delta & 0xFFFFFF)

    def check(self, zone: int, cpu: int = 0) -> None:
        """The counter is up to date."""
        self.event(TRACE, cpu, phys=VMSTAT, value=(DMA, NORMAL)[zone], addr=ITEM)

    def switch(self, before: int, after: int, cpu: int = 0) -> None:
        """A context switch."""
        self.event(TRACE, cpu, phys=SWITCH, value=before, addr=after)

    def add(self, phys: int, delta: int, cpu: int = 0, size: int = 4, pc: int = 0x100, drained: bool = True) -> None:
        """One read-modify-write instruction."""
        mask = (1 << 8 * size) - 1
        self.event(LOAD, cpu, phys=phys, size=size, value=self.values.get(phys, 0), pc=pc)
        self.values[phys] = self.values.get(phys, 0) + delta & mask
        info = DRAINED if drained else 0
        self.event(STORE, cpu, phys=phys, size=size, value=self.values[phys], pc=pc, info=info, same=1)

    def drain(self, phys: int, value: int, cpu: int = 0, size: int = 1) -> None:
        """A held store reaches memory."""
        self.event(DRAIN, cpu, phys=phys, size=size, value=value, pc=0x100)

    def mod(self, zone: int, delta: int, cpu: int = 0) -> None:
        """UP: zone, global, check point."""
        self.add(WORDS[zone], delta, cpu)
        self.add(WHOLE, delta, cpu)
        self.check(zone, cpu)

    def read(self, zone: int, cpu: int = 0, pc: int = 0x900, value: int | None = None) -> None:
        """A reader of the zone's word."""
        word = self.values.get(WORDS[zone], 0) if value is None else value
        self.event(LOAD, cpu, phys=WORDS[zone], size=4, value=word, pc=pc)

    def told(self) -> Account:
        """Let the account hear everything."""
        self.account.follow(self.rows)
        self.account.finish()
        return self.account


def wrong_zone(story: Story) -> None:
    """Three pages of Normal are counted into DMA and out of Normal."""
    for _ in range(3):
        story.ghost(1, 1)
    story.mod(0, 3)
    story.read(0)
    for _ in range(3):
        story.ghost(1, -1)
        story.mod(1, -1)
    story.read(1)


def test_wrong_zone() -> None:
    story = Story()
    wrong_zone(story)
    found = story.told()
    first = found.divergence
    assert first is not None
    assert (first.counter.name, first.value, first.expected) == ("DMA", 3, 0)
    assert first.event.step == 104
    assert first.event.kind == STORE
    negative = found.negative
    assert negative is not None
    assert (negative.counter.name, negative.value, negative.expected) == ("Normal", -1, 2)
    misled = found.misled()
    assert misled is not None
    assert (misled.counter.name, misled.value, misled.expected) == ("DMA", 3, 0)
    assert [found.settled(i) - found.expected(i) for i in range(3)] == [3, -3, 0]


def test_a_reader_on_up_sees_an_unsigned_number() -> None:
    story = Story(watched=(1,))
    wrong_zone(story)
    found = story.told()
    misled = found.misled()
    assert misled is not None
    assert (misled.counter.name, misled.value, misled.expected) == ("Normal", 2**32 - 3, 0)
    assert found.divergence is not None
    assert found.divergence.counter.name == "Normal"


def test_clean() -> None:
    story = Story()
    for zone in (0, 1):
        story.ghost(zone, 2)
        story.mod(zone, 2)
        story.read(zone)
        story.ghost(zone, -2)
        story.mod(zone, -2)
        story.read(zone)
    found = story.told()
    assert (found.divergence, found.negative, found.misled()) == (None, None, None)
    assert found.announced


def test_start_values_count() -> None:
    story = Story()
    story.account = Account(
        [Counter("DMA", 0, [Place(WORDS[0], 4, memory=5)])],
        item=ITEM, zones={DMA: 0}, zone_of_page=lambda page: 0, tracepoints=Tracepoints(GHOST, VMSTAT, SWITCH),
        smp=False, owner=story.owner,
    )  # fmt: skip
    story.values[WORDS[0]] = 5
    story.ghost(0, -5)
    story.mod(0, -5)
    assert story.told().divergence is None
    assert story.account.expected(0) == 0


def test_missing_increment() -> None:
    story = Story()
    story.ghost(0, 1)
    story.ghost(0, -1)
    story.mod(0, -1)
    found = story.told()
    assert found.divergence is not None
    assert (found.divergence.value, found.divergence.expected) == (-1, 0)
    assert found.negative is not None


def test_a_task_in_flight_neither_counts_nor_is_counted() -> None:
    story = Story()
    story.switch(0x10, 0x11)
    story.ghost(0, 4)
    story.add(WORDS[0], 4)  # written, but not at its check point yet
    story.switch(0x11, 0x12)
    story.ghost(0, 1)
    story.mod(0, 1)
    story.read(0)
    story.switch(0x12, 0x11)
    story.add(WHOLE, 4)
    story.check(0)
    found = story.told()
    assert (found.divergence, found.misled()) == (None, None)
    assert found.expected(0) == found.settled(0) == 5


def test_the_first_switch_names_the_task_that_ran_before() -> None:
    story = Story()
    story.ghost(0, 4)
    story.switch(0x10, 0x11)
    story.ghost(0, 1)
    story.mod(0, 1)
    story.switch(0x11, 0x10)
    story.mod(0, 4)
    assert story.told().divergence is None


def test_an_interrupt_handler_is_a_context_of_its_own() -> None:
    story = Story()
    story.ghost(0, 4)
    story.event(KINDS["interrupt"], info=32)
    story.ghost(1, 1)
    story.mod(1, 1)
    story.ghost(0, 1)
    story.mod(0, 1)
    story.event(IRET)
    story.mod(0, 4)
    assert story.told().divergence is None


def test_a_lost_update_is_found_at_the_write_that_lost_it() -> None:
    story = Story()
    story.switch(0x10, 0x11)
    story.ghost(0, 1)
    story.event(LOAD, phys=WORDS[0], size=4, value=0, pc=0x100)
    story.switch(0x11, 0x12)
    story.ghost(0, 1)
    story.mod(0, 1)
    story.switch(0x12, 0x11)
    story.event(STORE, phys=WORDS[0], size=4, value=1, pc=0x108, info=DRAINED)
    culprit = story.step
    story.check(0)
    found = story.told().divergence
    assert found is not None
    assert (found.event.step, found.value, found.expected) == (culprit, 1, 2)


def test_a_stray_write_is_blamed_not_the_next_honest_one() -> None:
    story = Story()
    story.switch(0x10, 0x11)
    story.add(WORDS[0], 7, pc=0x500)
    stray = story.step
    story.switch(0x11, 0x12)
    story.ghost(0, 1)
    story.mod(0, 1)
    found = story.told().divergence
    assert found is not None
    assert (found.event.step, found.value, found.expected) == (stray, 8, 1)


def test_readers_that_update_are_not_misled() -> None:
    story = Story()
    wrong_zone(story)
    story.rows = [row for row in story.rows if row.pc != 0x900]
    story.read(0, pc=0x104)  # the same function as the writes
    assert story.told().misled() is None


def test_a_right_value_misleads_nobody_even_if_the_counter_is_off_elsewhere() -> None:
    story = Story(watched=(0,))
    wrong_zone(story)
    story.rows = [row for row in story.rows if row.pc != 0x900]
    story.read(1)
    assert story.told().misled() is None


def test_negative_without_ghost() -> None:
    story = Story(item=None)
    story.add(WORDS[1], -2)
    found = story.told()
    assert found.divergence is None
    assert found.negative is not None
    assert (found.negative.value, found.negative.expected) == (-2, None)


# -- SMP --


def smp_mod(story: Story, zone: int, delta: int, cpu: int, *, threshold: int = 4, drained: bool = True) -> None:
    """__mod_zone_page_state: this CPU's differential, folded into zone and global when it grows too large."""
    byte = DIFFS[zone, cpu]
    now = story.values.get(byte, 0)
    total = delta + (now - 256 if now & 0x80 else now)
    if abs(total) > threshold:
        story.add(WORDS[zone], total, cpu)
        story.add(WHOLE, total, cpu)
        total = 0
    story.values[byte] = total & 0xFF
    info = DRAINED if drained else 0
    story.event(STORE, cpu, phys=byte, size=1, value=total & 0xFF, pc=0x100, info=info)
    story.check(zone, cpu)


def test_smp_differentials_and_folds_are_clean() -> None:
    story = Story(smp=True)
    for delta in (1, 2, 5, -1, -6, 3, -2):
        for cpu in (0, 1):
            story.ghost(0, delta, cpu)
            smp_mod(story, 0, delta, cpu)
            story.read(0, cpu)
    found = story.told()
    assert (found.divergence, found.negative, found.misled()) == (None, None, None)


@pytest.mark.parametrize("late", [False, True])
def test_smp_held_stores_count_when_issued(late: bool) -> None:
    story = Story(smp=True)
    story.ghost(0, 2, 0)
    smp_mod(story, 0, 2, 0, drained=False)
    if late:
        story.ghost(0, 1, 1)
        smp_mod(story, 0, 1, 1)
    story.drain(DIFFS[0, 0], 2)
    if not late:
        story.ghost(0, 1, 1)
        smp_mod(story, 0, 1, 1)
    found = story.told()
    assert found.divergence is None
    assert found.settled(0) == 3


def test_smp_wrong_zone_diverges_and_readers_see_zero() -> None:
    story = Story(smp=True, watched=(1,))
    for _ in range(6):
        story.ghost(1, 1)
    smp_mod(story, 0, 6, 0)
    for _ in range(6):
        story.ghost(1, -1)
        smp_mod(story, 1, -1, 0)
    story.read(1)
    found = story.told()
    assert story.values[WORDS[1]] >= 2**31  # folded below zero
    assert found.divergence is not None
    assert found.negative is not None
    assert found.misled() is None


def test_smp_wrong_zone_misleads_where_the_counter_is_too_high() -> None:
    story = Story(smp=True)
    for _ in range(6):
        story.ghost(1, 1)
    smp_mod(story, 0, 6, 0)
    story.read(0, 1)
    found = story.told()
    misled = found.misled()
    assert misled is not None
    assert (misled.counter.name, misled.value, misled.expected) == ("DMA", 6, 0)


def test_smp_folding_without_ghosts_is_no_divergence_and_not_negative() -> None:
    """refresh_cpu_vm_stats takes the differential away and adds it to the zone later."""
    story = Story(smp=True)
    story.ghost(0, 3, 0)
    smp_mod(story, 0, 3, 0)
    story.ghost(0, -3, 1)
    smp_mod(story, 0, -3, 1)
    story.event(STORE, 0, phys=DIFFS[0, 0], size=1, value=0, pc=0x200, info=DRAINED)
    story.values[DIFFS[0, 0]] = 0
    story.ghost(0, 1, 1)
    smp_mod(story, 0, 1, 1)
    story.add(WORDS[0], 3, 0, pc=0x208)
    story.ghost(0, -1, 1)
    smp_mod(story, 0, -1, 1)
    found = story.told()
    assert (found.divergence, found.negative) == (None, None)


def test_held_stores_of_several_sizes_overlay() -> None:
    place = Place(0x100, 4, memory=0x11223344)
    place.held.append((0, 0x101, 1, 0xAA))
    place.held.append((1, 0xFE, 4, 0xBBCC0000))
    assert place.value & 0xFFFFFFFF == 0x1122BBCC
    place.held.clear()
    place.memory = 0xFFFFFFFF
    assert place.value == -1
    assert not place.touches(0x104, 4)
    assert not place.touches(0xFC, 4)
