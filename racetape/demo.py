"""`racetape demo`: the Linux bug of June 2011, from recording to cause. Computes everything it prints."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from debugger.divergence import first_divergence
from debugger.report import DivergenceReport, Moment
from debugger.session import Session
from machine.errors import ReplayError
from recorder import prepare
from replayer import replay
from traces import Tape

SCENARIO: Final = "wrong-zone"
COUNTER: Final = "NR_ISOLATED_FILE"
WATCH: Final = "contig_page_data.node_zones[{zone}].vm_stat[" + COUNTER + "]"
FIX: Final = "fix-7454f4ba40b4"
SEED_PATCH: Final = "seed-wmb"


@dataclass(frozen=True)
class Run:
    """One recording of the demo and what it says."""

    variant: str
    configuration: str
    tape: Path
    steps: int
    events: int
    size_bytes: int
    state_hash: int
    report: DivergenceReport

    def outcome(self) -> tuple[object, ...]:
        """What happened, without the positions at which it did: equal outcomes are equal tuples."""
        report = self.report
        moments = (report.first_divergence, report.first_negative, report.first_misled_reader)
        what = tuple((m.function, m.zone, m.value, m.expected) if m else None for m in moments)
        return (*what, tuple((b.name, b.zone, b.value, b.expected) for b in report.balances))


def make_run(folder: Path, variant: str, configuration: str) -> Run:
    """Record, replay to the same hash, and ask for the first divergence."""
    tape = folder / f"{SCENARIO}-{configuration}-{variant}.tape"
    summary = prepare(SCENARIO, variant, configuration).record(tape)
    if summary.stop == "interrupted":
        raise KeyboardInterrupt  # what follows would judge half a run
    with Tape(tape) as opened:
        result = replay(opened)
        if result.state_hash != summary.state_hash:
            raise ReplayError(f"{tape} replays to another state than was recorded")
        report = first_divergence(opened, COUNTER)
    return Run(
        variant, configuration, tape, summary.steps, summary.events, summary.size_bytes, summary.state_hash, report
    )


def moment_line(title: str, moment: Moment | None) -> str:
    """One line on one of the three moments."""
    if moment is None:
        return f"    {title:<20} none"
    truth = "" if moment.expected is None else f", truly {moment.expected}"
    place = f"{moment.function} ({moment.file}:{moment.line})"
    return f"    {title:<20} @{moment.step} cpu{moment.cpu} {place}, zone {moment.zone}: {moment.value}{truth}"


def describe(run: Run) -> None:
    """Print a run and its three moments."""
    click.echo(
        f"  {run.variant}, {run.configuration}: {run.steps:,} steps, {run.events:,} events recorded "
        f"({run.size_bytes:,} bytes); replayed to the same state {run.state_hash:016x}"
    )
    report = run.report
    if not report.found:
        click.echo(f"    {COUNTER} stays true in every zone")
        return
    click.echo(moment_line("first divergence", report.first_divergence))
    click.echo(moment_line("first negative", report.first_negative))
    click.echo(moment_line("first misled reader", report.first_misled_reader))
    if report.first_divergence and report.first_divergence.source:
        click.echo(f"    culprit:             {report.first_divergence.source.strip()}")


def travel_back(run: Run) -> list[str]:
    """From the end of the tape, walk back over every write to the counter of the zone that went negative."""
    negative = run.report.first_negative
    if negative is None:
        return []
    lines: list[str] = []
    with Tape(run.tape) as tape:
        session = Session(tape)
        zone = next(i for i, name in enumerate(zone_names(session)) if name == negative.zone)
        session.execute("seek end")
        session.execute("watch " + WATCH.format(zone=zone))
        while session.timeline.step > session.timeline.ready_step:
            text = session.execute("reverse-continue")
            if session.timeline.step <= session.timeline.ready_step:
                break
            lines += [line for line in text.splitlines() if line.strip()]
    return lines


def zone_names(session: Session) -> list[str]:
    """Names of the guest's zones, in order."""
    zones = session.symbols.evaluate("contig_page_data.node_zones")
    count = len(zones)
    return [zones[i].name.string_().decode() for i in range(count)]


def verdict(ok: bool) -> str:
    return "yes" if ok else "NO"


def run_demo(keep: Path | None, as_json: bool) -> int:
    """Run the demo. 0 if everything is as history says, 1 if not."""
    started = time.monotonic()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    with nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory(prefix="racetape-demo-") as folder:
        home = Path(folder)
        runs = {
            "buggy": make_run(home, "buggy", "up-2level"),
            "fixed": make_run(home, FIX, "up-2level"),
            "seed": make_run(home, SEED_PATCH, "up-2level"),
            "smp": make_run(home, "buggy", "smp2-2level"),
            "smp fixed": make_run(home, FIX, "smp2-2level"),
        }
        back = travel_back(runs["buggy"])
        checks = judge(runs)
        if as_json:
            click.echo(json.dumps(as_data(runs, checks, back), indent=2))
        else:
            tell(runs, checks, back, keep)
            click.echo(f"\n{time.monotonic() - started:.1f} s")
    return 0 if all(checks.values()) else 1


def judge(runs: dict[str, Run]) -> dict[str, bool]:
    """The statements that the demo makes, each computed from the recordings."""
    buggy, smp = runs["buggy"].report, runs["smp"].report
    divergence, negative, reader = buggy.first_divergence, buggy.first_negative, buggy.first_misled_reader
    final = {(row.name, row.zone): row.error for row in buggy.balances}
    return {
        "the counter diverges in acct_isolated, in the wrong zone": divergence is not None
        and divergence.function == "acct_isolated"
        and (divergence.expected or 0) < divergence.value,
        "it becomes negative when the pages are put back, in another zone": negative is not None
        and divergence is not None
        and negative.value < 0
        and negative.zone != divergence.zone,
        "the first one misled is too_many_isolated, which sees about 2^32": reader is not None
        and reader.function == "too_many_isolated"
        and 2**32 - 4096 <= reader.value < 2**32,
        "the sum over all zones is exact": sum(final.values()) == 0 and any(final.values()),
        f"{FIX} cures it": not runs["fixed"].report.found,
        f"{SEED_PATCH} changes nothing": runs["seed"].outcome() == runs["buggy"].outcome(),
        "SMP has the same bug at the same place": smp.first_divergence is not None
        and divergence is not None
        and smp.first_divergence.function == divergence.function,
        "SMP hides it: nobody reads a huge count, for zone_page_state clamps negatives to 0": smp.first_negative
        is not None
        and (smp.first_misled_reader is None or smp.first_misled_reader.value < 2**31),
        f"{FIX} cures it on SMP": not runs["smp fixed"].report.found,
    }


def as_data(runs: dict[str, Run], checks: dict[str, bool], back: list[str]) -> dict[str, Any]:
    """The demo as JSON."""
    return {
        "runs": [
            {
                "variant": run.variant,
                "configuration": run.configuration,
                "steps": run.steps,
                "events": run.events,
                "state_hash": f"{run.state_hash:016x}",
                **run.report.json(),
            }
            for run in runs.values()
        ],
        "reverse": back,
        "checks": checks,
    }


def tell(runs: dict[str, Run], checks: dict[str, bool], back: list[str], keep: Path | None) -> None:
    """The demo as text."""
    click.echo("June 2011: /proc/zoneinfo shows nr_isolated_file 4294967295, tasks hang in D state. Only on UP.")
    click.echo(f"\nRecording scenario '{SCENARIO}' (mm/compaction.c of 2.6.39, Linux's own constants):\n")
    for title, names in (
        ("The bug, on the kernel it was reported on", ("buggy",)),
        ("With the fix that was merged (7454f4ba40b4)", ("fixed",)),
        ("With the memory barriers first proposed (two smp_wmb())", ("seed",)),
        ("The same on two CPUs, buggy and fixed", ("smp", "smp fixed")),
    ):
        click.echo(f"{title}:")
        for name in names:
            describe(runs[name])
        click.echo()
    click.echo("Backwards from the end of the first tape, stopping at every write to the counter that went negative:")
    shown = 12
    for line in back[:shown]:
        click.echo(f"    {line}")
    if len(back) > shown:
        click.echo(f"    ... {len(back) - shown} more lines")
    for note in runs["buggy"].report.notes:
        click.echo(f"  note: {note}")
    for note in runs["smp"].report.notes:
        click.echo(f"  note (SMP): {note}")
    click.echo("\nWhat the recordings say:")
    for statement, holds in checks.items():
        click.echo(f"  {verdict(holds):>3}  {statement}")
    if keep:
        divergence = runs["buggy"].report.first_divergence
        where = f" -ex 'seek {divergence.step}'" if divergence else ""
        click.echo(f"\nLook around:  racetape debug {runs['buggy'].tape}{where}")
