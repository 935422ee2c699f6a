"""The guest on our own core: ticks at any instruction, any interleaving, stores delayed at will."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from guest_state import PAGINGS, Layout, Read, image_name, to_physical
from machine_driver import TIMER_VECTOR, boot_to_ready, random_plan, run_default, step

from machine import Machine, _core, images
from machine.symbols import Symbols

FIX = "fix-7454f4ba40b4"
NONE = (0, 0)


def _reader(machine: Machine, layout: Layout) -> Read:
    return lambda address, size: machine.read(to_physical(address, layout.bits), size)


def _isolated(machine: Machine, layout: Layout) -> list[tuple[int, ...]]:
    return layout.isolated(_reader(machine, layout))


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize(
    ("kind", "cpus", "seeds"), [("up", 1, 100), ("smp", 1, 30), ("smp", 2, 100), ("smp", 4, 100), ("smp", 8, 30)]
)
def test_the_fix_survives_any_schedule(kind: str, cpus: int, seeds: int, paging: str) -> None:
    name = image_name("small", kind, paging, FIX)
    machine = boot_to_ready(name, cpus)
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    for seed in range(seeds):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, cpus))[0] == "exit", seed
        assert (machine.exit_status, machine.console_take()) == (0, b""), seed
        assert _isolated(machine, layout) == [NONE, NONE, NONE], seed


@pytest.mark.parametrize("paging", PAGINGS)
def test_the_bug_needs_no_schedule_on_up(paging: str) -> None:
    name = image_name("small", "up", paging, "buggy")
    machine = boot_to_ready(name)
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    for seed in range(100):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, 1))[0] == "exit"
        assert (machine.exit_status, machine.console_take()) == (0, b"")
        isolated = _isolated(machine, layout)
        assert sum(isolated[0]) == 4
        assert isolated[1:] == [tuple(-count for count in isolated[0]), NONE]


@pytest.mark.parametrize("paging", PAGINGS)
def test_the_bug_tears_lists_on_smp(paging: str) -> None:
    """The other zone's list is edited under the wrong lock: some schedules crash, and only without the fix."""
    machine = boot_to_ready(image_name("small", "smp", paging, "buggy"), 2)
    ready = machine.snapshot()
    ends: Counter[int] = Counter()
    for seed in range(500):
        machine.restore(ready)
        ended = machine.execute(random_plan(seed, 2))[0] == "exit"  # a list that is a ring has no end
        ends[machine.exit_status if ended else -1] += 1
    assert ends[0] > 400
    assert set(ends) - {0} <= {0x42, 0x43, -1}
    assert ends[-1] <= 1
    assert ends[0x42] + ends[0x43] > 0


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize("variant", ["buggy", FIX])
def test_linux_flavour_with_ticks(variant: str, paging: str) -> None:
    name = image_name("linux", "up", paging, variant)
    machine = boot_to_ready(name)
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    expected = (0, 0) if variant == FIX else (25, 7)
    for seed in range(5):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, 1))[0] == "exit"
        assert machine.exit_status == 0
        assert _isolated(machine, layout) == [expected, tuple(-count for count in expected), NONE]


@pytest.mark.parametrize(("paging", "count"), [("2level", 3000), ("pae", 1000), ("x86_64", 1000)])
def test_a_tick_at_every_instruction(paging: str, count: int) -> None:
    """One interrupt, at each of the instructions around the walk in turn."""
    name = image_name("small", "up", paging, "buggy")
    machine = boot_to_ready(name)
    layout = Layout.of(images.image_bytes(name))
    names = Symbols(images.image_bytes(name)).tracepoints()
    machine.stop_at_trace = next(number for number, text in names.items() if text == "compact_begin")
    assert run_default(machine) == "trace"
    machine.stop_at_trace = 0
    for _ in range(count):
        before = machine.snapshot()
        if machine.can_interrupt(0, TIMER_VECTOR):
            machine.execute(step(_core.IRQ, 0, TIMER_VECTOR))
            assert run_default(machine) == "exit"
            assert machine.exit_status == 0
            assert _isolated(machine, layout) == [(3, 1), (-3, -1), NONE]
        machine.restore(before)
        machine.execute(step(_core.AUTO, 0, 2))


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize(("kind", "cpus"), [("up", 1), ("smp", 2), ("smp", 4)])
def test_every_ghost_agrees_at_the_end(kind: str, cpus: int, paging: str) -> None:
    """All items, all zones: counter at the end = counter at `ready` plus the ghosts' deltas."""
    name = image_name("small", kind, paging, FIX)
    machine = boot_to_ready(name, cpus)
    layout = Layout.of(images.image_bytes(name))
    read = _reader(machine, layout)
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


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize(("kind", "cpus"), [("up", 1), ("smp", 2), ("smp", 4)])
def test_migration_fork_and_copy_on_write(kind: str, cpus: int, paging: str) -> None:
    """The scenario checks every word itself; by default all pages have moved before the process forks."""
    name = image_name("small", kind, paging, "buggy")
    machine = boot_to_ready(name, cpus, "scenario=compact")
    migrated = Symbols(images.image_bytes(name)).symbol("migrated_pages").address
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    if cpus == 1:
        assert run_default(machine) == "exit"
        assert machine.exit_status == 0
        assert _reader(machine, layout)(migrated, 4) == b"\4\0\0\0"
    for seed in range(80):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, cpus))[0] == "exit", seed
        assert (machine.exit_status, machine.console_take()) == (0, b""), seed
        assert _isolated(machine, layout) == [NONE, NONE, NONE], seed
