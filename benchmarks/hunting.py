"""How fast schedules are made and how soon bugs are found: `python -m benchmarks.hunting`.

CPU time of one process. Schedules are compared with the same scenario's default schedule, run again and again from the
same snapshot by the same machine: what choosing, stopping and judging cost on top of executing. Litmus tests are
counted beside their executions under x86-TSO, which is what stateless model checkers visit (one for each reads-from
and coherence order at best); programs of theirs beside the numbers they have published (published.py).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from statistics import median
from typing import Any, Final

from benchmarks.published import programs, run_all
from debugger.checks import scenario_counters
from machine import _core
from recorder.hunt import Hunt, endings_only, hunt
from recorder.hunt.systematic import Systematic
from recorder.hunt.trial import Trial
from recorder.litmus import assemble, explore, parse, parse_file, reduce
from recorder.litmus.bundled import find
from recorder.record import prepare
from recorder.schedule import Strategy
from recorder.strategies import strategy

SCENARIOS: Final = (
    ("window", "fixed", "smp2-2level"),
    ("vmstat-lost-update", "fixed", "smp2-2level"),
    ("dirty-bit", "fix-d52605d7cb30", "smp2-2level"),
    ("class-flip", "fix-fc280fe87144", "up-2level"),
    ("wrong-zone-small", "fix-7454f4ba40b4", "smp2-2level"),
)
STRATEGIES: Final = ("default", "pos", "pct", "surw", "random-walk")
BUGGY: Final = (
    ("window", "smp2-2level"),
    ("vmstat-lost-update", "smp2-2level"),
    ("dirty-bit", "smp2-2level"),
    ("compound-publish", "smp2-2level"),
    ("class-flip", "up-2level"),
    ("exit-race", "smp2-2level"),
    ("wrong-zone-small", "smp2-2level"),
)
TORN: Final = "wrong-zone-small"
"""Its counters are wrong in every schedule; what needs one is the torn list behind that, with a BUG or an oops."""
LITMUS: Final = (
    "sb",
    "mp",
    "lb",
    "22w",
    "n5",
    "n6",
    "n7",
    "wrc",
    "rwc",
    "iriw",
    "n2",
    "peterson",
    "spinlock",
    "ticket",
)


def rate(run: Callable[[], object], seconds: float) -> float:
    """Calls in a second of CPU time, after one that does not count."""
    run()
    calls, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        run()
        calls += 1
    return calls / spent


def speeds(seconds: float) -> list[dict[str, Any]]:
    """Schedules a second by scenario and strategy."""
    out = []
    for scenario, variant, configuration in SCENARIOS:
        prepared = prepare(scenario, variant, configuration)
        trial = Trial(prepared)
        row: dict[str, Any] = {"scenario": scenario, "configuration": configuration}
        profile = prepared.profile(visible=True)
        row["steps"], row["visible"] = profile.step_count, max(map(sum, profile.visible.values()))
        for name in STRATEGIES:
            planner = strategy(name)
            prepared.introduce(planner)
            row[name] = rate(partial(_one, trial, planner, count()), seconds)
        out.append(row)
    return out


def _one(trial: Trial, planner: Strategy, seeds: Iterator[int]) -> None:
    trial.run(planner, next(seeds))


def sharing(schedules: int) -> dict[str, Any]:
    """What a bounded search spares by going on from states that runs share."""
    prepared = prepare("wrong-zone-small", "fix-7454f4ba40b4", "smp2-2level")
    systematic = Systematic(prepared, "bounded", 1)
    started, done = time.process_time(), 0
    made = shared = 0
    while not systematic.exhausted and done < schedules:
        done += systematic.block(done, 32, every=True).schedules
        if systematic.explorer is not None:
            made, shared = systematic.explorer.steps_made, systematic.explorer.steps_shared
    spent = time.process_time() - started
    extent = systematic.extent()
    return {
        "schedules": done,
        "given_up": extent.given_up,
        "seconds": spent,
        "visible_steps": extent.visible_steps,
        "made": made,
        "shared": shared,
    }


def litmus(seconds: float) -> list[dict[str, Any]]:
    """Schedules by DPOR, beside all there are."""
    out = []
    for assembled in assemble([parse_file(path) for name in LITMUS for path in find(name)]):
        reduction = reduce(assembled)
        everything = explore(assembled)
        machine = reduction.engine.machine

        def again(machine: _core.Machine = machine, start: _core.Snapshot = reduction.start) -> None:
            machine.restore(start)
            explorer = _core.Explorer(machine, frames_max=4096)
            while explorer.next() is not None:
                pass

        out.append(
            {
                "test": assembled.test.name,
                "finals": len(reduction.finals),
                "schedules": reduction.schedules,
                "given_up": reduction.blocked,
                "all": everything.schedules,
                "rate": rate(again, seconds) * (reduction.schedules + reduction.blocked),
            }
        )
    return out


def _generated(count: int, threads: int, length: int) -> Iterator[str]:
    """Random programs in herd's format, always the same ones: loads, stores and fences of two words (three threads:
    three)."""
    r = random.Random(threads)
    places = "xyz"[:threads]
    for number in range(count):
        cells = []
        for thread in range(threads):
            registers, rows = iter(("eax", "ebx", "ecx", "edx")), []
            for index in range(length):
                kind, place = r.random(), r.choice(places)
                if kind < 0.1:
                    rows.append("mfence")
                elif kind < 0.55:
                    rows.append(f"movl ({place}),%{next(registers)}")
                else:
                    rows.append(f"movl ${10 * thread + index + 1},({place})")
            cells.append(rows)
        table = [" | ".join(f"P{thread}" for thread in range(threads))]
        table += [" | ".join(row) for row in zip(*cells, strict=True)]
        initial = " ".join(f"{place}=0;" for place in places)
        yield f"X86 generated{number}\n{{ {initial} }}\n" + " ;\n".join(table) + " ;\n"


def generated(count: int) -> list[dict[str, Any]]:
    """How long it takes to find all final states of generated tests, by state and by DPOR."""
    out = []
    for threads, length in ((2, 4), (3, 3)):
        tests = assemble([parse(text, "generated") for text in _generated(count, threads, length)])
        by_state, by_class, finals = [], [], 0
        for test in tests:
            started = time.process_time()
            states = explore(test)
            by_state.append(time.process_time() - started)
            started = time.process_time()
            reduction = reduce(test)
            by_class.append(time.process_time() - started)
            if reduction.cut or set(reduction.finals.values()) != set(states.finals.values()):
                raise ValueError(f"{test.test.name}: the searches disagree")
            finals += len(states.finals)
        out.append(
            {
                "threads": threads,
                "accesses": length,
                "tests": count,
                "finals": finals,
                "by_state": max(by_state),
                "by_class": max(by_class),
            }
        )
    return out


def published() -> list[dict[str, Any]]:
    """Runs of DPOR, beside the executions that others have published for the same programs."""
    out = []
    for program in programs():
        started = time.process_time()
        explorer = run_all(program)
        out.append(
            {
                "program": program.name,
                "source": program.source,
                "model": "tso" if program.tso else "sc",
                "published": program.executions,
                "schedules": explorer.runs,
                "given_up": explorer.blocked,
                "seconds": time.process_time() - started,
            }
        )
    return out


def found(seeds: int) -> list[dict[str, Any]]:
    """How many schedules and seconds it takes to find each bug with default settings, over the seeds."""
    out = []
    for scenario, configuration in BUGGY:
        schedules, seconds, missed = [], [], 0
        for seed in range(seeds):
            checks = endings_only if scenario == TORN else scenario_counters
            what = Hunt(scenario, None, configuration, seed=seed, schedules=20_000, checks=checks)
            started = time.process_time()
            verdict = hunt(what)
            seconds.append(time.process_time() - started)
            schedules.append(verdict.tally.schedules)
            missed += not verdict.found
        out.append(
            {
                "scenario": scenario,
                "configuration": configuration,
                "seeds": seeds,
                "missed": missed,
                "median": median(schedules),
                "worst": max(schedules),
                "worst_seconds": max(seconds),
            }
        )
    return out


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hunting", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter: some ten seconds")
    parser.add_argument("--seeds", type=int, help="hunts for each bug (default 20, quick 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    seconds = 0.1 if arguments.quick else 1.0
    seeds = arguments.seeds or (3 if arguments.quick else 20)
    answer = {
        "speeds": speeds(seconds),
        "sharing": sharing(200 if arguments.quick else 1 << 30),
        "litmus": litmus(seconds / 4),
        "generated": generated(50 if arguments.quick else 500),
        "published": published(),
        "found": found(seeds),
    }
    if arguments.json:
        print(json.dumps(answer))
        return
    _print(answer)


def _print(answer: dict[str, Any]) -> None:
    print("schedules a second of CPU time (and of that of the default schedule)")
    print(f"{'':34}{'steps':>8}{'visible':>9}" + "".join(f"{name:>17}" for name in STRATEGIES))
    for row in answer["speeds"]:
        cells = "".join(f"{row[name]:>10,.0f} ({row[name] / row['default']:4.2f})" for name in STRATEGIES)
        print(f"{row['scenario'] + ' ' + row['configuration']:34}{row['steps']:>8,}{row['visible']:>9,}{cells}")
    row = answer["sharing"]
    whole = (row["schedules"] + row["given_up"]) * row["visible_steps"]
    print(
        f"\nbounded search, wrong-zone-small: {row['schedules']:,} schedules and {row['given_up']:,} given up in "
        f"{row['seconds']:.1f} s; {row['made'] / max(whole, 1):.1%} of their visible steps were executed"
    )
    print("\nlitmus test     final states  schedules  given up  all schedules  schedules/s")
    for row in answer["litmus"]:
        print(
            f"{row['test']:15}{row['finals']:>13}{row['schedules']:>11,}{row['given_up']:>10,}{row['all']:>15,}"
            f"{row['rate']:>13,.0f}"
        )
    print("\ngenerated tests                    final states  slowest, by state  slowest, by dpor")
    for row in answer["generated"]:
        what = f"{row['tests']} of {row['threads']} threads of {row['accesses']}"
        print(f"{what:35}{row['finals']:>12,}{row['by_state']:>17.3f} s{row['by_class']:>16.3f} s")
    print("\nprogram               model  published by            executions  schedules  given up")
    for row in answer["published"]:
        print(
            f"{row['program']:22}{row['model']:7}{row['source']:24}{row['published']:>10,}{row['schedules']:>11,}"
            f"{row['given_up']:>10,}"
        )
    print("\nbug                               seeds  not found  schedules: median  worst  worst, s of CPU")
    for row in answer["found"]:
        print(
            f"{row['scenario'] + ' ' + row['configuration']:33}{row['seeds']:>6}{row['missed']:>11}"
            f"{row['median']:>19,.0f}{row['worst']:>7,}{row['worst_seconds']:>18.2f}"
        )


if __name__ == "__main__":
    main()
