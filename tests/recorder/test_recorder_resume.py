"""A hunt that is interrupted and resumed comes to what the same hunt in one go comes to."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from debugger.checks import scenario_counters
from machine.errors import RacetapeError, UsageError
from recorder.hunt import Failure, Found, Hunt, Search, Tally, Verdict, endings_only, hunt
from recorder.hunt.resume import Journal

SMALL = {"scenario": "wrong-zone-small", "configuration": "smp2-2level", "strategy": "random-walk", "seed": 0}
FIX = "fix-7454f4ba40b4"


def contents(verdict: Verdict) -> tuple[object, ...]:
    tally = verdict.tally
    return verdict.result, tally.schedules, tally.steps, tally.stops, tally.found, tally.states


def stop_after(schedules: int) -> Callable[[Tally], None]:
    def stop(tally: Tally) -> None:
        if tally.schedules >= schedules:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("jobs", [1, 2])
def test_the_answer_does_not_depend_on_interruptions(jobs: int, every: bool, tmp_path: Path) -> None:
    what = Hunt(**SMALL, schedules=220, every=every, jobs=jobs)
    whole = hunt(what)
    assert whole.result == "failed"
    parts = dataclasses.replace(what, resume=tmp_path / "a.hunt")
    for done in (1, 100):
        part = hunt(parts, stop_after(done))
        assert part.interrupted
        assert part.tally.schedules >= done
    last = hunt(parts)
    assert (last.interrupted, last.resumed) == (False, part.tally.schedules)
    assert contents(last) == contents(whole)
    again = hunt(parts)  # all is done: nothing is run
    assert again.resumed == again.tally.schedules
    assert contents(again) == contents(whole)
    assert again.first_failure_seconds == last.first_failure_seconds


def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    what = Hunt(**SMALL, variant=FIX, schedules=70)
    parts = dataclasses.replace(what, resume=tmp_path / "a.hunt", schedules=30)
    assert hunt(parts).tally.schedules == 30
    assert contents(hunt(dataclasses.replace(parts, schedules=70))) == contents(hunt(what))
    with pytest.raises(UsageError, match="holds 70 schedules already, more than the budget of 30"):
        hunt(parts)


def test_time_ends_one_command_not_the_hunt(tmp_path: Path) -> None:
    parts = Hunt(**SMALL, variant=FIX, schedules=100, resume=tmp_path / "a.hunt", seconds=0.1)
    done = [hunt(parts).tally.schedules for _ in range(3)]
    assert 0 < done[0] < done[1] < done[2] <= 100
    assert contents(hunt(dataclasses.replace(parts, seconds=None))) == contents(
        hunt(Hunt(**SMALL, variant=FIX, schedules=100))
    )


def test_all_of_a_tally_is_kept(tmp_path: Path) -> None:
    """Each field of Tally, filled in: one that is added and not written fails here."""
    found = Found(7, 2**64 - 1, Failure("a cause", 'a "text" \u2026'), 123)
    kinds = Counter({("pct", 2, False, True): 5, ("pos", 0, True, False): 4})
    stops, classes = Counter(exit=8, steps=1), {2**64 - 1: 3, 0: 8}
    tally = Tally(9, 2**40, stops, {"a cause": found}, {0, 1, 2**64 - 1}, classes, 2**65535 + 1, kinds)
    empty = Tally()
    for field in dataclasses.fields(Tally):
        if field.name != "interrupted":  # of one command, not of the hunt
            assert getattr(tally, field.name) != getattr(empty, field.name)
    what = Hunt(**SMALL, schedules=10)
    Journal(tmp_path / "a.hunt", {}, Verdict(what, None, tally, seconds=1.5, first_failure_seconds=0.5))  # type: ignore[arg-type]
    back = Verdict(what, None)  # type: ignore[arg-type]
    Journal(tmp_path / "a.hunt", {}, back)
    assert back.tally == tally
    assert (back.seconds, back.first_failure_seconds, back.resumed) == (1.5, 0.5, 9)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "a.hunt"
    hunt(Hunt(**SMALL, variant=FIX, schedules=1, resume=path))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "of another hunt: there seed is 0, here 1"),
        ({"strategy": "pct"}, "there strategy is 'random-walk', here 'pct'"),
        ({"scenario": "compact-small"}, "there scenario is 'wrong-zone-small'"),
        ({"variant": "seed-wmb"}, "there variant is"),
        ({"configuration": "smp2-pae"}, "there configuration is"),
        ({"every": True}, "there every is False, here True"),
        ({"step_max": 1_900_000}, "there step_max is"),
        ({"checks": lambda prepared: ()}, "there checks is 'recorder.hunt.checks.endings_only'"),
    ],
)
def test_another_hunt_is_refused(change: dict[str, Any], message: str, written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(UsageError, match=message):
        hunt(Hunt(**{**SMALL, "variant": FIX, "schedules": 1, "resume": written, **change}))
    assert written.read_bytes() == before


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The file with another body, and its right checksum."""
    body = json.loads(path.read_bytes().splitlines()[1])
    change(body)
    text = json.dumps(body).encode()
    path.write_bytes(b"racetape hunt 1 " + sha256(text).hexdigest().encode() + b"\n" + text + b"\n")


def other_image(body: dict[str, Any]) -> None:
    body["hunt"]["image"] = "0" * 64


def other_version(body: dict[str, Any]) -> None:
    body["hunt"]["tool"] = "racetape 99"


def other_build(body: dict[str, Any]) -> None:
    body["hunt"]["first_schedule"]["steps"] += 1


def nothing_found(body: dict[str, Any]) -> None:
    del body["found"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_image, "there image is '0000"),
        (other_version, "there tool is 'racetape 99'"),
        (other_build, "another build of racetape"),
        (nothing_found, "damaged: it holds no hunt"),
        (dict.clear, "damaged: it holds no hunt"),
    ],
)
def test_another_build_is_refused(change: Callable[[dict[str, Any]], None], message: str, written: Path) -> None:
    rewritten(written, lambda body: None)
    hunt(Hunt(**SMALL, variant=FIX, schedules=1, resume=written))
    rewritten(written, change)
    with pytest.raises(UsageError, match=message):
        hunt(Hunt(**SMALL, variant=FIX, schedules=1, resume=written))


def test_a_damaged_file_is_refused(written: Path) -> None:
    whole = written.read_bytes()
    damaged = [whole[:n] for n in (0, 5, 60, 100, len(whole) - 2)]
    damaged += [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(0, len(whole) - 1, 97)]
    for data in damaged:
        written.write_bytes(data)
        with pytest.raises(UsageError, match=r"is damaged|is no state of a hunt"):
            Journal(written, {}, Verdict(Hunt(**SMALL), None))  # type: ignore[arg-type]
        assert written.read_bytes() == data


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    def no_run(tally: Tally) -> None:
        raise AssertionError("a block was run")

    for path, message in (
        (tmp_path / "none" / "a.hunt", "No such file"),
        (tmp_path, "no file"),
        (Path("/dev/full"), "no file"),
    ):
        with pytest.raises(RacetapeError, match=message):
            hunt(Hunt(**SMALL, variant=FIX, resume=path), no_run)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_block_is_counted_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal arrives between two lines of Tally.add: the block counts as a whole."""
    real = Tally.add
    blocks = 0

    def add(self: Tally, other: Tally) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 2:
            signal.raise_signal(signal.SIGINT)
        real(self, other)

    monkeypatch.setattr(Tally, "add", add)
    what = Hunt(**SMALL, variant=FIX, schedules=200, resume=tmp_path / "a.hunt")
    verdict = hunt(what)
    assert verdict.interrupted
    assert verdict.tally.schedules == 64
    assert contents(hunt(what)) == contents(hunt(dataclasses.replace(what, resume=None)))


def test_the_first_schedule_that_stands_for_the_build_is_not_counted(written: Path) -> None:
    alone = Search(Hunt(**SMALL, variant=FIX).prepare(), "random-walk", 0, endings_only(None))  # type: ignore[arg-type]
    body = json.loads(written.read_bytes().splitlines()[1])
    assert body["schedules"] == 1
    assert body["steps"] == body["hunt"]["first_schedule"]["steps"] == alone.block(0, 1, every=True).steps


BOUNDED: dict[str, Any] = {
    "scenario": "wrong-zone-small",
    "configuration": "smp2-2level",
    "strategy": "bounded",
    "bound": 1,
    "schedules": 100_000,
    "checks": scenario_counters,
    "every": True,
}


def test_a_bounded_hunt_goes_on_behind_the_last_whole_number_of_deviations(tmp_path: Path) -> None:
    whole = hunt(Hunt(**BOUNDED))
    assert len(whole.found) > 1
    parts = Hunt(**BOUNDED, resume=tmp_path / "b.hunt")
    first = hunt(dataclasses.replace(parts, bound=0))
    assert (first.tally.schedules, first.resumed) == (1, 0)
    part = hunt(parts, stop_after(200))
    assert part.interrupted
    assert part.resumed == 1
    last = hunt(parts)
    assert (last.interrupted, last.resumed) == (False, 1)
    assert contents(last) == contents(whole)
    again = hunt(parts)
    assert again.resumed == again.tally.schedules
    assert contents(again) == contents(whole)
    assert again.extent == last.extent == whole.extent
    tapes = []
    for name, verdict in (("again", again), ("whole", whole)):
        number = verdict.found[0].number
        path = tmp_path / f"{name}.tape"
        verdict.prepared.record(path, strategy="bounded", seed=0, made=verdict.made[number])
        tapes.append(path.read_bytes())
    assert tapes[0] == tapes[1]


def test_a_bounded_hunt_that_failed_is_over(tmp_path: Path) -> None:
    parts = Hunt("window", strategy="bounded", schedules=1000, resume=tmp_path / "w.hunt")
    first = hunt(parts)
    assert (first.result, first.resumed) == ("failed", 0)
    again = hunt(parts)
    assert again.resumed == again.tally.schedules == first.tally.schedules
    assert contents(again) == contents(first)
    assert set(again.made) == {first.found[0].number}


def test_what_a_bounded_hunt_does_not_go_on_from(tmp_path: Path) -> None:
    path = tmp_path / "w.hunt"
    parts = Hunt("window", strategy="bounded", schedules=1000, resume=path)
    hunt(parts)
    with pytest.raises(UsageError, match="another hunt: there strategy is 'bounded', here 'pos'"):
        hunt(dataclasses.replace(parts, strategy="pos"))
    with pytest.raises(UsageError, match="goes on from state to state"):
        hunt(dataclasses.replace(parts, strategy="dpor", resume=tmp_path / "d.hunt"))
    head, _, body = path.read_bytes().partition(b"\n")
    broken = json.loads(body)
    del broken["levels"]["made"]
    text = json.dumps(broken).encode()
    path.write_bytes(head[: -len(sha256().hexdigest())] + sha256(text).hexdigest().encode() + b"\n" + text + b"\n")
    with pytest.raises(UsageError, match="damaged: it holds no bounded hunt"):
        hunt(parts)
