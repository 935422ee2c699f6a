"""Commands that run what is on a tape: replay, verify, minimise it, travel in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from machine.errors import UsageError
from racetape.commands.common import (
    EXIT_BAD,
    EXIT_FOUND,
    describe_stop,
    emit,
    epilog,
    fail,
    finish,
    json_option,
    opened,
    output_option,
    tape_argument,
)

if TYPE_CHECKING:
    from replayer import VerifyReport


@click.command(
    epilog=epilog(
        "racetape minimise bug.tape -o small.tape",
        "racetape minimise bug.tape -o small.tape --script small.txt",
        "racetape record wrong-zone-small --config smp2 --script small.txt -o again.tape",
    )
)
@tape_argument
@output_option
@click.option("--script", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the schedule in words.")
@click.option("--runs", type=click.IntRange(1), help="Most runs to make (default: 20000).")
@json_option
def minimise(tape: Path, output: Path, script: Path | None, runs: int | None, as_json: bool) -> None:
    """Find the fewest choices that make the failure of TAPE happen again, and record that.

    In the end no single choice can be left out, no held store let go, no run be made shorter by one step.
    """
    from racetape.minimise import print_report, run_minimise

    if output.resolve() == tape.resolve():
        raise UsageError(f"{output} is the tape to be minimised: name another for the result")
    with opened(tape) as rows:
        answer = run_minimise(rows, output, script, runs)
    if as_json:
        emit(answer)
    else:
        print_report(answer)


@click.command(epilog=epilog("racetape replay bug.tape"))
@tape_argument
@json_option
def replay(tape: Path, as_json: bool) -> None:
    """Run TAPE again, checking state hashes on the way, and print what the guest printed."""
    from debugger.freed import use_of_freed_page
    from racetape.progress import ticking
    from replayer import replay as replay_tape

    with opened(tape) as recording:
        with ticking("replaying", recording.end_step) as tick:
            result = replay_tape(recording, tick)
        freed = use_of_freed_page(recording)
    if as_json:
        emit(
            {
                "tape": str(tape),
                "steps": result.steps,
                "stop": result.stop,
                "exit_status": result.exit_status,
                "freed_use": freed,
                "state_hash": f"{result.state_hash:016x}",
                "memory_hash": f"{result.memory_hash:016x}",
                "hashes_compared": result.hashes,
                "unfinished": result.unfinished,
                "console": result.console,
            }
        )
    else:
        click.echo(result.console, nl=not result.console.endswith("\n"))
        click.echo(
            f"{tape}: replayed {result.steps:,} steps, {result.hashes} state hashes equal; final state "
            f"{result.state_hash:016x}; {describe_stop(result.stop, result.exit_status)}"
        )
        if freed:
            click.echo(freed)
    finish(recording, 0)


@click.command(epilog=epilog("racetape verify bug.tape", "racetape verify bug.tape --json"))
@tape_argument
@json_option
def verify(tape: Path, as_json: bool) -> None:
    """Check every byte of TAPE, replay it, and compare every event and state hash.

    Exit status 1 if the replay differs from the recording, 2 if the file is damaged.
    """
    from racetape.progress import ticking
    from replayer import verify as verify_tape
    from traces import Tape

    with Tape(tape) as recording, ticking("verifying", recording.end_step) as tick:
        report = verify_tape(recording, tick)
    if as_json:
        emit(
            {
                "tape": str(tape),
                "ok": report.ok,
                "steps": report.steps,
                "hashes": report.hashes,
                "events": report.events,
                "checkpoints": report.checkpoints,
                "unfinished": report.unfinished,
                "first_differing_step": report.divergence.step if report.divergence else None,
                "damage": [str(row) for row in report.damage],
                "divergence": str(report.divergence) if report.divergence else None,
            }
        )
    elif report.ok:
        click.echo(f"{tape}: verified {report.steps:,} steps, {report.events:,} events, {report.hashes} state hashes")
    else:
        sys.exit(fail(describe_problems(report)) if report.damage else fail(describe_problems(report), EXIT_FOUND))
    if report.damage:
        sys.exit(EXIT_BAD)
    finish(recording, EXIT_FOUND if report.divergence else 0)


def describe_problems(report: VerifyReport) -> str:
    """What verify found, in one line, with the first step that differs where there is one."""
    problems = [str(row) for row in report.damage]
    if report.divergence is not None:
        problems.append(f"{report.divergence}; first differing step @{report.divergence.step}")
    elif report.repaired:
        problems.append("the damage changes nothing that runs: no step differs")
    return "; ".join(problems)


@click.command(
    "first-divergence",
    epilog=epilog(
        "racetape first-divergence bug.tape --counter NR_ISOLATED_FILE",
        "racetape first-divergence bug.tape --counter 'contig_page_data.node_zones[1].vm_stat[NR_FREE_PAGES]' --json",
    ),
)
@tape_argument
@click.option("--counter", required=True, help="A vmstat item (every zone is watched) or a C lvalue of the guest.")
@json_option
def first_divergence(tape: Path, counter: str, as_json: bool) -> None:
    """Find the first event that made a counter wrong, the first that made it negative, and who was misled first.

    Exit status 1 if there is one, 0 if the counter stays true.
    """
    from debugger.divergence import first_divergence as find

    with opened(tape) as recording:
        report = find(recording, counter)
    if as_json:
        emit(report.json())
    else:
        click.echo(report.text())
    finish(recording, EXIT_FOUND if report.found else 0)


@click.command(
    epilog=epilog(
        "racetape debug bug.tape",
        "racetape debug bug.tape -ex 'seek end' -ex 'watch vm_stat[NR_ISOLATED_FILE]' -ex reverse-continue --batch",
    )
)
@tape_argument
@click.option("-ex", "commands", multiple=True, metavar="COMMAND", help="Run a debugger command; may be repeated.")
@click.option("--batch", "-batch", is_flag=True, help="Exit after the commands; status 2 if one fails.")
def debug(tape: Path, commands: tuple[str, ...], batch: bool) -> None:
    """Travel in time through TAPE at a prompt ('help' there lists the commands)."""
    from debugger.prompt import run

    sys.exit(run(tape, commands, batch))
