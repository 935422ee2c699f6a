"""What an archive is told of a tape: the signature is the cause that a hunt reports, from the tape alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from debugger.checks import scenario_counters
from debugger.diagnosis import diagnose
from debugger.divergence import first_divergence
from recorder.hunt import Hunt, hunt
from recorder.record import prepare
from traces import Tape


@pytest.mark.parametrize(
    ("scenario", "configuration", "schedules", "every"),
    [
        ("wrong-zone-small", "smp2-2level", 150, True),  # BUGs, faults, counters
        ("mremap-flush", "smp2-2level", 3000, False),  # a freed page
        ("vmstat-lost-update", "smp2-2level", 500, False),  # a counter that nothing but the end shows
    ],
)
def test_the_signature_is_the_cause_that_a_hunt_reports(
    scenario: str, configuration: str, schedules: int, every: bool, tmp_path: Path
) -> None:
    verdict = hunt(Hunt(scenario, None, configuration, schedules=schedules, every=every, checks=scenario_counters))
    assert verdict.found
    for row in verdict.found:
        path = tmp_path / "found.tape"
        made = verdict.made.get(row.number)
        verdict.prepared.record(path, strategy=verdict.hunt.strategy, seed=row.seed, made=made)
        with Tape(path) as tape:
            found = diagnose(tape)
        assert (found.signature, found.failure, found.note) == (row.failure.cause, row.failure.text, "")


def test_divergences_are_those_of_first_divergence(tmp_path: Path) -> None:
    prepared = prepare("wrong-zone-small", "buggy", "up-2level")
    prepared.record(tmp_path / "a.tape")
    ticks: list[tuple[int, int]] = []
    with Tape(tmp_path / "a.tape") as tape:
        found = diagnose(tape, lambda *row: ticks.append(row))
        assert found.signature is not None
        assert {row.counter for row in found.divergences} == {"NR_ISOLATED_ANON", "NR_ISOLATED_FILE"}
        for row in found.divergences:
            moment = first_divergence(tape, row.counter).first_divergence
            assert moment is not None
            assert (row.function, row.file, row.line, row.step) == (
                moment.function, moment.file, moment.line, moment.step,
            )  # fmt: skip
        assert ticks[-1] == (tape.end_step, tape.end_step)


def test_a_run_that_did_not_fail_has_no_signature(tmp_path: Path) -> None:
    prepared = prepare("wrong-zone-small", "fix-7454f4ba40b4", "up-2level")
    prepared.record(tmp_path / "a.tape")
    with Tape(tmp_path / "a.tape") as tape:
        found = diagnose(tape)
    assert (found.signature, found.failure, found.divergences, found.note) == (None, None, (), "")


def test_why_there_is_no_diagnosis(tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    prepare("window", None, None).record(path)
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with Tape(path) as tape:
        assert "cut" in diagnose(tape).note
