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
    """A scenario with one bug.

    Attributes:
        text: how a failing run says what is wrong.
        schedules: so many find it, for almost any seed.
        safe: the builds that cannot have it.
        counter, culprit: what first-divergence names, and where it sees it go wrong.
    """

    text: str
    schedules: int
    safe: tuple[str, ...] = ()
    counter: str = ""
    culprit: str = ""


RACES = {
    "class-flip": Race(
        "a page changed its class while isolated", 500, counter="NR_ISOLATED_FILE", culprit="putback_movable_pages"
    ),
    "compound-publish": Race("followed a first_page that is not its head", 5000),
    "dirty-bit": Race("D is lost", 5000, safe=("up",)),
    "vmstat-lost-update": Race(
        "an update was overwritten", 2000, safe=("up",), counter="NR_FILE_DIRTY", culprit="__inc_zone_state"
    ),
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
    safe = configuration.split("-")[0] in race.safe
    schedules = 1000
    if not safe:
        verdict = search(name, buggy, configuration, race.schedules)
        (found,) = verdict.found
        assert race.text in found.failure.text
        schedules = max(4 * verdict.tally.schedules, 400)
    for variant in (buggy, fixed) if safe else (fixed,):
        verdict = search(name, variant, configuration, schedules)
        assert (verdict.result, verdict.tally.schedules) == ("budget", schedules)
        assert set(verdict.tally.stops) == {"exit"}


@pytest.mark.soak
@pytest.mark.parametrize(("name", "configuration"), CASES)
def test_any_seed_finds_it(name: str, configuration: str) -> None:
    buggy, fixed = images.scenario(name).variants
    safe = configuration.split("-")[0] in RACES[name].safe
    for seed in range(100, 101 if safe else 120):
        assert bool(search(name, buggy, configuration, 20_000, seed).found) is not safe
    assert not search(name, fixed, configuration, 20_000).found


@pytest.mark.parametrize("name", RACES)
def test_from_the_command_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the default schedule nothing fails; the tape of a schedule that does is of use to the other commands."""
    assert main(["record", name, "-o", str(tmp_path / "clean.tape")]) == 0
    bug, small = str(tmp_path / "bug.tape"), str(tmp_path / "small.tape")
    assert main(["hunt", name, "--jobs", "1", "-o", bug]) == 1
    assert RACES[name].text in capfd.readouterr().out
    if RACES[name].counter:
        assert main(["first-divergence", bug, "--counter", RACES[name].counter]) == 1
        assert RACES[name].culprit in capfd.readouterr().out
    assert main(["minimise", bug, "-o", small, "--runs", "2000"]) == 0
    assert main(["verify", small]) == 0
