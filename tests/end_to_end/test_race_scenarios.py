"""Scenarios that need a schedule: a hunt with default settings finds the bug, and nothing once it is fixed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from debugger.checks import scenario_counters
from machine import images
from racetape.cli import main
from recorder.hunt import Hunt, Verdict, hunt


@dataclass(frozen=True)
class Race:
    """A scenario with one bug: in what words a failing run says so, and how many schedules find it for any seed."""

    text: str
    schedules: int


RACES = {
    "window": Race("one of two additions to the shared word is lost", 3000),
}
CASES = [(name, configuration) for name in RACES for configuration in images.scenario(name).configurations]


def search(name: str, variant: str, configuration: str, schedules: int, seed: int = 0) -> Verdict:
    return hunt(
        Hunt(name, variant, configuration, seed=seed, schedules=schedules, checks=scenario_counters),
    )


@pytest.mark.parametrize(("name", "configuration"), CASES)
def test_it_is_found_and_its_fix_is_clean(name: str, configuration: str) -> None:
    race = RACES[name]
    buggy, fixed = images.scenario(name).variants
    verdict = search(name, buggy, configuration, race.schedules)
    (found,) = verdict.found
    assert race.text in found.failure.text
    schedules = max(4 * verdict.tally.schedules, 400)
    verdict = search(name, fixed, configuration, schedules)
    assert (verdict.result, verdict.tally.schedules) == ("budget", schedules)
    assert set(verdict.tally.stops) == {"exit"}


@pytest.mark.soak
@pytest.mark.parametrize(("name", "configuration"), CASES)
def test_any_seed_finds_it(name: str, configuration: str) -> None:
    buggy, fixed = images.scenario(name).variants
    for seed in range(100, 120):
        assert search(name, buggy, configuration, 20_000, seed).found
    assert not search(name, fixed, configuration, 20_000).found


@pytest.mark.parametrize("name", RACES)
def test_from_the_command_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the default schedule nothing fails; the tape of a schedule that does is of use to `minimise`."""
    assert main(["record", name, "-o", str(tmp_path / "clean.tape")]) == 0
    bug, small = str(tmp_path / "bug.tape"), str(tmp_path / "small.tape")
    assert main(["hunt", name, "--jobs", "1", "-o", bug]) == 1
    assert RACES[name].text in capfd.readouterr().out
    assert main(["minimise", bug, "-o", small, "--runs", "2000"]) == 0
    assert main(["verify", small]) == 0
