"""Systematic hunts: what they find, what they exhaust, and that they say how far they came."""

from __future__ import annotations

import json
from pathlib import Path

import mini
import pytest

from debugger.checks import scenario_counters
from machine.errors import UsageError
from racetape.cli import main
from recorder.hunt import Extent, Hunt, Verdict, hunt
from recorder.hunt.systematic import Systematic
from recorder.hunt.trial import Trial
from recorder.strategies import Default, Pos
from replayer import verify
from traces import Tape


def search(scenario: str, variant: str, strategy: str, **how: object) -> Verdict:
    return hunt(Hunt(scenario, variant, "smp2-2level", strategy=strategy, checks=scenario_counters, **how))  # type: ignore[arg-type]


def extent(verdict: Verdict) -> Extent:
    assert verdict.extent is not None
    return verdict.extent


@pytest.mark.parametrize("strategy", ["dpor", "bounded"])
def test_the_fixed_window_is_exhausted_and_the_planted_one_found(strategy: str) -> None:
    fixed = search("window", "fixed", strategy)
    assert fixed.result == "exhausted"
    assert extent(fixed).cut == ""
    assert fixed.tally.schedules < 50
    buggy = search("window", "buggy", strategy)
    assert buggy.result == "failed"
    assert "additions" in buggy.found[0].failure.text


def test_levels_come_in_order() -> None:
    """A store that is put off, or two changes of CPUs, lose an addition: the default schedule came before."""
    for bound, result in ((0, "exhausted"), (1, "failed"), (None, "failed")):
        verdict = search("window", "buggy", "bounded", bound=bound)
        assert verdict.result == result
        assert extent(verdict).deviations == 0


def test_a_kernel_scenario_is_exhausted_within_a_bound() -> None:
    verdict = search("dirty-bit", "fix-d52605d7cb30", "bounded", bound=1, schedules=100_000)
    assert verdict.result == "exhausted"
    assert extent(verdict).deviations == 1
    assert extent(verdict).held
    assert extent(verdict).words > 10
    assert verdict.tally.schedules > 40
    assert search("dirty-bit", "buggy", "bounded", bound=3, schedules=100_000).result == "failed"


def test_on_one_cpu_ticks_are_deviations() -> None:
    what = Hunt("class-flip", None, "up-2level", strategy="bounded", bound=1, schedules=100_000)
    verdict = hunt(what)
    assert verdict.result == "failed"
    assert extent(verdict).tasks
    assert not extent(verdict).held
    fixed = hunt(Hunt("class-flip", "fix-fc280fe87144", "up-2level", strategy="bounded", bound=1, schedules=100_000))
    assert fixed.result == "exhausted"
    assert extent(fixed).ticks == 1


def test_a_spent_budget_is_no_exhaustion() -> None:
    verdict = search("dirty-bit", "fix-d52605d7cb30", "bounded", bound=2, schedules=100)
    assert verdict.result == "budget"
    assert verdict.tally.schedules == 100
    assert not verdict.exhausted
    timed = search("dirty-bit", "fix-d52605d7cb30", "bounded", schedules=10**9, seconds=0.2)
    assert timed.result == "budget"
    assert timed.seconds < 20


def test_blocks_do_not_matter() -> None:
    """The same schedules in the same order, however many are asked for at a time."""
    ends = []
    for size in (1, 7, 1000):
        prepared = mini.prepared(2)
        systematic = Systematic(prepared, "bounded", 1)
        states: set[int] = set()
        schedules = 0
        while not systematic.exhausted and schedules < 60:
            block = systematic.block(schedules, min(size, 60 - schedules), every=True)
            schedules += block.schedules
            states |= block.states
        ends.append((schedules, states))
    assert ends[0] == ends[1] == ends[2]


def test_the_tape_is_of_the_run_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.tape"
    arguments = ["hunt", "window", "--strategy", "dpor", "-o", str(path), "--json"]
    assert main(arguments) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["result"] == "failed"
    assert answer["failures"][0]["tape"] == str(path)
    with Tape(path) as tape:
        assert verify(tape).ok
        assert tape.header.strategy == "dpor"
        assert tape.footer is not None
        assert tape.footer.steps == answer["failures"][0]["steps"]
    clean = ["hunt", "window", "--variant", "fixed", "--strategy", "bounded", "-o", str(path), "--json"]
    assert main(clean) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["result"] == "exhausted"
    assert {"deviations", "words", "visible_steps", "ticks", "held", "cut", "given_up"} <= set(answer["bound"])
    assert main(clean[:-1]) == 0
    assert "exhausted: every schedule with up to" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bound", "2"], "--strategy bounded"),
        (["--strategy", "dpor", "--bound", "2"], "neither deviations nor ticks"),
        (["--strategy", "dpor", "--resume", "x.hunt"], "--resume for those and for bounded"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hunt", "window", "-o", str(tmp_path / "w.tape"), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_livelock_is_a_failure_with_its_places(tmp_path: Path) -> None:
    prepared = mini.prepared(2, "V")
    strategy = Pos()
    prepared.introduce(strategy)
    ended = Trial(prepared).run(strategy, 1)
    assert ended.stop == "livelock"
    assert ended.failure is not None
    assert ended.failure.cause == "livelock: boot"
    assert "cpu0 in boot (" in ended.failure.text
    summary = prepared.record(tmp_path / "v.tape", strategy=Pos(), seed=1)
    assert (summary.stop, summary.outcome) == ("livelock", "failed")
    with Tape(tmp_path / "v.tape") as tape:
        assert verify(tape).ok
    assert Trial(prepared).run(Default(), 0).stop == "livelock"


def test_coverage_says_what_a_random_hunt_has_seen() -> None:
    verdict = search("window", "fixed", "portfolio", schedules=600)
    assert verdict.result == "budget"
    assert 2 <= len(verdict.tally.classes) < 20
    assert verdict.new_classes(300) == 0
    assert verdict.tally.pairs.bit_count() >= 1
    assert sum(verdict.tally.kinds.values()) == 600
    by_depth = {row.depth: row for row in verdict.pct_bounds()}
    assert set(by_depth) == {1, 2, 3}
    assert by_depth[1].escaped < 0.01
    assert by_depth[2].agents == 2
    with pytest.raises(UsageError, match="unknown strategy"):
        search("window", "fixed", "nobody")
