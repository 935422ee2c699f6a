"""Why the reports came from 2-level kernels: what the guest does under the same pressure, by its kind of page table."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from guest_state import PAGINGS, Layout, image_name, to_physical
from machine_driver import run_default, step

from machine import Machine, _core, images
from machine.symbols import Symbols


def _counts(paging: str, seed: int) -> Counter[str]:
    """Tracepoints after `ready` by name, and "touched": how many huge pages the process has asked for."""
    image = images.image_bytes(image_name("linux", "up", paging, "buggy"))
    machine = Machine(ram_bytes=images.scenario("thp-pressure").ram_bytes)
    images.boot(machine, image, f"scenario=thp-pressure seed={seed}")
    machine.stop_at_trace = 1
    assert run_default(machine) == "trace"
    machine.stop_at_trace = 0
    symbols = Symbols(image)
    names = symbols.tracepoints()
    found: Counter[str] = Counter()
    machine.tap_capacity(1 << 20)
    machine.tap = True
    plan, index, done, reason = step(_core.AUTO, 0, 1 << 40), 0, 0, "events"
    while reason == "events":
        reason, index, done = machine.execute(plan, index=index, done=done)
        count, *columns = machine.events()
        phys, kinds = (np.asarray(columns[column])[:count] for column in (3, 5))
        numbers, times = np.unique(phys[kinds == _core.EVENT_KINDS["trace"]], return_counts=True)
        for number, many in zip(numbers, times, strict=True):
            found[names[int(number)]] += int(many)
        machine.events_clear()
    assert (reason, machine.exit_status, machine.console_take()) == ("exit", 0, b"")
    layout = Layout.of(image)
    address = symbols.symbol("touched").address
    found["touched"] = int.from_bytes(machine.read(to_physical(address, layout.bits), layout.word_bytes), "little")
    return found


@pytest.mark.parametrize("seeds", [2, pytest.param(30, marks=pytest.mark.soak)])
def test_the_size_of_a_huge_page_counts_and_the_format_of_its_tables_does_not(seeds: int) -> None:
    total = {paging: sum((_counts(paging, seed) for seed in range(seeds)), Counter()) for paging in PAGINGS}
    assert total["pae"]["touched"] == total["x86_64"]["touched"] == 2 * total["2level"]["touched"] > 0
    got = {paging: row["pmd_publish"] / row["touched"] for paging, row in total.items()}
    compacted = {paging: row["compact_begin"] / row["touched"] for paging, row in total.items()}
    # The largest block there is: hardly ever free, so most faults compact, and in vain.
    assert got["2level"] < 0.75 * got["pae"]
    assert compacted["2level"] > 1.2 * compacted["pae"]
    # The same sizes: the same fate.
    assert abs(got["pae"] - got["x86_64"]) < 0.1
    assert abs(compacted["pae"] - compacted["x86_64"]) < 0.3
