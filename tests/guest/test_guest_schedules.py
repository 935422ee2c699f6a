"""The guest on our own core: ticks at any instruction, any interleaving, stores delayed at will."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from guest_state import ISOLATED, Layout
from machine_driver import TIMER_VECTOR, boot_to_ready, random_plan, run_default, step

from machine import Machine, _core, images
from machine.symbols import Symbols

FIX = "fix-7454f4ba40b4"
PAGE_OFFSET = 0xC0000000


def _reader(machine: Machine):  # type: ignore[no-untyped-def]
    return lambda address, size: machine.read(address - PAGE_OFFSET, size)


def _isolated(machine: Machine, layout: Layout) -> dict[str, tuple[int, ...]]:
    counters = layout.counters(_reader(machine))
    return {zone: tuple(counters[zone, item] for item in ISOLATED) for zone in ("DMA", "Normal")}


@pytest.mark.parametrize(
    ("kind", "cpus", "seeds"), [("up", 1, 200), ("smp", 1, 50), ("smp", 2, 300), ("smp", 4, 300), ("smp", 8, 50)]
)
def test_the_fix_survives_any_schedule(kind: str, cpus: int, seeds: int) -> None:
    name = f"small-{kind}-{FIX}"
    machine = boot_to_ready(name, cpus)
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    for seed in range(seeds):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, cpus))[0] == "exit", seed
        assert (machine.exit_status, machine.console_take()) == (0, b""), seed
        assert not any(map(any, _isolated(machine, layout).values())), seed


def test_the_bug_needs_no_schedule_on_up() -> None:
    machine = boot_to_ready("small-up-buggy")
    layout = Layout.of(images.image_bytes("small-up-buggy"))
    ready = machine.snapshot()
    for seed in range(200):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, 1))[0] == "exit"
        assert (machine.exit_status, machine.console_take()) == (0, b"")
        isolated = _isolated(machine, layout)
        assert sum(isolated["DMA"]) == 4
        assert isolated["Normal"] == tuple(-count for count in isolated["DMA"])


def test_the_bug_tears_lists_on_smp() -> None:
    """The other zone's list is edited under the wrong lock: some schedules crash, and only without the fix."""
    machine = boot_to_ready("small-smp-buggy", 2)
    ready = machine.snapshot()
    ends: Counter[int] = Counter()
    for seed in range(500):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, 2))[0] == "exit"
        ends[machine.exit_status] += 1
    assert ends[0] > 400
    assert set(ends) - {0} <= {0x42, 0x43}
    assert len(ends) > 1


@pytest.mark.parametrize("variant", ["buggy", FIX])
def test_linux_flavour_with_ticks(variant: str) -> None:
    name = f"linux-up-{variant}"
    machine = boot_to_ready(name)
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    expected = (0, 0) if variant == FIX else (25, 7)
    for seed in range(5):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, 1))[0] == "exit"
        assert machine.exit_status == 0
        isolated = _isolated(machine, layout)
        assert isolated == {"DMA": expected, "Normal": tuple(-count for count in expected)}


def test_a_tick_at_every_instruction() -> None:
    """One interrupt, at each of the instructions around the walk in turn."""
    machine = boot_to_ready("small-up-buggy")
    layout = Layout.of(images.image_bytes("small-up-buggy"))
    assert machine.execute(step(_core.AUTO, 0, 16_000))[0] == "plan"
    for _ in range(3000):
        before = machine.snapshot()
        if machine.can_interrupt(0, TIMER_VECTOR):
            machine.execute(step(_core.IRQ, 0, TIMER_VECTOR))
            assert run_default(machine) == "exit"
            assert machine.exit_status == 0
            assert _isolated(machine, layout) == {"DMA": (3, 1), "Normal": (-3, -1)}
        machine.restore(before)
        machine.execute(step(_core.AUTO, 0, 2))


@pytest.mark.parametrize(("kind", "cpus"), [("up", 1), ("smp", 2), ("smp", 4)])
def test_every_ghost_agrees_at_the_end(kind: str, cpus: int) -> None:
    """All items, all zones: counter at the end = counter at `ready` plus the ghosts' deltas."""
    name = f"small-{kind}-{FIX}"
    machine = boot_to_ready(name, cpus)
    layout = Layout.of(images.image_bytes(name))
    read = _reader(machine)
    ready = machine.snapshot()
    machine.tap_capacity(1 << 20)
    for seed in range(10):
        machine.restore(ready)
        ghosts = layout.counters(read)
        machine.tap = True
        plan, index, done = random_plan(seed, cpus), 0, 0
        reason = "events"
        while reason == "events":
            reason, index, done = machine.execute(plan, index=index, done=done)
            count, *columns = machine.events()
            _, _, addr, phys, value, kinds, *_ = (np.asarray(column)[:count] for column in columns)
            for row in np.nonzero((kinds == _core.EVENT_KINDS["trace"]) & (phys == 3))[0]:
                key, delta = layout.ghost(read, int(value[row]), int(addr[row]))
                ghosts[key] += delta
            machine.events_clear()
        machine.tap = False
        assert reason == "exit"
        assert {key: n for key, n in ghosts.items() if n} == dict(layout.counters(read)), seed


@pytest.mark.parametrize(("kind", "cpus"), [("up", 1), ("smp", 2), ("smp", 4)])
def test_migration_fork_and_copy_on_write(kind: str, cpus: int) -> None:
    """The scenario checks every word itself; by default all pages have moved before the process forks."""
    name = f"small-{kind}-buggy"
    machine = boot_to_ready(name, cpus, "scenario=compact")
    migrated = Symbols(images.image_bytes(name)).symbol("migrated_pages").address
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    if cpus == 1:
        assert run_default(machine) == "exit"
        assert machine.exit_status == 0
        assert _reader(machine)(migrated, 4) == b"\4\0\0\0"
    for seed in range(150):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, cpus))[0] == "exit", seed
        assert (machine.exit_status, machine.console_take()) == (0, b""), seed
        assert not any(map(any, _isolated(machine, layout).values())), seed
