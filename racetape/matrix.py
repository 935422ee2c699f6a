"""The command `racetape matrix`: one hunt for each variant and configuration of some scenarios."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import click

from debugger.progress import progress
from machine import images
from machine.errors import UsageError
from racetape.hunt import CONFIDENCE, bound_of
from recorder.hunt import Hunt, Verdict, hunt

__all__ = ["cell_of", "print_matrix", "run_cell", "run_matrix"]


ALL: Final = "all"
"""For: every bundled scenario."""


def run_matrix(
    what: Hunt, scenarios: tuple[str, ...], variants: tuple[str, ...], configurations: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Hunt in each cell; the cells, row by row.

    Args:
        what: strategy, seed, budget, checks; its scenario, variant and configuration are replaced.
        scenarios: which, or "all".
        variants, configurations: which; none means all that a scenario has. With several scenarios each may lack some.
    Raises UsageError for what there is not.
    """
    names = tuple(row.name for row in images.scenarios()) if ALL in scenarios else tuple(dict.fromkeys(scenarios))
    rows = [images.scenario(name) for name in names]
    cells = []
    unknown = dict.fromkeys([*variants, *configurations])
    for name, row in zip(names, rows, strict=True):
        for variant in variants or row.variants:
            for configuration in configurations or row.configurations:
                try:
                    row.image(configuration, variant)  # complains about what does not exist
                    cells.append((name, variant, row.configuration(configuration).name))
                    unknown.pop(variant, None)
                    unknown.pop(configuration, None)
                except UsageError:
                    if len(rows) == 1:
                        raise
    if unknown:
        raise UsageError(
            f"none of these scenarios has {' or '.join(unknown)}, or not with the others that are asked for"
        )
    cells = list(dict.fromkeys(cells))  # a configuration may be asked for by two names
    out: list[dict[str, Any]] = []
    with progress("hunting: cell", lambda: len(out), len(cells), mark=""):
        for name, variant, configuration in cells:
            out.append(run_cell(replace(what, scenario=name), variant, configuration))
    return out


def run_cell(what: Hunt, variant: str, configuration: str) -> dict[str, Any]:
    """One cell. Raises KeyboardInterrupt."""
    verdict = hunt(replace(what, variant=variant, configuration=configuration))
    if verdict.interrupted:
        raise KeyboardInterrupt
    return cell_of(verdict)


def cell_of(verdict: Verdict) -> dict[str, Any]:
    """What a hunt in one cell came to, as plain data."""
    found = verdict.found[0] if verdict.found else None
    return {
        "scenario": verdict.hunt.scenario,
        "variant": verdict.prepared.variant,
        "configuration": verdict.prepared.configuration,
        "result": verdict.result,
        "schedules": verdict.tally.schedules,
        "inconclusive": verdict.tally.stops["steps"],
        "seconds": round(verdict.seconds, 3),
        "cause": found and found.failure.cause,
        "text": found and found.failure.text,
        "seed": found and found.seed,
        "causes": {row.failure.cause: row.number for row in verdict.found},
        "bound": None if found and verdict.extent is None else bound_of(verdict),
    }


def print_matrix(cells: list[dict[str, Any]]) -> None:
    """A table: a row for each scenario and configuration, a column for each variant; then the causes."""
    if not cells:
        raise UsageError("there is no cell: neither variant nor configuration is left")
    scenarios = list(dict.fromkeys(cell["scenario"] for cell in cells))
    rows: list[list[str]] = []
    for scenario in scenarios:
        own = [cell for cell in cells if cell["scenario"] == scenario]
        variants = list(dict.fromkeys(cell["variant"] for cell in own))
        words = {(cell["variant"], cell["configuration"]): _words(cell) for cell in own}
        rows.append([scenario if len(scenarios) > 1 else "", *variants])
        indent = "  " if len(scenarios) > 1 else ""
        for c in dict.fromkeys(cell["configuration"] for cell in own):
            rows.append([f"{indent}{c}", *(words.get((v, c), "") for v in variants)])
    widths = [max(len(row[n]) for row in rows if n < len(row)) for n in range(max(map(len, rows)))]
    for row in rows:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)).rstrip())
    click.echo("fails in n: the n-th schedule was the first to fail; clean in n: none of n did" + _meaning(cells))
    for cause in dict.fromkeys(cell["cause"] for cell in cells if cell["cause"]):
        where = [_where(cell, scenarios) for cell in cells if cell["cause"] == cause]
        click.echo(f"{cause}: first in {len(where)} cells ({where[0]}{', ...' if len(where) > 1 else ''})")


def _where(cell: dict[str, Any], scenarios: list[str]) -> str:
    scenario = f"{cell['scenario']} " if len(scenarios) > 1 else ""
    return f"{scenario}{cell['variant']} {cell['configuration']}"


def _meaning(cells: list[dict[str, Any]]) -> str:
    """What it means that a cell is clean."""
    for cell in cells:
        bound = cell["bound"]
        if cell["result"] == "exhausted":
            if bound["strategy"] == "dpor":
                return "; all n: one of each class of equivalent schedules"
            return f"; all n: there are no others with up to {bound['deviations']} deviation(s)"
    return (
        f", which rules out with probability {CONFIDENCE} whatever fails in more than 3/n of the schedules"
        if any(cell["bound"] and "confidence" in cell["bound"] for cell in cells)
        else ""
    )


def _words(cell: dict[str, Any]) -> str:
    if cell["result"] == "failed":
        first, others = min(cell["causes"].values()) + 1, len(cell["causes"]) - 1
        more = f", {others} more causes" if others else ""
        return f"fails in {first:,} ({cell['seconds']:.1f} s){more}"
    if cell["result"] == "exhausted":
        return f"clean in all {cell['schedules']:,}"
    return f"clean in {cell['schedules']:,}" + (f", {cell['inconclusive']:,} open" if cell["inconclusive"] else "")
