"""The command `racetape matrix seed`: what the developers suspected in June 2011, settled by making all schedules of
a bound.

The hypotheses are those of the mailing-list discussion of the negative nr_isolated counters (June and July 2011) that
the guest has the code for. Each is about a few cells, searched without chance; what comes of it is computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click

from debugger.progress import progress
from racetape.matrix import run_cell
from recorder.hunt import Hunt
from recorder.hunt.checks import Checks

NAME: Final = "seed"
SCHEDULES_MAX: Final = 1_000_000
BOUND: Final = 1
"""Deviations; in dirty-bit where it fails 3, which is what its bug takes (docs/scenarios.md)."""

CellName = tuple[str, str, str]
"""Scenario, variant, configuration."""
Cells = Mapping[CellName, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was suspected.

    Attributes:
        text: in a few words.
        cells: what it is settled by.
        settle: whether it is true, and why, from the cells; None: these searches do not decide it.
    """

    text: str
    cells: tuple[CellName, ...]
    settle: Callable[[Cells], tuple[bool | None, str]]


def _same(cells: Cells) -> tuple[bool | None, str]:
    """The barrier: for each configuration the schedules with and without it."""
    pairs = [(cells[cell], cells[cell[0], "seed-wmb", cell[2]]) for cell in cells if cell[1] == "buggy"]
    fields = ("result", "schedules", "inconclusive", "causes")
    alike = all(without[name] == barrier[name] for without, barrier in pairs for name in fields)
    whole = all(cell["bound"]["deviations"] >= BOUND and not cell["bound"]["cut"] for pair in pairs for cell in pair)
    counts = ", ".join(f"{without['schedules']:,} on {without['configuration']}" for without, _ in pairs)
    if not whole:
        return None, "not all schedules of the bound were made"
    if alike:
        return False, f"the barrier changes nothing: {counts} schedules, the same ones fail for the same causes"
    return None, "with the barrier other schedules fail, or there are others"


def _only_elsewhere(text: str, clean: CellName, failing: CellName, why: str) -> Hypothesis:
    """Not so where it was reported, though it is so elsewhere."""

    def settle(cells: Cells) -> tuple[bool | None, str]:
        here, there = cells[clean], cells[failing]
        if here["result"] == "exhausted" and there["result"] == "failed":
            counts = f"clean in all {here['schedules']:,} schedules on {clean[2]}, fails in {there['schedules']:,} on"
            return False, f"{why}: {counts} {failing[2]}"
        return (True, "it fails where it was reported, too") if here["result"] == "failed" else (None, "not decided")

    return Hypothesis(text, (clean, failing), settle)


def _cure(buggy: CellName, fixed: CellName) -> Callable[[Cells], tuple[bool | None, str]]:
    def settle(cells: Cells) -> tuple[bool | None, str]:
        before, after = cells[buggy], cells[fixed]
        if before["result"] == "failed" and after["result"] == "exhausted":
            first = min(before["causes"].values()) + 1
            return (
                True,
                f"fails in schedule {first:,}, and is clean in all {after['schedules']:,} once it stays in its zone",
            )
        return None, "not decided"

    return settle


_WRONG_ZONE: Final = "wrong-zone-small"
HYPOTHESES: Final = (
    _only_elsewhere(
        "the counter is updated non-atomically, and PREEMPT comes in between",
        ("vmstat-lost-update", "buggy", "up-2level"),
        ("vmstat-lost-update", "buggy", "smp1-2level"),
        "a UP kernel updates it with one instruction",
    ),
    _only_elsewhere(
        "pmdp_get_and_clear() without xchg on UP loses something",
        ("dirty-bit", "buggy", "up-2level"),
        ("dirty-bit", "buggy", "smp2-2level"),
        "nobody else walks the page tables there",
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
    Hypothesis(
        "compaction's scanner walks into the next zone (7454f4ba40b4)",
        ((_WRONG_ZONE, "buggy", "up-2level"), (_WRONG_ZONE, "fix-7454f4ba40b4", "up-2level")),
        _cure((_WRONG_ZONE, "buggy", "up-2level"), (_WRONG_ZONE, "fix-7454f4ba40b4", "up-2level")),
    ),
)


def run_seed_matrix(checks: Checks) -> list[dict[str, Any]]:
    """Settle every hypothesis; a dict for each."""
    wanted = list(dict.fromkeys(cell for row in HYPOTHESES for cell in row.cells))
    done: dict[CellName, dict[str, Any]] = {}
    with progress("hunting: cell", lambda: len(done), len(wanted), mark=""):
        for cell in wanted:
            scenario, variant, configuration = cell
            bound = 3 if scenario == "dirty-bit" and configuration.startswith("smp") else BOUND
            what = Hunt(
                scenario,
                strategy="bounded",
                bound=bound,
                schedules=SCHEDULES_MAX,
                every=scenario == _WRONG_ZONE,
                checks=checks,
            )
            done[cell] = run_cell(what, variant, configuration)
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
