"""`racetape hunt`: answers, exit status, tapes, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from racetape.cli import main

SMALL = ["wrong-zone-small", "--config", "smp2", "--strategy", "random-walk"]
FIX = ["--variant", "fix-7454f4ba40b4"]


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    status = main(["hunt", *arguments])
    out, err = capfd.readouterr()
    return status, out, err


def test_the_founding_bug_is_found_and_its_tape_explains_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On the configuration of the reports, with default settings; each command that the answer names works."""
    tape = tmp_path / "bug.tape"
    status, out, err = run(capfd, "wrong-zone", "-o", str(tape))
    assert (status, err) == (1, "")
    assert "Normal NR_ISOLATED_" in out
    commands = [line.split() for line in out.splitlines() if line.startswith("    racetape ")]
    assert [command[1] for command in commands] == ["first-divergence", "debug"]
    assert main(commands[0][1:]) == 1
    assert "acct_isolated" in capfd.readouterr().out
    command = [sys.executable, "-m", *commands[1], "-ex", "seek end", "-ex", "when"]
    debugged = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert "(100.0%" in debugged.stdout


def test_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tape = tmp_path / "bug.tape"
    status, out, _ = run(capfd, *SMALL, "--endings-only", "--jobs", "1", "--json", "-o", str(tape))
    answer = json.loads(out)
    assert status == 1
    assert (answer["result"], answer["configuration"], answer["variant"]) == ("failed", "smp2-2level", "buggy")
    (failure,) = answer["failures"]
    assert failure["cause"] == "exception 14 in __list_del"
    assert "include/linux/list.h:" in failure["text"]
    assert answer["schedules"] == failure["schedule"] + 1
    assert failure["tape"] == str(tape)
    assert main(["verify", str(tape)]) == 0
    capfd.readouterr()
    again = ["record", *SMALL, "--seed", str(failure["seed"]), "-o"]
    assert main([*again, str(tmp_path / "again.tape")]) == 1
    assert (tmp_path / "again.tape").read_bytes() == tape.read_bytes()


def test_a_clean_hunt_says_what_it_leaves_open(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tape = tmp_path / "bug.tape"
    status, out, err = run(capfd, *SMALL, *FIX, "--budget", "60", "-o", str(tape))
    assert (status, err) == (0, "")
    assert "nothing failed in 60 schedules" in out
    assert "no proof" in out
    assert "0.049" in out  # 1 - 0.05^(1/60)
    assert not tape.exists()


def test_all_causes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL, "--endings-only", "--all", "--budget", "250", "--json"]
    status, out, _ = run(capfd, *arguments, "-o", str(tmp_path / "bug.tape"))
    failures = json.loads(out)["failures"]
    assert status == 1
    assert [row["tape"] for row in failures[:2]] == [str(tmp_path / "bug.tape"), str(tmp_path / "bug-2.tape")]
    assert all(Path(row["tape"]).exists() for row in failures)
    assert {"exception 14 in __list_del", "mm/vmscan.c:105"} <= {row["cause"] for row in failures}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no such scenario"),
        ([*SMALL, "--variant", "nonsense"], "no such variant"),
        (["wrong-zone-small", "--config", "nonsense"], "no such configuration"),
        ([*SMALL, "--strategy", "nonsense"], "unknown strategy"),
        ([*SMALL, "--strategy", "default"], "no random choice"),
        ([*SMALL, "--budget", "0"], "budget"),
        ([*SMALL, "--seconds", "0"], "seconds"),
        ([*SMALL, "--jobs", "0"], "jobs"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capfd, *arguments, "-o", str(tmp_path / "bug.tape"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_tape_that_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path, message in ((str(tmp_path / "none" / "bug.tape"), "there is no folder"), ("/dev/full", "No space left")):
        status, _, err = run(capfd, *SMALL, "-o", path)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_keeps_what_was_found(jobs: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "racetape", "hunt", *SMALL, *FIX, "--budget", "1000000", "--jobs", str(jobs)]
    process = subprocess.Popen(
        [*command, "-o", str(tmp_path / "bug.tape")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(6)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "nothing failed in" in out
    assert "interrupted: this is about the schedules up to there" in out
    assert "Traceback" not in err
