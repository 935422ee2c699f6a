"""Whole guest runs on Unicorn, which shares nothing with our core."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from guest_state import ISOLATED, PAGINGS, Layout, image_name
from machine_driver import run_default
from unicorn_platform import UnicornGuest, tracepoints

from machine import Machine, images
from machine.symbols import Symbols

FIX = "fix-7454f4ba40b4"
WALK = {"linux": (25, 7), "small": (3, 1)}
NONE = (0, 0)


def _guest(name: str, command_line: str = "") -> tuple[UnicornGuest, bytes, Layout]:
    image = images.image_bytes(name)
    scenario = next(row for row in images.scenarios() if row.flavour == name.split("-")[0])
    return UnicornGuest(image, command_line or scenario.command_line, scenario.ram_bytes), image, Layout.of(image)


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("kind", ["up", "smp"])
@pytest.mark.parametrize("flavour", ["linux", "small"])
@pytest.mark.parametrize("variant", ["buggy", FIX, "seed-wmb"])
def test_wrong_zone(flavour: str, kind: str, paging: str, variant: str) -> None:
    guest, _, layout = _guest(image_name(flavour, kind, paging, variant))
    assert guest.run()
    assert (guest.status, bytes(guest.console)) == (0, b"")
    isolated = layout.isolated(guest.read)
    if variant == FIX:
        assert isolated == [NONE, NONE, NONE]
    else:
        assert [sum(row[i] for row in isolated) for i in (0, 1)] == [0, 0]
        assert sum(isolated[0]) == sum(WALK[flavour])
        if kind == "up":
            assert isolated == [WALK[flavour], tuple(-count for count in WALK[flavour]), NONE]
    if kind == "up":
        totals = Counter()
        for (_, item), value in layout.counters(guest.read).items():
            totals[item] += value
        assert {item: value for item, value in layout.global_counters(guest.read).items() if value} == {
            item: value for item, value in totals.items() if value
        }


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("variant", ["buggy", FIX])
def test_first_divergence_is_acct_isolated(paging: str, variant: str) -> None:
    """Ghosts kept by hooks on the tracepoints, compared where the guest says the counter is up to date."""
    guest, image, layout = _guest(image_name("linux", "up", paging, variant))
    symbols = Symbols(image)
    names = symbols.tracepoints()
    ghosts: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[str, str, int, int, str]] = []
    ready = []

    def on_ready(_base: int, _index: int) -> None:
        # From the first page freed on, ghosts alone have kept count.
        assert Counter({key: value for key, value in ghosts.items() if value}) == layout.counters(guest.read)
        ready.append(True)

    def on_ghost(page: int, word: int) -> None:
        key, delta = layout.ghost(guest.read, page, word)
        ghosts[key] += delta

    for point in tracepoints(image):
        name = names[point.identifier]
        if name == "ready":
            guest.on_tracepoint(point, on_ready)
        elif name == "ghost":
            guest.on_tracepoint(point, on_ghost)
        elif name == "vmstat":
            place = " ".join(frame.function for frame in symbols.frames(point.address))

            def on_vmstat(zone: int, item: int, place: str = place) -> None:
                if not ready or item not in (20, 21):
                    return
                key = (layout.zone_names[layout.zones.index(zone)], ISOLATED[item - 20])
                counter = guest.word(zone + layout.vm_stat + layout.word_bytes * item)
                if counter != ghosts[key] & (1 << layout.bits) - 1:
                    wrong.append((*key, counter, ghosts[key], place))

            guest.on_tracepoint(point, on_vmstat)
    assert guest.run()
    if variant == FIX:
        assert wrong == []
        assert Counter({key: value for key, value in ghosts.items() if value}) == layout.counters(guest.read)
    else:
        zone, item, counter, ghost, place = wrong[0]
        assert (zone, item, counter, ghost) == ("DMA", "NR_ISOLATED_ANON", 25, 0)
        assert "acct_isolated" in place
        assert "isolate_migratepages" in place


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("variant", ["buggy", FIX])
def test_timer_ticks_anywhere(paging: str, variant: str) -> None:
    for seed in range(12):
        guest, _, layout = _guest(image_name("small", "up", paging, variant))
        chance = random.Random(seed)
        guest.stop_at_function_entries(lambda chance=chance: chance.choice([1, 2, 5, 15]))
        ticks = 0
        while not guest.run():
            ticks += guest.tick()
        assert (guest.status, bytes(guest.console)) == (0, b"")
        assert ticks > 30
        isolated = layout.isolated(guest.read)
        assert isolated[0] == tuple(-count for count in isolated[1])
        assert sum(isolated[0]) == (0 if variant == FIX else sum(WALK["small"]))


def _same_memory(name: str, command_line: str, ram_bytes: int) -> None:
    """Same image, no interrupts but ticks of an idle CPU: RAM must agree in every byte at the end."""
    image = images.image_bytes(name)
    guest = UnicornGuest(image, command_line, ram_bytes)
    assert guest.run()
    machine = Machine(ram_bytes=ram_bytes)
    images.boot(machine, image, command_line)
    # In pieces: the default schedule has a limit of its own in `run_default`.
    while (reason := run_default(machine)) == "plan":
        pass
    assert (reason, machine.exit_status, guest.status) == ("exit", 0, 0)
    for start in range(0, ram_bytes, 1 << 20):
        size = min(1 << 20, ram_bytes - start)
        if machine.read(start, size) != guest.uc.mem_read(start, size):
            pages = range(start, start + size, 4096)
            wrong = [at for at in pages if machine.read(at, 4096) != guest.uc.mem_read(at, 4096)]
            pytest.fail(f"{name}: memory differs in the pages at {', '.join(f'{at:#x}' for at in wrong[:8])}")


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("command_line", ["scenario=wrong-zone", "scenario=compact", "scenario=shootdown"])
@pytest.mark.parametrize("image", [("small", "up", "buggy"), ("small", "up", FIX), ("small", "smp", "buggy")])
def test_our_core_and_unicorn_leave_the_same_memory(
    image: tuple[str, str, str], command_line: str, paging: str
) -> None:
    flavour, kind, variant = image
    name = image_name(flavour, kind, paging, variant)
    _same_memory(name, command_line, images.scenario("wrong-zone-small").ram_bytes)


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("scenario", ["wrong-zone", "thp-pressure"])
def test_our_core_and_unicorn_leave_the_same_memory_at_linux_sizes(scenario: str, paging: str) -> None:
    row = images.scenario(scenario)
    _same_memory(image_name("linux", "up", paging, "buggy"), row.command_line, row.ram_bytes)


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize(
    "scenario", ["class-flip", "compound-publish", "dirty-bit", "exit-race", "mremap-flush", "vmstat-lost-update"]
)
def test_our_core_and_unicorn_leave_the_same_memory_of_races(scenario: str, paging: str) -> None:
    """By the default schedule, in which they do not show."""
    row = images.scenario(scenario)
    for kind, variant in itertools.product(("up", "smp"), row.variants):
        _same_memory(image_name("small", kind, paging, variant), row.command_line, row.ram_bytes)
