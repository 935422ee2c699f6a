"""How many deviations each bug takes, and that nothing is left of it with as many once it is fixed: all schedules are
made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from debugger.checks import scenario_counters
from machine import images
from racetape.cli import main
from recorder.hunt import Hunt, Verdict, hunt

DEVIATIONS = {
    "window": 1,
    "vmstat-lost-update": 1,
    "compound-publish": 1,
    "class-flip": 1,
    "exit-race": 2,
    "mremap-flush": 2,
    "dirty-bit": 3,
}


def search(scenario: str, variant: str, bound: int, jobs: int = 1) -> Verdict:
    what = Hunt(
        scenario,
        variant,
        strategy="bounded",
        bound=bound,
        schedules=1_000_000,
        checks=scenario_counters,
        jobs=jobs,
    )
    return hunt(what)


@pytest.mark.parametrize("scenario", sorted(DEVIATIONS))
def test_the_fix_is_exhausted_where_the_bug_is(scenario: str) -> None:
    buggy, fixed, *_others = images.scenario(scenario).variants
    bound = DEVIATIONS[scenario]
    found = search(scenario, buggy, bound)
    assert found.result == "failed"
    assert found.extent is not None
    assert found.extent.deviations == bound - 1  # none with fewer
    clean = search(scenario, fixed, bound)
    assert clean.result == "exhausted"
    assert clean.extent is not None
    assert (clean.extent.deviations, clean.extent.cut) == (bound, "")


@pytest.mark.parametrize(
    ("scenario", "buggy", "clean"), [("soft-offline", "buggy", "fix-5db8a73a8d7c"), ("collapse", "buggy", "fixed")]
)
def test_what_needs_no_schedule_fails_at_once_and_none_is_left(scenario: str, buggy: str, clean: str) -> None:
    """Clean in one deviation more than it takes to fail."""
    for configuration in images.scenario(scenario).configurations:
        what = Hunt(scenario, buggy, configuration, strategy="bounded", bound=1, checks=scenario_counters)
        (found,) = hunt(replace(what, schedules=1_000_000)).found
        zone = "DMA32" if configuration.endswith("x86_64") else "HighMem"
        assert (found.number, found.failure.cause) == (0, f"{zone} NR_ISOLATED_ANON is negative")
        assert hunt(replace(what, variant=clean, schedules=1_000_000)).result == "exhausted"


@pytest.mark.parametrize("configuration", images.scenario("split").configurations)
def test_splitting_is_clean_but_with_a_mark_that_the_hardware_sees(configuration: str) -> None:
    """On UP nobody else is there to see it."""
    what = Hunt("split", "fixed", configuration, strategy="bounded", bound=1, schedules=1_000_000)
    what = replace(what, checks=scenario_counters)
    assert hunt(what).result == "exhausted"
    planted = hunt(replace(what, variant="buggy"))
    if configuration.startswith("up"):
        assert planted.result == "exhausted"
    else:
        assert "what was written to a page that is being split is not there" in planted.found[0].failure.text


def test_a_planted_window_is_found_within_a_thousand_schedules() -> None:
    """Over 200 seeds: two accesses between a thousand private instructions on each CPU."""
    schedules = []
    prepared = None
    for seed in range(200):
        what = Hunt("window", "buggy", "smp2-2level", seed=seed, schedules=1000)
        if prepared is None:
            prepared = what.prepare()
        tally = what.search(prepared).block(0, 1000, every=False)
        assert tally.found
        schedules.append(tally.schedules)
    assert max(schedules) <= 100


def test_any_number_of_processes_leads_to_the_same_shortest_tape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug that the first block of schedules does not hit."""
    hashes = []
    for jobs in (1, 8):
        path, small = tmp_path / f"{jobs}.tape", tmp_path / f"small-{jobs}.tape"
        assert main(["hunt", "exit-race", "--seed", "2", "--jobs", str(jobs), "-o", str(path), "--json"]) == 1
        (failure,) = json.loads(capsys.readouterr().out)["failures"]
        assert failure["schedule"] > 32
        assert main(["minimise", str(path), "-o", str(small), "--json"]) in (0, 1)
        capsys.readouterr()
        hashes.append((failure["schedule"], path.read_bytes(), small.read_bytes()))
    assert hashes[0] == hashes[1]
