"""`racetape hunt --resume`: killed as often as one likes, the hunt comes to the same answer and the same tape."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from racetape.cli import main

CRASH = ["wrong-zone-small", "--config", "smp2", "--strategy", "random-walk", "--endings-only"]
BUDGET = "250"


def answered(answer: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on who ran it and when."""
    rows = [{**row, "tape": ""} for row in answer["failures"]]
    kept = {k: v for k, v in answer.items() if k not in ("seconds", "first_failure_seconds", "resumed")}
    return {**kept, "failures": rows}


def schedules_done(path: Path) -> int:
    return int(json.loads(path.read_bytes().splitlines()[1])["schedules"]) if path.exists() else 0


@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGKILL, "1"), (signal.SIGKILL, "2"), (signal.SIGINT, "1")])
def test_killed_and_resumed(number: int, jobs: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, tape, state = tmp_path / "whole.tape", tmp_path / "bug.tape", tmp_path / "state.hunt"
    command = ["hunt", *CRASH, "--all", "--budget", BUDGET, "--json", "--jobs", jobs]
    capfd.readouterr()
    assert main([*command, "-o", str(whole)]) == 1
    expected = json.loads(capfd.readouterr().out)
    resumed = [*command, "--resume", str(state), "-o", str(tape)]
    done = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "racetape", *resumed],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        before, waited = schedules_done(state), time.monotonic()
        while schedules_done(state) == before and process.poll() is None and time.monotonic() - waited < 60:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=60)
        if number == signal.SIGINT:
            # 1: it was through; or so far that Python itself was about to end, which takes no notice any more.
            assert process.returncode in (1, 130, -signal.SIGINT), err
        assert "Traceback" not in err
        done.append(schedules_done(state))
    assert 0 < done[0] <= done[1]
    assert done[0] < int(BUDGET)  # the first was killed before its end
    assert main(resumed) == 1
    answer = json.loads(capfd.readouterr().out)
    assert answer["resumed"] == done[1]
    assert answered(answer) == answered(expected)
    assert tape.read_bytes() == whole.read_bytes()
    if number == signal.SIGINT:
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_refusals_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, damaged = tmp_path / "state.hunt", tmp_path / "damaged.hunt"
    command = ["hunt", *CRASH, "--budget", "2", "-o", str(tmp_path / "bug.tape"), "--resume"]
    capfd.readouterr()
    assert main([*command, str(state)]) == 0
    assert "resumed" not in capfd.readouterr().out
    assert main([*command, str(state)]) == 0
    assert "resumed: 2 of the schedules were run before" in capfd.readouterr().out
    damaged.write_bytes(state.read_bytes()[:-9])
    for path, more, message in (
        (state, ["--seed", "8"], "of another hunt: there seed is 0, here 8"),
        (state, ["--budget", "1"], "more than the budget of 1"),
        (damaged, [], "damaged: its checksum is wrong"),
        (tmp_path / "none" / "state.hunt", [], "No such file"),
    ):
        assert main([*command, str(path), *more]) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert message in err
