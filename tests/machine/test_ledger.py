"""The ledger: what tracepoints announce, added up by region and item, changes nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from programs import CODE, Bare, auto, columns

GHOST = 7
PAGES, PAGE_BYTES, FIRST = 0xC0500000, 40, 0x40
REGIONS = [(0x40, 0x50), (0x50, 0x60)]


def announced(frame: int, item: int, delta: int) -> str:
    page = PAGES + (frame - FIRST) * PAGE_BYTES
    said = item << 24 | delta & 0xFFFFFF
    return f"movl ${page}, %ebp; movl ${said:#x}, %edi; nopl {0x52540000 | GHOST:#x}(%ebp,%edi,1)\n"


def machine(text: str, *, tap: bool = False, ledger: bool = True) -> Bare:
    bare = Bare(text + "hlt")
    bare.machine.tap = tap
    if ledger:
        bare.machine.ledger(GHOST, PAGES, PAGE_BYTES, FIRST, REGIONS)
    bare.machine.set_register(0, "rip", CODE)
    return bare


TEXT = announced(0x40, 3, 5) + announced(0x4F, 3, -2) + announced(0x50, 3, 100) + announced(0x50, 63, -0x800000)


@pytest.mark.parametrize("tap", [False, True])
def test_what_is_announced_is_added_up(tap: bool) -> None:
    core = machine(TEXT, tap=tap).machine
    assert core.ledger_sum(0, 3) is None
    start = core.snapshot()
    core.execute(auto(3))
    middle = core.snapshot()
    assert [core.ledger_sum(region, 3) for region in (0, 1)] == [5, 0]
    core.execute(auto(100))
    sums = [[core.ledger_sum(region, item) for item in (3, 63, 4)] for region in (0, 1)]
    assert sums == [[3, 0, None], [100, -0x800000, None]]
    core.restore(middle)
    assert [core.ledger_sum(region, item) for region in (0, 1) for item in (3, 63)] == [5, None, 0, None]
    core.restore(start)
    assert core.ledger_sum(0, 3) is None


@pytest.mark.parametrize(
    "text",
    [
        announced(0x60, 3, 1),
        announced(0x3F, 3, 1),
        announced(0x40, 64, 1),
        f"movl ${PAGES + 1}, %ebp; movl $0x3000001, %edi; nopl {0x52540000 | GHOST:#x}(%ebp,%edi,1)\n",
    ],
)
def test_what_is_no_page_or_item_counts_nowhere(text: str) -> None:
    core = machine(text).machine
    core.execute(auto(100))
    assert not any(core.ledger_sum(region, item) for region in (0, 1) for item in range(64))
    assert (core.ledger_sum(2, 3), core.ledger_sum(0, 64)) == (None, None)


def test_nothing_else_changes() -> None:
    ends = []
    for ledger in (False, True):
        core = machine(TEXT, tap=True, ledger=ledger).machine
        core.execute(auto(100))
        ends.append((core.state_hash(), core.step, columns(core)))
    assert ends[0] == ends[1]


def test_there_may_be_none_any_more() -> None:
    core = machine(TEXT).machine
    core.ledger(0, PAGES, PAGE_BYTES, FIRST, REGIONS)
    core.execute(auto(100))
    assert core.ledger_sum(0, 3) is None


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((GHOST, PAGES, 0, FIRST, REGIONS), ValueError),
        ((0x10000, PAGES, PAGE_BYTES, FIRST, REGIONS), ValueError),
        ((GHOST, PAGES, PAGE_BYTES, FIRST, REGIONS * 5), ValueError),
        ((GHOST, PAGES, PAGE_BYTES, FIRST, [3]), TypeError),
        ((GHOST, PAGES, PAGE_BYTES, FIRST, [("a", 1)]), TypeError),
        ((GHOST, PAGES, PAGE_BYTES, FIRST, 3), TypeError),
    ],
)
def test_bad_ledgers(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    core = machine(TEXT).machine
    with pytest.raises(error):
        core.ledger(*arguments)
    core.execute(auto(100))
    assert core.ledger_sum(0, 3) == 3  # as it was
