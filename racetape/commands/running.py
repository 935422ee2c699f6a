"""Commands that run a guest: record it, hunt in it, go through litmus tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from machine.errors import UsageError
from racetape.commands.common import (
    EXIT_FOUND,
    EXIT_INTERRUPTED,
    configuration_option,
    describe_stop,
    emit,
    epilog,
    json_option,
    output_option,
    variant_option,
)


@click.command(epilog=epilog("racetape scenarios", "racetape scenarios --json"))
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


@click.command(
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
@click.option("--sources", is_flag=True, help="Attach the guest's source files: `list` then works anywhere, for ever.")
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
    sources: bool,
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
        summary = prepared.record(output, strategy=planned, seed=seed, whole=whole, sources=sources, progress=tick)
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


@click.command(
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


@click.command(
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


@click.command(
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
