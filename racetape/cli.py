"""The command line: parses, calls the engine, prints. Decides nothing.

Exit status: 0 done or nothing found, 1 a failure was found or a comparison differs, 2 bad usage or bad input. Errors
are one line on standard error, never a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from machine.errors import RacetapeError, UsageError

if TYPE_CHECKING:
    # Imported where they are used: --help and a mistyped option should not wait for numpy and drgn.
    from replayer import VerifyReport
    from traces import Tape

EXIT_FOUND: Final = 1
EXIT_BAD: Final = 2
EXIT_INTERRUPTED: Final = 130

variant_option = click.option("--variant", help="Variant of the guest (default: the scenario's first).")
configuration_option = click.option(
    "--config", "configuration", help="CPUs, paging: smp2-pae, up-x86_64... (default: as reported)."
)
output_option = click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Tape to write."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


class Commands(click.Group):
    """Lists commands in the order in which one uses them, not alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def epilog(*examples: str) -> str:
    """The examples at the end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


def emit(data: Any) -> None:
    """Print a JSON answer."""
    click.echo(json.dumps(data, indent=2))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=epilog(
        "racetape demo                                   the June 2011 bug, recorded, replayed and explained",
        "racetape record wrong-zone -o bug.tape          record a scenario",
        "racetape first-divergence bug.tape --counter NR_ISOLATED_FILE",
        "racetape debug bug.tape                         travel in time",
    ),
)
@click.version_option(package_name="racetape", prog_name="racetape")
def racetape() -> None:
    """Deterministic record/replay race debugger for x86 kernel code."""


@racetape.command(epilog=epilog("racetape scenarios", "racetape scenarios --json"))
@json_option
def scenarios(as_json: bool) -> None:
    """List the bundled scenarios with their variants and configurations."""
    from machine import images

    rows = [
        {
            "name": row.name,
            "summary": row.summary,
            "variants": list(row.variants),
            "configurations": list(row.configurations),
        }
        for row in images.scenarios()
    ]
    if as_json:
        emit(rows)
        return
    for row in rows:
        click.echo(f"{row['name']}\n    {row['summary']}")
        click.echo(f"    variants:       {', '.join(row['variants'])}")
        click.echo(f"    configurations: {', '.join(row['configurations'])}")


@racetape.command(
    epilog=epilog(
        "racetape record wrong-zone -o bug.tape",
        "racetape record wrong-zone --variant fix-7454f4ba40b4 -o fixed.tape",
        "racetape record wrong-zone-small --config smp2-2level --strategy random-walk --seed 7 -o smp.tape",
    )
)
@click.argument("scenario")
@variant_option
@configuration_option
@click.option(
    "--strategy",
    default="default",
    show_default=True,
    help="Who plans the schedule (default, portfolio, pct, random-walk, module:Class).",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Seed of the strategy.")
@click.option("--script", type=click.Path(path_type=Path), help="File with a schedule in words (docs/hunt.md).")
@click.option("--whole", is_flag=True, help="Record events from reset on, not only after set-up.")
@output_option
@json_option
def record(
    scenario: str,
    variant: str | None,
    configuration: str | None,
    strategy: str,
    seed: int,
    script: Path | None,
    whole: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Run SCENARIO under a schedule and record it to a tape.

    Exit status 1 if the guest fails by itself (BUG, triple fault, deadlock).
    """
    from machine import images
    from racetape.progress import ticking
    from recorder import Strategy, prepare
    from recorder.places import guest_symbols
    from recorder.strategies.script import Script, parse_choices

    if seed and strategy == "default":
        raise UsageError("--seed is for strategies that use chance: the default one makes no random choice")
    row = images.scenario(scenario)
    prepared = prepare(scenario, variant, configuration)
    planned: str | Strategy = strategy
    if script is not None:
        if strategy != "default":
            raise UsageError("--script is a schedule by itself: it goes with no --strategy")
        choices = parse_choices(script.read_text(errors="replace"), prepared.machine.cpus)
        planned = Script(choices, guest_symbols(prepared.machine, prepared.image))
    with ticking("recording", row.step_max) as tick:
        summary = prepared.record(output, strategy=planned, seed=seed, whole=whole, progress=tick)
    if as_json:
        emit(
            {
                "tape": str(summary.path),
                "outcome": summary.outcome,
                "stop": summary.stop,
                "exit_status": summary.exit_status,
                "ready_step": summary.ready_step,
                "steps": summary.steps,
                "events": summary.events,
                "state_hash": f"{summary.state_hash:016x}",
                "memory_hash": f"{summary.memory_hash:016x}",
                "size_bytes": summary.size_bytes,
                "console": summary.console,
            }
        )
    else:
        click.echo(
            f"{summary.path}: {prepared.scenario} ({prepared.variant}, {prepared.configuration}), "
            f"{summary.steps:,} steps, {summary.events:,} events after set-up at @{summary.ready_step}, "
            f"{summary.size_bytes:,} bytes"
        )
        click.echo(f"{summary.outcome}: {describe_stop(summary.stop, summary.exit_status)}")
        if row.counters:
            click.echo("whether its counters are true, say:")
        for counter in row.counters:
            click.echo(f"    racetape first-divergence {summary.path} --counter {counter}")
    if summary.outcome == "failed":
        sys.exit(EXIT_FOUND)
    if summary.stop == "interrupted":
        sys.exit(EXIT_INTERRUPTED)


@racetape.command(
    epilog=epilog(
        "racetape hunt wrong-zone-small --config smp2 -o bug.tape",
        "racetape hunt wrong-zone-small --variant fix-7454f4ba40b4 --budget 2000 --jobs 2 -o bug.tape",
        "racetape hunt dirty-bit --variant fix-d52605d7cb30 --strategy bounded --bound 2 --budget 1000000 -o bug.tape",
        "racetape hunt wrong-zone-small --config smp2 --all --seconds 30 --json -o bug.tape",
        "racetape hunt shootdown --config smp2 --budget 100000 --resume long.hunt -o bug.tape",
        "racetape hunt shootdown --config smp2 --budget 100000 --cluster scheduler:8786 -o bug.tape",
    )
)
@click.argument("scenario")
@variant_option
@configuration_option
@click.option(
    "--strategy",
    default="portfolio",
    show_default=True,
    help="Who plans the schedules: portfolio, pct, pos, surw, random-walk, module:Class draw them; bounded and dpor go "
    "through them.",
)
@click.option("--bound", type=click.IntRange(0), help="For bounded: most deviations from the default order.")
@click.option("--budget", default=1000, show_default=True, type=click.IntRange(1), help="Most schedules to run.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Most time to take.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="Seed of the hunt.")
@click.option("--jobs", type=click.IntRange(1), help="Processes; the answer is the same (default: one a CPU).")
@click.option("--all", "every", is_flag=True, help="Go on after a failure: a tape for each different cause.")
@click.option("--endings-only", is_flag=True, help="Leave the scenario's counters alone: only BUG, faults, deadlock.")
@click.option("--cluster", metavar="ADDRESS", help="Dask scheduler (host:port) whose workers run the schedules.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that keeps the hunt's state; if it exists, the hunt goes on from there.",
)
@output_option
@json_option
def hunt(
    scenario: str,
    variant: str | None,
    configuration: str | None,
    strategy: str,
    bound: int | None,
    budget: int,
    seconds: float | None,
    seed: int,
    jobs: int | None,
    every: bool,
    endings_only: bool,
    cluster: str | None,
    resume: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Run SCENARIO under many schedules until one fails, and record that one.

    A run fails if the guest reports a BUG or a fault, uses a page that it has freed, if every CPU waits or goes in
    circles for ever, or if one of the scenario's zone counters is negative or otherwise wrong in the end. Exit status 1
    if one failed.
    """
    from debugger.checks import scenario_counters
    from machine import images
    from racetape.hunt import print_report, run_hunt
    from recorder.hunt import Hunt
    from recorder.hunt import endings_only as no_checks

    row = images.scenario(scenario)
    row.image(row.configuration(configuration or "").name, variant or "")  # complains about what does not exist
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}")
    if cluster is not None and jobs is not None:
        raise UsageError("--jobs is for processes on this host: with --cluster it has no meaning")
    what = Hunt(
        scenario,
        variant,
        configuration,
        strategy=strategy,
        seed=seed,
        schedules=budget,
        seconds=seconds,
        every=every,
        jobs=jobs or min(os.cpu_count() or 1, budget),
        checks=no_checks if endings_only else scenario_counters,
        resume=resume,
        cluster=cluster,
        bound=bound,
    )
    verdict, answer = run_hunt(what, output)
    if as_json:
        emit(answer)
    else:
        print_report(verdict, answer)
    if verdict.interrupted:
        sys.exit(EXIT_INTERRUPTED)
    if answer["failures"]:
        sys.exit(EXIT_FOUND)


@racetape.command(
    epilog=epilog(
        "racetape matrix wrong-zone-small --budget 200",
        "racetape matrix wrong-zone-small --endings-only --budget 500 --config smp2-2level --config smp2-pae",
        "racetape matrix wrong-zone-small --strategy bounded --bound 1 --budget 100000 --config smp2-2level",
        "racetape matrix class-flip dirty-bit exit-race --config up-2level --config smp2-2level --budget 2000",
        "racetape matrix all --budget 50",
        "racetape matrix seed",
        "racetape matrix wrong-zone --variant buggy --variant fix-7454f4ba40b4 --budget 20 --json",
    )
)
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--variant", "variants", multiple=True, help="Only this variant; may be given several times.")
@click.option("--config", "configurations", multiple=True, help="Only this configuration; may be given several times.")
@click.option("--strategy", default="portfolio", show_default=True, help="As for hunt.")
@click.option("--bound", type=click.IntRange(0), help="As for hunt.")
@click.option("--budget", default=100, show_default=True, type=click.IntRange(1), help="Most schedules in each cell.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**64 - 1), help="As for hunt.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes; the answer is the same.")
@click.option("--all", "every", is_flag=True, help="Go on after a failure: how many causes there are in each cell.")
@click.option("--endings-only", is_flag=True, help="Leave the scenario's counters alone: only BUG, faults, deadlock.")
@json_option
def matrix(
    scenarios: tuple[str, ...],
    variants: tuple[str, ...],
    configurations: tuple[str, ...],
    strategy: str,
    bound: int | None,
    budget: int,
    seed: int,
    jobs: int,
    every: bool,
    endings_only: bool,
    as_json: bool,
) -> None:
    """Hunt in every variant and configuration of each SCENARIO: where does it fail, where not?

    `all` means every bundled scenario; `seed` settles what was suspected in June 2011, by all schedules of a bound.
    With several scenarios, those that lack a --variant or --config have no cell for it. Exit status 1 if it fails in
    one cell.
    """
    from debugger.checks import scenario_counters
    from racetape.matrix import print_matrix, run_matrix
    from recorder.hunt import Hunt
    from recorder.hunt import endings_only as no_checks

    if scenarios == ("seed",):
        from racetape.seed_matrix import print_seed_matrix, run_seed_matrix

        rows = run_seed_matrix(scenario_counters)
        if as_json:
            emit(rows)
        else:
            print_seed_matrix(rows)
        return
    what = Hunt(
        scenarios[0],
        strategy=strategy,
        seed=seed,
        schedules=budget,
        jobs=jobs,
        every=every,
        checks=no_checks if endings_only else scenario_counters,
        bound=bound,
    )
    cells = run_matrix(what, scenarios, variants, configurations)
    if as_json:
        emit(cells)
    else:
        print_matrix(cells)
    if any(cell["result"] == "failed" for cell in cells):
        sys.exit(EXIT_FOUND)


@contextmanager
def opened(path: Path) -> Iterator[Tape]:
    """The tape, with every chunk's checksum right: an answer from a damaged tape would be worth nothing."""
    from traces import Tape

    with Tape(path) as tape:
        for chunk in tape.chunks:
            tape.payload(chunk)
        if tape.damage is not None:
            raise tape.damage
        yield tape


def finish(tape: Tape, status: int) -> NoReturn:
    """Exit with `status`, or with 2 and a line if the tape was cut: what was printed holds for the part there is."""
    if tape.unfinished:
        sys.exit(fail(f"{tape.path}: the tape is cut; all of this is about the part up to @{tape.end_step}"))
    sys.exit(status)


def describe_stop(stop: str | None, exit_status: int | None) -> str:
    """Why a run ended, in words."""
    if stop == "exit":
        return f"the guest ended the run with status {exit_status:#x}" if exit_status else "the guest ended the run"
    return {
        None: "the tape is cut before the end of the run",
        "steps": "the step limit was reached before the guest ended the run",
        "interrupted": "recording was interrupted; the tape holds the run up to there",
        "idle": "every CPU waits and nothing can wake one: deadlock",
        "livelock": "those that do not wait go in circles: livelock",
        "freed": "a freed page was used",
        "shutdown": "triple fault",
    }.get(stop, f"stopped: {stop}")


tape_argument = click.argument("tape", type=click.Path(path_type=Path))


@racetape.command(
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


@racetape.command(epilog=epilog("racetape replay bug.tape"))
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


@racetape.command(epilog=epilog("racetape verify bug.tape", "racetape verify bug.tape --json"))
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


@racetape.command(
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


@racetape.command(
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


@racetape.command(
    epilog=epilog(
        "racetape litmus sb                              a bundled test: every final state under x86-TSO",
        "racetape litmus classic --model sc --table      all classic tests under sequential consistency",
        "racetape litmus mine.litmus tests/ --json       your own, in herd's format for X86 and X86_64",
        "racetape litmus n6 --witness                    a schedule that gets there, step by step",
    )
)
@click.argument("tests", nargs=-1, metavar="TEST...")
@click.option("--model", type=click.Choice(["tso", "sc", "up"]), default="tso", show_default=True, help="Memory model.")
@click.option(
    "--search",
    type=click.Choice(["states", "dpor"]),
    default="states",
    show_default=True,
    help="Go to every state, or (tso) make one schedule of each class of equivalent ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of text.")
@click.option("--witness", is_flag=True, help="Show a schedule that decides the condition.")
@click.option("--table", "as_table", is_flag=True, help="Print one line a test, without its states.")
@click.option("--condition", metavar="TEXT", help="Ask this instead, e.g. 'exists (0:rax=0 /\\ x=1)'.")
@click.option("--limit", type=click.IntRange(min=1), help="Most states, or schedules, of one test (default: 500,000).")
@click.option("--list", "as_list", is_flag=True, help="List the bundled tests.")
def litmus(
    tests: tuple[str, ...],
    model: str,
    search: str,
    as_json: bool,
    witness: bool,
    as_table: bool,
    condition: str | None,
    limit: int | None,
    as_list: bool,
) -> None:
    """Run every schedule of litmus tests on the machine and say what can come of them.

    TEST is a file, a folder, a bundled test or a group of those. Models: tso (x86-TSO), sc (sequential consistency), up
    (the threads preempt each other on one CPU). Exit status 1 if a test's claim (forall, ~exists, or its expectation
    for the model) is contradicted or a limit was hit, 2 if a test cannot be read or run.
    """
    from racetape.litmus import STATES_MAX, list_bundled, run_litmus

    if as_list:
        list_bundled()
        return
    if not tests:
        raise UsageError("which test? Name a file, a folder or a bundled test (`racetape litmus --list`)")
    states_max = STATES_MAX if limit is None else limit
    sys.exit(
        run_litmus(
            tests,
            model=model,
            as_json=as_json,
            witness=witness,
            as_table=as_table,
            condition=condition,
            states_max=states_max,
            search=search,
        )
    )


@racetape.command(epilog=epilog("racetape strip bug.tape -o small.tape"))
@tape_argument
@output_option
@json_option
def strip(tape: Path, output: Path, as_json: bool) -> None:
    """Copy TAPE without its derived layer: the schedule alone, which replays to the same hashes."""
    from traces import strip as strip_tape

    with opened(tape) as recording:
        size_bytes = strip_tape(recording, output)
    if as_json:
        emit({"tape": str(output), "size_bytes": size_bytes, "from": str(tape)})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes (was {tape.stat().st_size:,})")
    finish(recording, 0)


@racetape.command(epilog=epilog("racetape demo", "racetape demo --keep tapes/"))
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave the tapes in this folder.")
@json_option
def demo(keep: Path | None, as_json: bool) -> None:
    """Record, replay and explain the Linux bug of June 2011; everything printed is computed now."""
    from racetape.demo import run_demo

    sys.exit(run_demo(keep, as_json))


@racetape.command(epilog=epilog("racetape doctor", "racetape doctor --json"))
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation: packages that shadow racetape's, guest images, tools.

    Exit status 1 if something is wrong.
    """
    from racetape.doctor import examine

    findings = examine()
    if as_json:
        emit(findings.json())
    else:
        click.echo(findings.text())
    if findings.problems:
        sys.exit(EXIT_FOUND)


def fail(message: str, status: int = EXIT_BAD) -> int:
    """One line on standard error; returns the exit status to go with it."""
    print(f"racetape: {' '.join(message.split())}", file=sys.stderr)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    try:
        status = racetape.main(args=arguments, prog_name="racetape", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return EXIT_BAD
    except click.UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return fail(error.format_message() + hint)
    except click.ClickException as error:
        return fail(error.format_message())
    except RacetapeError as error:
        return fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        print("racetape: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        return fail("not enough memory: a machine needs address space for all of its guest's RAM (wrong-zone: 1 GiB)")
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, but nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return fail(f"{error.filename or 'input/output'}: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
