"""The command `racetape minimise`: the fewest choices that make a tape's failure happen again."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import numpy as np

from debugger.checks import scenario_counters
from debugger.progress import progress
from machine.errors import UsageError
from machine.images import same_contents
from recorder.fewest import Fewest
from recorder.hunt.checks import Failure
from recorder.hunt.trial import Trial
from recorder.minimise import RUNS_MAX, Minimiser, script_records
from recorder.places import guest_symbols
from recorder.record import Prepared, prepare
from recorder.strategies.script import Exact, Script, parse_choices
from recorder.wording import Worded, Wording
from traces import Tape
from traces.schema import RecordArray


def run_minimise(tape: Tape, output: Path, script: Path | None, runs_max: int | None) -> dict[str, Any]:
    """Minimise the schedule of `tape`, record it to `output`, write its script; the answer as JSON has it.

    runs_max: most runs to make, None for the usual limit.

    Raises UsageError if the tape does not fail or is of another image, TapeError.
    """
    prepared, runs_max = _prepared(tape), runs_max or RUNS_MAX
    records = np.concatenate([chunk.records for chunk in tape.choices(tape.header.ready_step)])
    trial = Trial(prepared, scenario_counters(prepared))
    runs = 0

    def count(now: int, _left: int) -> None:
        nonlocal runs
        runs = now

    started = time.monotonic()
    with progress("minimising: run", lambda: runs, runs_max, mark=""):
        minimiser = Minimiser(trial, runs_max=runs_max, progress=count, fewest=_fewest(trial, runs_max))
        minimal = minimiser.minimise(script_records(records))
    seconds = time.monotonic() - started
    text = _script(trial, minimal.records)
    summary = prepared.record(output, strategy=Script(minimal.records))
    if script is not None:
        script.write_text(text)
    return {
        "cause": minimal.failure.cause,
        "text": minimal.failure.text,
        "choices_before": minimal.before,
        "choices": len(minimal.records),
        "switches": minimal.switches,
        "held": minimal.held,
        "without_held": minimal.without_held
        and {"switches": minimal.without_held.switches, "steps": minimal.without_held.steps},
        "without_held_deviations": minimal.without_held_deviations,
        "proved": minimal.proved,
        "deviations": minimal.deviations,
        "enumerated": minimal.enumerated,
        "complete": minimal.complete,
        "runs": minimal.runs,
        "seconds": round(seconds, 3),
        "script": text,
        "tape": str(output),
        "steps": summary.steps,
    }


def _prepared(tape: Tape) -> Prepared:
    header = tape.header
    if tape.unfinished:
        raise UsageError(f"{tape.path}: the tape is cut, so nobody knows how its run ends")
    prepared = prepare(header.scenario, header.variant, header.configuration)
    # Images of the gallery differ from the installed ones in debug information only.
    if sha256(prepared.image).digest() != header.image_sha256 and not same_contents(prepared.image, tape.image()):
        raise UsageError(
            f"{tape.path} was recorded with another image of {header.scenario} than the one that is installed"
        )
    return prepared


def _fewest(trial: Trial, runs_max: int) -> Fewest:
    """Finds out which words are shared, if nobody has yet."""
    prepared = trial.prepared
    prepared.profile(visible=True)

    def judge(stop: str) -> Failure | None:
        return trial.failure(stop, prepared.machine.console_take().decode("ascii", "replace"))

    return Fewest(prepared.machine, prepared.at_ready, step_max=prepared.step_max, judge=judge, runs_max=runs_max)


def _script(trial: Trial, records: RecordArray) -> str:
    """The choices in words; by names and places where these lead to the same schedule, which is tried."""
    prepared = trial.prepared
    symbols = guest_symbols(prepared.machine, prepared.image)
    words = Wording(prepared.machine, prepared.at_ready, symbols).words(records)
    exact = trial.run(Script(records), 0)
    text = _text(words)
    again = trial.run(Script(parse_choices(text, prepared.machine.cpus), symbols), 0)
    if (again.steps, again.state_hash) == (exact.steps, exact.state_hash):
        return text
    rows = zip(records, words, strict=True)
    return _text([Worded((Exact(tuple(record.tolist())),), row.place) for record, row in rows])


def _text(words: list[Worded]) -> str:
    return "".join(f"{row}\n" for row in words)


def _held(answer: dict[str, Any]) -> str:
    if not answer["held"]:
        return "no store needs to be held, so no fence is involved"
    if answer["without_held"] is not None:
        without = answer["without_held"]["switches"]
        return f"stores are held to save some: without, it takes {without}, so no fence is involved"
    deviations = answer["without_held_deviations"]
    if deviations < 0:
        return "held stores may be needed"
    return (
        f"held stores are needed: without, no schedule with up to {deviations} deviation{'s' * (deviations != 1)} fails"
    )


def print_report(answer: dict[str, Any]) -> None:
    """The answer in words, to standard output."""
    click.echo(answer["text"])
    verb = "is" if answer["choices"] == 1 else "are"
    click.echo(
        f"{answer['choices']} of {answer['choices_before']:,} choices {verb} needed, with the default schedule behind "
        f"them ({answer['runs']:,} runs, {answer['seconds']:.1f} s):"
    )
    for line in answer["script"].splitlines():
        click.echo(f"    {line}")
    if not answer["complete"]:
        click.echo("the budget of runs was spent: fewer may do")
    searched = f"{answer['enumerated']:,} schedules were run"
    if answer["deviations"] >= 0:
        searched += f", all with {answer['deviations']} deviations or fewer from the default one"
    fewer = "fewer do not do" if answer["proved"] else "whether fewer would do is not known"
    click.echo(f"{fewer}: {searched}")
    click.echo(f"switches between CPUs: {answer['switches']}; {_held(answer)}")
    click.echo(f"{answer['tape']}: {answer['steps']:,} steps; racetape debug {answer['tape']}")
