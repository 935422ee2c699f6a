"""racetape: record, replay and explain races in x86 kernel code.

    import racetape

    summary = racetape.record("wrong-zone", "buggy", None, "bug.tape")
    with racetape.open("bug.tape") as tape:
        report = racetape.first_divergence(tape, "NR_ISOLATED_FILE")
        print(report.text())
        timeline = racetape.Timeline(tape)
        timeline.seek(report.first_divergence.step)

The names below are the public interface; everything else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from debugger.diagnosis import diagnose
    from debugger.divergence import first_divergence
    from debugger.report import DivergenceReport, Moment
    from debugger.sql import sql
    from machine import BareMachine, Machine, Snapshot
    from machine.errors import (
        ArchiveError,
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
    from replayer import Rebuilt, ReplayResult, Timeline, VerifyReport, rebuild, replay, verify
    from replayer.diff import Difference, diff
    from traces import Events, Range, Selection, Tape, TapeWriter, strip
    from traces.archive import Archive, Search, create_archive, open_archive
    from traces.tape import open

__all__ = [
    "Archive",
    "ArchiveError",
    "BareMachine",
    "Difference",
    "DivergenceError",
    "DivergenceReport",
    "Events",
    "ExpressionError",
    "ImageError",
    "Machine",
    "Moment",
    "RacetapeError",
    "Range",
    "Rebuilt",
    "ReplayError",
    "ReplayResult",
    "Scenario",
    "Search",
    "Selection",
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
    "create_archive",
    "diagnose",
    "diff",
    "first_divergence",
    "open",
    "open_archive",
    "prepare",
    "rebuild",
    "record",
    "replay",
    "scenario",
    "scenarios",
    "sql",
    "strip",
    "verify",
]

_HOMES: Final = {
    "Archive": "traces.archive",
    "ArchiveError": "machine.errors",
    "BareMachine": "machine",
    "Difference": "replayer.diff",
    "DivergenceError": "machine.errors",
    "DivergenceReport": "debugger.report",
    "Events": "traces",
    "ExpressionError": "machine.errors",
    "ImageError": "machine.errors",
    "Machine": "machine",
    "Moment": "debugger.report",
    "RacetapeError": "machine.errors",
    "Range": "traces",
    "Rebuilt": "replayer",
    "ReplayError": "machine.errors",
    "ReplayResult": "replayer",
    "Scenario": "machine.images",
    "Search": "traces.archive",
    "Selection": "traces",
    "Snapshot": "machine",
    "Summary": "recorder",
    "Symbols": "machine.symbols",
    "Tape": "traces",
    "TapeDamagedError": "machine.errors",
    "TapeError": "machine.errors",
    "TapeWriter": "traces",
    "Timeline": "replayer",
    "UsageError": "machine.errors",
    "VerifyReport": "replayer",
    "create_archive": "traces.archive",
    "diagnose": "debugger.diagnosis",
    "diff": "replayer.diff",
    "first_divergence": "debugger.divergence",
    "open": "traces.tape",
    "open_archive": "traces.archive",
    "prepare": "recorder",
    "rebuild": "replayer",
    "record": "recorder",
    "replay": "replayer",
    "scenario": "machine.images",
    "scenarios": "machine.images",
    "sql": "debugger.sql",
    "strip": "traces",
    "verify": "replayer",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first used: the command line starts without numpy and drgn."""
    if name not in _HOMES:
        raise AttributeError(f"module 'racetape' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
