"""racetape: record, replay and explain races in x86 kernel code.

    import racetape

    summary = racetape.record("wrong-zone", "buggy", None, "bug.tape")
    with racetape.Tape("bug.tape") as tape:
        report = racetape.first_divergence(tape, "NR_ISOLATED_FILE")
        print(report.text())
        timeline = racetape.Timeline(tape)
        timeline.seek(report.first_divergence.step)

The names below are the public interface; everything else may change.
"""

from debugger.divergence import first_divergence
from debugger.report import DivergenceReport, Moment
from machine import Machine, Snapshot
from machine.errors import (
    DivergenceError,
    ExpressionError,
    ImageError,
    RacetapeError,
    ReplayError,
    TapeDamagedError,
    TapeError,
    UsageError,
)
from machine.images import Scenario, scenario, scenarios
from machine.symbols import Symbols
from recorder import Summary, prepare, record
from replayer import ReplayResult, Timeline, VerifyReport, replay, verify
from traces import Events, Tape, TapeWriter, strip

__all__ = [
    "DivergenceError",
    "DivergenceReport",
    "Events",
    "ExpressionError",
    "ImageError",
    "Machine",
    "Moment",
    "RacetapeError",
    "ReplayError",
    "ReplayResult",
    "Scenario",
    "Snapshot",
    "Summary",
    "Symbols",
    "Tape",
    "TapeDamagedError",
    "TapeError",
    "TapeWriter",
    "Timeline",
    "UsageError",
    "VerifyReport",
    "first_divergence",
    "prepare",
    "record",
    "replay",
    "scenario",
    "scenarios",
    "strip",
    "verify",
]
