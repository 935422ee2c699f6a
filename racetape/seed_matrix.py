"""The command `racetape matrix seed`: what the developers suspected in June 2011, settled by making all schedules of
a bound.

The hypotheses are those of the mailing-list discussion of the negative nr_isolated counters (June and July 2011) that
the guest has the code for. Each is about a few cells, searched without chance; what comes of it is computed from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from debugger.progress import progress
from racetape.seed_cells import CLASSES, CellName, Cells, search_cell
from recorder.hunt.checks import Checks

NAME: Final = "seed"
BOUND: Final = 1
"""Deviations, where _DEEPER does not say how many."""

Answer = tuple[bool | None, str]
"""Whether it is so and why; None: these searches do not decide it."""
UNDECIDED: Final[Answer] = (None, "not decided: a search was cut, or came out in a way that says nothing about it")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was suspected.

    Attributes:
        text: in a few words.
        cells: what it is settled by.
        settle: the answer, from the cells.
    """

    text: str
    cells: tuple[CellName, ...]
    settle: Callable[[Cells], Answer]


_WRONG_ZONE: Final = "wrong-zone-small"
_BUGGY: Final = (_WRONG_ZONE, "buggy", "up-2level")
_FIX: Final = (_WRONG_ZONE, "fix-7454f4ba40b4", "up-2level")
_CLAMP: Final = (_WRONG_ZONE, "seed-clamp", "up-2level")
_OFFLINE: Final = ("soft-offline", "buggy", "up-2level")
_OFFLINE_FIX: Final = ("soft-offline", "fix-5db8a73a8d7c", "up-2level")
_FLIP: Final = ("class-flip", "buggy", "up-2level")
_COLLAPSE: Final = (("collapse", "fixed", "up-2level"), ("collapse", "fixed", "smp2-2level"))
_COLLAPSE_PLANTED: Final = ("collapse", "buggy", "up-2level")
_DIRTY_SMP: Final = ("dirty-bit", "buggy", "smp2-2level")
_SPLIT: Final = tuple(("split", "fixed", config) for config in ("up-2level", "smp2-2level", "smp2-pae"))
_SPLIT_PLANTED: Final = tuple(("split", "buggy", config) for config in ("smp2-2level", "smp2-pae"))
_DEEPER: Final[dict[CellName, int]] = {
    _DIRTY_SMP: 3,  # what its bug takes (docs/scenarios.md)
    **dict.fromkeys((_COLLAPSE[1], *_SPLIT[1:]), 2),  # more than one is no great matter there
}


def _same(cells: Cells) -> Answer:
    """The barrier: for each configuration the schedules with and without it."""
    pairs = [(cells[cell], cells[cell[0], "seed-wmb", cell[2]]) for cell in cells if cell[1] == "buggy"]
    fields = ("result", "schedules", "inconclusive", "causes", "complete")
    alike = all(without[name] == barrier[name] for without, barrier in pairs for name in fields)
    counts = ", ".join(f"{without['schedules']:,} on {without['configuration']}" for without, _ in pairs)
    if not all(cell["complete"] for cell in cells.values()):
        return UNDECIDED
    if alike:
        return False, f"the barrier changes nothing: {counts} schedules, the same ones fail for the same causes"
    return None, "with the barrier other schedules fail, or there are others"


def _only_elsewhere(text: str, clean: CellName, failing: CellName, why: str) -> Hypothesis:
    """Not so where it was reported, though it is so elsewhere."""

    def settle(cells: Cells) -> Answer:
        here, there = cells[clean], cells[failing]
        if here["result"] == "exhausted" and there["result"] == "failed":
            counts = f"clean in all {here['schedules']:,} schedules on {clean[2]}, fails in {there['schedules']:,} on"
            return False, f"{why}: {counts} {failing[2]}"
        return (True, "it fails where it was reported, too") if here["result"] == "failed" else UNDECIDED

    return Hypothesis(text, (clean, failing), settle)


def _clamp(cells: Cells) -> Answer:
    """Who reads the counter, with and without a clamp in the source."""
    without, with_it = (cells[cell]["tape"] for cell in (_BUGGY, _CLAMP))
    lowest = _lowest(with_it)
    if not without["stalls"] or lowest >= 0:
        return UNDECIDED
    if with_it["stalls"]:
        return True, f"with the clamp in the source readers still stall, {with_it['stalls']} times"
    return False, (
        f"with the clamp in the source of the UP build nobody stalls ({without['stalls']} times without it), though a "
        f"zone's counter is {lowest} all the same: the compiler keeps what it is given, and UP is given none"
    )


def _lowest(tape: dict[str, Any]) -> int:
    """The counter that is lowest in the end, of any zone and class."""
    return min((error for row in tape["counters"].values() for error in row["errors"].values()), default=0)


def _missing_increment(cells: Cells) -> Answer:
    """Soft offline: real, but its sum over all zones is off, where the reports had an exact one."""
    offline, fixed, june = cells[_OFFLINE], cells[_OFFLINE_FIX], cells[_BUGGY]
    if list(offline["causes"]) != ["missing increment"] or fixed["result"] != "exhausted" or not june["complete"]:
        return UNDECIDED
    if "missing increment" in june["causes"]:
        return True, "the schedules that fail in compaction look like it, too"
    if list(june["causes"]) != ["wrong zone"]:
        return UNDECIDED
    sums = ", ".join(f"{name} {row['sum']:+}" for name, row in offline["tape"]["counters"].items())
    return False, (
        f"real, but another bug: it makes the sums over all zones wrong ({sums}; all {fixed['schedules']:,} schedules "
        f"clean once it counts), and here they are exact in all {june['schedules']:,}"
    )


def _class_change(cells: Cells) -> Answer:
    """Were pages counted in as one class and out as the other, the sums over all zones would show it."""
    june, flip = cells[_BUGGY], cells[_FLIP]
    seen = [note for row in flip["tape"]["counters"].values() for note in row["notes"] if note.startswith("class flip")]
    if not seen or not june["complete"]:
        return UNDECIDED
    if {"class flip", "mixed"} & set(june["causes"]):
        return True, "in some schedules as many pages too few count as one class as too many do as the other"
    if list(june["causes"]) != ["wrong zone"]:
        return UNDECIDED
    shown = f"schedule {flip['tape']['schedule']:,} shows it ({seen[0].partition(';')[0]})"
    return False, (
        f"in all {june['schedules']:,} schedules as many pages of each class are counted in as out, over all zones; in "
        f"class-flip, where one does change, {shown}"
    )


def _failing(cells: Cells, names: tuple[CellName, ...]) -> str:
    """Which of these cells fail, and how; "" if none does."""
    failed = [(name, cells[name]) for name in names if cells[name]["result"] == "failed"]
    return ", ".join(f"{name[0]} on {name[2]}: {cell['text']}" for name, cell in failed)


def _all_schedules(cells: Cells, names: tuple[CellName, ...]) -> str:
    counts = " and ".join(f"{cells[name]['schedules']:,} schedules on {name[2]}" for name in names)
    return f"clean in all {counts}"


def _khugepaged(cells: Cells) -> Answer:
    """Backing out of a collapse: it is right, and about the other class alone."""
    if failing := _failing(cells, _COLLAPSE):
        return True, failing
    planted, june = cells[_COLLAPSE_PLANTED], cells[_BUGGY]
    if any(cells[name]["result"] != "exhausted" for name in _COLLAPSE) or planted["result"] != "failed":
        return UNDECIDED
    anon, file = (sum(cells[name]["tape"]["isolated"][row] for name in _COLLAPSE) for row in CLASSES)
    if not anon or file or not june["tape"]["counters"][CLASSES[1]]["errors"]:
        return UNDECIDED
    control = f"schedule {planted['tape']['schedule']:,} fails where a count is left out"
    return False, (
        f"{_all_schedules(cells, _COLLAPSE)} ({control}); and it isolates anonymous pages alone ({anon} on two tapes, "
        f"{file} of files), where those of files are off, too"
    )


def _splitting(cells: Cells) -> Answer:
    """The mark in a huge page's entry: the same on both kinds of page tables, and none of the hardware's business."""
    if failing := _failing(cells, _SPLIT):
        return True, failing
    if any(cells[name]["result"] != "exhausted" for name in _SPLIT):
        return UNDECIDED
    if any(cells[name]["result"] != "failed" for name in _SPLIT_PLANTED):
        return UNDECIDED
    controls = " and ".join(f"{min(cells[n]['causes'].values()) + 1:,} on {n[2]}" for n in _SPLIT_PLANTED)
    return False, (
        f"the hardware ignores it: {_all_schedules(cells, _SPLIT)}; with a mark in a bit that it does take notice of, "
        f"schedule {controls} fails"
    )


def _other_zone(cells: Cells) -> Answer:
    """Where the counters first go wrong."""
    if failing := _failing(cells, _COLLAPSE):
        return True, failing
    june = cells[_BUGGY]
    firsts = [row["first"] for row in june["tape"]["counters"].values()]
    clean = all(cells[name]["result"] == "exhausted" for name in _COLLAPSE)
    if not clean or list(june["causes"]) != ["wrong zone"] or not all(firsts):
        return UNDECIDED
    places = {(row["function"], row["file"]) for row in firsts}
    if any(file.endswith("huge_memory.c") for _, file in places):
        return True, "that is where the counters first go wrong"
    where = ", ".join(f"{function}() in {file}" for function, file in sorted(places))
    errors = " and ".join(
        ", ".join(f"{zone} {error:+}" for zone, error in row["errors"].items())
        for row in june["tape"]["counters"].values()
    )
    return False, (
        f"another zone it is ({errors}), but it is {where} that counts pages for one they are not in; backing out of a "
        f"collapse is {_all_schedules(cells, _COLLAPSE)}"
    )


def _cure(buggy: CellName, fixed: CellName) -> Callable[[Cells], Answer]:
    def settle(cells: Cells) -> Answer:
        before, after = cells[buggy], cells[fixed]
        if before["result"] == "failed" and after["result"] == "exhausted":
            first = min(before["causes"].values()) + 1
            return (
                True,
                f"fails in schedule {first:,}, and is clean in all {after['schedules']:,} once it stays in its zone",
            )
        return UNDECIDED

    return settle


HYPOTHESES: Final = (
    _only_elsewhere(
        "the counter is updated non-atomically, and PREEMPT comes in between",
        ("vmstat-lost-update", "buggy", "up-2level"),
        ("vmstat-lost-update", "buggy", "smp1-2level"),
        "a UP kernel updates it with one instruction",
    ),
    Hypothesis("the compiler optimises away the clamp that hides negative counters", (_BUGGY, _CLAMP), _clamp),
    Hypothesis(
        "soft_offline_page() uncounts what it has not counted (5db8a73a8d7c)",
        (_OFFLINE, _OFFLINE_FIX, _BUGGY),
        _missing_increment,
    ),
    Hypothesis("a page's class (PageSwapBacked) changes while it is isolated", (_BUGGY, _FLIP), _class_change),
    Hypothesis(
        "khugepaged's release_pte_pages() uncounts wrongly when it backs out",
        (*_COLLAPSE, _COLLAPSE_PLANTED, _BUGGY),
        _khugepaged,
    ),
    _only_elsewhere(
        "pmdp_get_and_clear() without xchg on UP loses something",
        ("dirty-bit", "buggy", "up-2level"),
        _DIRTY_SMP,
        "nobody else walks the page tables there",
    ),
    Hypothesis(
        "the mark of a huge page that is being split, in a 2-level page directory entry, confuses the hardware",
        (*_SPLIT, *_SPLIT_PLANTED),
        _splitting,
    ),
    Hypothesis(
        "a write barrier is missing where a huge page is mapped (the patch of 2 June)",
        tuple(
            (_WRONG_ZONE, variant, config)
            for config in ("up-2level", "smp2-2level")
            for variant in ("buggy", "seed-wmb")
        ),
        _same,
    ),
    Hypothesis("backing out of a huge page uncounts another zone's pages", (_BUGGY, *_COLLAPSE), _other_zone),
    Hypothesis("compaction's scanner walks into the next zone (7454f4ba40b4)", (_BUGGY, _FIX), _cure(_BUGGY, _FIX)),
)


def run_seed_matrix(checks: Checks) -> list[dict[str, Any]]:
    """Settle every hypothesis; a dict for each."""
    wanted = list(dict.fromkeys(cell for row in HYPOTHESES for cell in row.cells))
    done: dict[CellName, dict[str, Any]] = {}
    with progress("hunting: cell", lambda: len(done), len(wanted), mark=""):
        for cell in wanted:
            # Of the clamp only one schedule is looked at.
            every = cell[0] == _WRONG_ZONE and cell != _CLAMP
            done[cell] = search_cell(cell, _DEEPER.get(cell, BOUND), every=every, checks=checks)
    out = []
    for row in HYPOTHESES:
        true, why = row.settle({cell: done[cell] for cell in row.cells})
        out.append({"hypothesis": row.text, "true": true, "why": why, "cells": [done[cell] for cell in row.cells]})
    return out


def print_seed_matrix(rows: list[dict[str, Any]]) -> None:
    """What was suspected, whether it is so, and why."""
    words = {True: "yes", False: "no ", None: "?  "}
    for row in rows:
        click.echo(f"{words[row['true']]}  {row['hypothesis']}")
        click.echo(f"       {row['why']}")
    exhausted = [cell["bound"]["deviations"] for row in rows for cell in row["cells"] if cell["result"] == "exhausted"]
    click.echo(f"clean cells: all schedules with up to {min(exhausted, default=0)} deviation(s), without chance")
