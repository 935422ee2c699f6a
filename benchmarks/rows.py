"""The table: which measurements there are, which ratios are formed of them, what the targets are."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any, Final

Round = dict[str, dict[str, float]]
"""One round: task name -> figures (`seconds`, `instructions`, ...)."""

MILLION: Final = 1e6


@dataclass(frozen=True)
class Task:
    """One measurement of each round.

    Attributes:
        name: how `Ratio` and the history call it.
        runner: "unicorn", "native" or "racetape".
        what: the driver's mode, or a name of `racetape_runs.MEASUREMENTS`.
        guest: which one runs.
        quick: whether `--quick` has it.
        label: for the table of speeds.
    """

    name: str
    runner: str
    what: str
    guest: str
    quick: bool
    label: str


TASKS: Final = (
    Task("native", "native", "", "workload", True, "native"),
    Task("quiet", "racetape", "quiet", "workload", True, "racetape, no tap"),
    Task("unicorn", "unicorn", "plain", "workload", True, "unicorn from C, no hooks"),
    Task("tap", "racetape", "tap", "workload", True, "racetape, every event in memory"),
    Task("unicorn-hooks", "unicorn", "hooks", "workload", True, "unicorn from C, code and memory hooks"),
    Task("unicorn-values", "unicorn", "values", "workload", False, "unicorn from C, hooks with loaded values"),
    Task("tape", "racetape", "tape", "workload", False, "racetape, recorded to a tape"),
    Task("shared-quiet", "racetape", "quiet", "shared-page", True, "racetape, code and hot data on one page, no tap"),
    Task("shared-tap", "racetape", "tap", "shared-page", True, "racetape, code and hot data on one page, events"),
    Task("smp-quiet", "racetape", "quiet", "smp", True, "racetape, code with LOCK prefixes, one CPU, no tap"),
    Task("two-quiet", "racetape", "interleaved_quiet", "smp2", True, "racetape, two CPUs in turn, held, no tap"),
    Task("smp-tap", "racetape", "tap", "smp", True, "racetape, code with LOCK prefixes, one CPU, events"),
    Task("two-tap", "racetape", "interleaved_tap", "smp2", True, "racetape, two CPUs in turn, held, events"),
    Task("quiet-64", "racetape", "quiet", "workload64", True, "64-bit: racetape, no tap"),
    Task("unicorn-64", "unicorn", "plain", "workload64", True, "64-bit: unicorn from C, no hooks"),
    Task("tap-64", "racetape", "tap", "workload64", True, "64-bit: racetape, every event in memory"),
    Task("unicorn-hooks-64", "unicorn", "hooks", "workload64", True, "64-bit: unicorn from C, code and memory hooks"),
    Task("tape-64", "racetape", "tape", "workload64", False, "64-bit: racetape, recorded to a tape"),
    Task("smp-tap-64", "racetape", "tap", "smp64", False, "64-bit: racetape, LOCK prefixes, one CPU, events"),
    Task("two-tap-64", "racetape", "interleaved_tap", "smp2-64", False, "64-bit: racetape, two CPUs in turn, events"),
    Task("boot-quiet", "racetape", "quiet", "boot", False, "boot of wrong-zone: racetape, no tap"),
    Task("boot-unicorn", "unicorn", "plain", "boot", False, "boot of wrong-zone: unicorn, no hooks"),
    Task("boot-tap", "racetape", "tap", "boot", False, "boot of wrong-zone: racetape, every event in memory"),
    Task("boot-unicorn-hooks", "unicorn", "hooks", "boot", False, "boot of wrong-zone: unicorn, hooks"),
    Task("snapshot", "racetape", "snapshot_and_restore", "workload", True, ""),
    Task("call", "racetape", "call_overhead", "workload", True, ""),
)
"""In the order of a round: what is compared stands together, since the machine's own speed drifts."""


@dataclass(frozen=True)
class Ratio:
    """Speed of one task over that of another in the same round; at least `target` is wanted, if there is one.

    With `wall` the first one's is by the clock on the wall: what counts if it uses several threads.
    """

    label: str
    over: str
    under: str
    target: float | None
    wall: bool = False


RATIOS: Final = (
    Ratio("every event in memory / unicorn with hooks", "tap", "unicorn-hooks", 10),
    Ratio("every event in memory / unicorn, no hooks", "tap", "unicorn", 1.8),
    Ratio("no tap / unicorn, no hooks", "quiet", "unicorn", 3.5),
    Ratio("tape in one thread / unicorn with hooks", "tape", "unicorn-hooks", 7),
    Ratio("tape by the wall clock / unicorn with hooks", "tape", "unicorn-hooks", 10, wall=True),
    Ratio("two CPUs in turn / one CPU, events", "two-tap", "smp-tap", 0.5),
    Ratio("two CPUs in turn / one CPU, no tap", "two-quiet", "smp-quiet", 0.5),
    Ratio("code and hot data on one page / apart, events", "shared-tap", "tap", 0.5),
    Ratio("code and hot data on one page / apart, no tap", "shared-quiet", "quiet", 0.5),
    Ratio("64-bit: every event in memory / unicorn with hooks", "tap-64", "unicorn-hooks-64", 10),
    Ratio("64-bit: every event in memory / unicorn, no hooks", "tap-64", "unicorn-64", 1.8),
    Ratio("64-bit: no tap / unicorn, no hooks", "quiet-64", "unicorn-64", 3.5),
    Ratio("64-bit: tape in one thread / unicorn with hooks", "tape-64", "unicorn-hooks-64", 7),
    Ratio("64-bit: two CPUs in turn / one CPU, events", "two-tap-64", "smp-tap-64", 0.5),
    Ratio("boot: every event in memory / unicorn with hooks", "boot-tap", "boot-unicorn-hooks", None),
    Ratio("boot: every event in memory / unicorn, no hooks", "boot-tap", "boot-unicorn", None),
    Ratio("boot: no tap / unicorn, no hooks", "boot-quiet", "boot-unicorn", None),
    Ratio("every event in memory / no tap", "tap", "quiet", None),
    Ratio("native / no tap", "native", "quiet", None),
)


@dataclass(frozen=True)
class Figure:
    """A plain figure of one task, divided by another of it or by a constant; at most `target` is wanted."""

    label: str
    task: str
    value: str
    divisor: str | float
    target: float | None


FIGURES: Final = (
    Figure("tape, bytes an instruction", "tape", "tape_bytes", "instructions", 1.0),
    Figure("64-bit: tape, bytes an instruction", "tape-64", "tape_bytes", "instructions", 1.0),
    Figure("tape, bytes an event", "tape", "tape_bytes", "events", None),
    Figure("snapshot after 100 touched pages, us", "snapshot", "snapshot_us", 1, 50),
    Figure("restore after 100 touched pages, us", "snapshot", "restore_us", 1, 50),
    Figure("execute from Python, one step, us", "call", "step_ns", 1000, 1),
    Figure("execute from Python, empty plan, us", "call", "empty_ns", 1000, None),
    Figure("data accesses and walks an instruction", "tap", "events", "instructions", None),
    Figure("two CPUs: steps an instruction", "two-tap", "steps", "instructions", None),
)


def speed(figures: dict[str, float], wall: bool = False) -> float:
    """Million guest instructions a second of CPU time, or by the clock on the wall."""
    return figures["instructions"] / figures["wall_seconds" if wall else "seconds"] / MILLION


def summary(rounds: list[Round]) -> dict[str, Any]:
    """All medians: speeds by task, ratios and figures by label, each of the latter two with its target and verdict."""
    done = rounds[0]
    return {
        "mips": {
            task.name: round(median(speed(r[task.name]) for r in rounds), 2)
            for task in TASKS
            if task.label and task.name in done
        },
        "ratios": {
            row.label: _judged(
                [speed(r[row.over], row.wall) / speed(r[row.under]) for r in rounds], row.target, at_most=False
            )
            for row in RATIOS
            if row.over in done and row.under in done
        },
        "figures": {
            row.label: _judged([_value(r[row.task], row) for r in rounds], row.target, at_most=True)
            for row in FIGURES
            if row.task in done
        },
    }


def _value(figures: dict[str, float], row: Figure) -> float:
    divisor = figures[row.divisor] if isinstance(row.divisor, str) else row.divisor
    return figures[row.value] / divisor


def _judged(values: list[float], target: float | None, *, at_most: bool) -> dict[str, Any]:
    """The median, what it ranges over, and whether it is good enough."""
    value = median(values)
    row: dict[str, Any] = {"value": round(value, 3), "low": round(min(values), 3), "high": round(max(values), 3)}
    if target is not None:
        row |= {"target": target, "at_most": at_most, "met": value <= target if at_most else value >= target}
    return row


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    labels = {task.name: task.label for task in TASKS}
    lines = [f"{'million guest instructions a second of CPU time':<56}{'Mi/s':>10}"]
    lines += [f"  {labels[name]:<54}{value:>10.1f}" for name, value in result["mips"].items()]
    lines += ["", f"{'ratios within a round':<56}{'median':>10}{'low - high':>15}{'target':>9}"]
    lines += [_line(label, row, "x") for label, row in result["ratios"].items()]
    lines += ["", f"{'figures':<56}{'median':>10}{'low - high':>15}{'target':>9}"]
    lines += [_line(label, row, "") for label, row in result["figures"].items()]
    return "\n".join(lines)


def _line(label: str, row: dict[str, Any], unit: str) -> str:
    line = f"  {label:<54}{row['value']:>9.2f}{unit or ' '}" + f"{row['low']:.2f} - {row['high']:.2f}".rjust(15)
    if "target" in row:
        line += f"{'<=' if row['at_most'] else '>=':>4}{row['target']:>5g}  {'met' if row['met'] else 'missed'}"
    return line
