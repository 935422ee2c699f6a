"""The command `racetape hunt`: has schedules run, records the failing ones, prints."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from debugger.progress import progress
from debugger.session import Session
from machine import images
from machine.errors import RacetapeError
from recorder.hunt import Extent, Hunt, Tally, Verdict, hunt
from traces import Tape

CONFIDENCE: Final = 0.95
"""Of the statement about a hunt in which nothing failed."""
RECENT: Final = 1000
"""New classes in so many last schedules say how much there still is to see."""


def run_hunt(what: Hunt, output: Path) -> tuple[Verdict, dict[str, Any]]:
    """Hunt, and record each failing schedule: the first to `output`, further ones (`every`) beside it.

    Returns the verdict and the answer as JSON has it.
    """
    so_far, started = Tally(), time.monotonic()

    def count(tally: Tally) -> None:
        nonlocal so_far
        so_far = tally

    def more() -> str:
        speed = so_far.schedules / (time.monotonic() - started)
        found = f", {len(so_far.found)} causes of failure" if so_far.found else ""
        seen = f", {len(so_far.classes):,} classes, {so_far.pairs.bit_count():,} pairs" if so_far.classes else ""
        return f": {speed:,.0f}/s{seen}{found}"

    with progress("hunting: schedule", lambda: so_far.schedules, what.schedules, mark="", more=more):
        verdict = hunt(what, count)
    tapes = _record(verdict, output)
    return verdict, _answer(verdict, tapes)


def _record(verdict: Verdict, output: Path) -> list[Path]:
    paths = []
    for number, row in enumerate(verdict.found, 1):
        path = output if number == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")
        made = verdict.made.get(row.number)
        summary = verdict.prepared.record(path, strategy=verdict.hunt.strategy, seed=row.seed, made=made)
        if summary.stop == "interrupted":
            raise KeyboardInterrupt
        if summary.steps != row.steps:
            raise RacetapeError(
                f"schedule {row.number} took {row.steps} steps and {summary.steps} when it was recorded: "
                "this machine is not deterministic, which must never be; please report it"
            )
        paths.append(path)
    return paths


def _answer(verdict: Verdict, tapes: list[Path]) -> dict[str, Any]:
    what, tally = verdict.hunt, verdict.tally
    scenario = images.scenario(what.scenario)
    return {
        "result": verdict.result,
        "scenario": what.scenario,
        "variant": what.variant or scenario.variants[0],
        "configuration": scenario.configuration(what.configuration or "").name,
        "strategy": what.strategy,
        "seed": what.seed,
        "budget": {"schedules": what.schedules, "seconds": what.seconds},
        "interrupted": verdict.interrupted,
        "schedules": tally.schedules,
        "resumed": verdict.resumed,
        "inconclusive": tally.stops["steps"],
        "steps": tally.steps,
        "final_states": len(tally.states),
        "seconds": round(verdict.seconds, 3),
        "first_failure_seconds": None
        if verdict.first_failure_seconds is None
        else round(verdict.first_failure_seconds, 3),
        "failures": [
            {
                "cause": row.failure.cause,
                "text": row.failure.text,
                "schedule": row.number,
                "seed": row.seed,
                "steps": row.steps,
                "tape": str(path),
                "waits": _waits(path),
            }
            for row, path in zip(verdict.found, tapes, strict=True)
        ],
        "bound": bound_of(verdict),
        "coverage": {
            "classes": len(tally.classes),
            "new_classes": verdict.new_classes(RECENT),
            "recent": RECENT,
            "ordered_pairs": tally.pairs.bit_count(),
        },
    }


def _waits(path: Path) -> list[str]:
    """Who waits for what at the end of a deadlock or livelock; nothing for other endings."""
    with Tape(path) as tape:
        if tape.footer is None or tape.footer.stop not in ("idle", "livelock"):
            return []
        session = Session(tape)
        session.seek(session.timeline.last_step)
        return session.execute("info waits").splitlines()


def bound_of(verdict: Verdict) -> dict[str, Any]:
    """What the answer holds for, if nothing failed."""
    if verdict.extent is not None:
        return asdict(verdict.extent)
    return {
        "confidence": CONFIDENCE,
        "rate": verdict.rate_ruled_out(CONFIDENCE),
        "pct": [asdict(row) for row in verdict.pct_bounds()],
    }


def report(verdict: Verdict, answer: dict[str, Any]) -> str:
    """The answer in words."""
    tally, lines = verdict.tally, []
    where = f"{answer['scenario']} ({answer['variant']}, {answer['configuration']})"
    if answer["failures"]:
        kinds = len(answer["failures"])
        first = answer["failures"][0]
        lines.append(
            f"{where}: failed in schedule {first['schedule'] + 1:,}"
            + (f", and in {kinds} different ways in all" if kinds > 1 else "")
        )
        for row in answer["failures"]:
            lines.append(f"    {row['text']}")
            lines.append(f"        {row['tape']}: {row['steps']:,} steps, schedule {row['schedule'] + 1:,}")
            lines += [f"        {line}" for line in row["waits"]]
    else:
        lines.append(f"{where}: nothing failed in {_many(tally.schedules, 'schedule')}")
    average = tally.steps // max(tally.schedules, 1)
    speed = tally.schedules / verdict.seconds if verdict.seconds else 0.0
    lines.append(
        f"searched: {answer['strategy']}, seed {answer['seed']}; {_many(tally.schedules, 'schedule')} of {average:,} "
        f"steps on average, {_many(len(tally.states), 'different final state')}; {verdict.seconds:.1f} s, "
        f"{speed:,.0f} schedules/s"
    )
    coverage = answer["coverage"]
    if coverage["classes"]:
        lines.append(
            f"coverage: {coverage['classes']:,} classes of equivalent schedules, {coverage['new_classes']:,} new in "
            f"the last {min(RECENT, tally.schedules):,}; {coverage['ordered_pairs']:,} ordered pairs of conflicting "
            "instructions"
        )
    if answer["inconclusive"]:
        lines.append(f"inconclusive: {_many(answer['inconclusive'], 'schedule')} reached the step limit")
    if verdict.resumed:
        lines.append(f"resumed: {verdict.resumed:,} of the schedules were run before ({verdict.hunt.resume})")
    if verdict.interrupted:
        lines.append("interrupted: this is about the schedules up to there")
        if verdict.hunt.resume is not None:
            lines.append(f"the same command goes on from there ({verdict.hunt.resume})")
    if verdict.extent is not None:
        lines += _extent_lines(verdict.extent, verdict.result == "exhausted")
    elif not answer["failures"]:
        lines += [
            f"pct: a bug of depth {row.depth} has escaped {row.runs:,} runs of that depth with probability "
            f"{row.escaped:.3g} at most (n = {row.agents}, k = {row.steps:,})"
            for row in verdict.pct_bounds()
        ]
        lines.append(
            f"no proof: a bug that one such schedule hits with probability {answer['bound']['rate']:.2g} or more would "
            f"have been found with probability {CONFIDENCE}"
        )
    if not answer["failures"]:
        return "\n".join(lines)
    tape = answer["failures"][0]["tape"]
    lines.append("go on with:")
    lines += [
        f"    racetape first-divergence {tape} --counter {name}"
        for name in images.scenario(answer["scenario"]).counters
        if f"{name} is" in answer["failures"][0]["text"]
    ]
    lines.append(f"    racetape minimise {tape} -o {Path(tape).with_name('small.tape')}")
    lines.append(f"    racetape debug {tape}")
    return "\n".join(lines)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _extent_lines(extent: Extent, exhausted: bool) -> list[str]:
    """What a systematic hunt has searched."""
    if extent.strategy == "dpor":
        what = "every class of equivalent schedules" if exhausted else "some classes of equivalent schedules, not all"
    elif extent.deviations is None or extent.deviations < 0:
        what = "not even the default schedule to its end"
    else:
        what = f"every schedule with up to {_many(extent.deviations, 'deviation')}"
    who = "CPUs or tasks" if extent.tasks else "CPUs"
    stores = "stores held or not" if extent.held else "stores drain at once"
    lines = [
        ("exhausted: " if exhausted else "so far: ")
        + what
        + f", at {_many(extent.visible_steps, 'visible step')}; {stores}, {_many(extent.ticks, 'timer tick')}; "
        f"{extent.given_up:,} more were begun and led to what was seen",
        f"bound: changes between accesses to the {extent.words:,} words that {who} shared in "
        f"{extent.learned_from:,} runs",
    ]
    if extent.estimate is not None and not exhausted:
        lines.append(
            f"estimate: {extent.estimate.schedules:,.0f} classes in all, give or take {extent.estimate.error:,.0f}, "
            f"by {extent.estimate.descents:,} random descents: take it for the magnitude"
        )
    if extent.cut:
        lines.append(f"incomplete: {extent.cut}")
    return lines


def print_report(verdict: Verdict, answer: dict[str, Any]) -> None:
    """To standard output."""
    click.echo(report(verdict, answer))
