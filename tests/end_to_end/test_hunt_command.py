"""`racetape hunt`: answers, exit status, tapes, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from racetape.cli import main

SMALL = ["wrong-zone-small", "--config", "smp2", "--strategy", "random-walk"]
FIX = ["--variant", "fix-7454f4ba40b4"]
CRASHES = ["--endings-only", "--seed", "6"]
"""Soon a crash, and within 250 schedules others."""


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
    assert [command[1] for command in commands] == ["first-divergence", "minimise", "debug"]
    assert main(commands[0][1:]) == 1
    assert "acct_isolated" in capfd.readouterr().out
    assert main(commands[1][1:]) == 0
    assert "0 of " in capfd.readouterr().out  # on UP the bug needs no schedule
    command = [sys.executable, "-m", *commands[2], "-ex", "seek end", "-ex", "when"]
    debugged = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert "(100.0%" in debugged.stdout


def test_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tape = tmp_path / "bug.tape"
    status, out, _ = run(capfd, *SMALL, *CRASHES, "--jobs", "1", "--json", "-o", str(tape))
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
    arguments = [*SMALL, *CRASHES, "--all", "--budget", "250", "--json"]
    status, out, _ = run(capfd, *arguments, "-o", str(tmp_path / "bug.tape"))
    failures = json.loads(out)["failures"]
    assert status == 1
    assert [row["tape"] for row in failures[:2]] == [str(tmp_path / "bug.tape"), str(tmp_path / "bug-2.tape")]
    assert all(Path(row["tape"]).exists() for row in failures)
    causes = {row["cause"] for row in failures}
    assert "exception 14 in __list_del" in causes
    assert any(re.fullmatch(r"mm/vmscan\.c:\d+", cause) for cause in causes)


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
    journal = tmp_path / "long.hunt"
    process = subprocess.Popen(
        [*command, "--resume", str(journal), "-o", str(tmp_path / "bug.tape")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not journal.exists() or '"schedules": 0,' in journal.read_text():  # it is still being set up
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "nothing failed in" in out
    assert "interrupted: this is about the schedules up to there" in out
    assert "Traceback" not in err


def test_minimise_and_its_script(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tape, small, script, again = (tmp_path / name for name in ("bug.tape", "small.tape", "small.txt", "again.tape"))
    assert run(capfd, *SMALL, *CRASHES, "-o", str(tape))[0] == 1
    assert main(["minimise", str(tape), "-o", str(small), "--script", str(script), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["cause"] == "exception 14 in __list_del"
    assert answer["complete"]
    assert 0 < answer["choices"] <= 8 < answer["choices_before"]
    assert answer["script"] == script.read_text()
    assert len(answer["script"]) < 1000
    assert " runs to " in answer["script"]
    assert main(["record", *SMALL[:3], "--script", str(script), "-o", str(again)]) == 1
    assert again.read_bytes() == small.read_bytes()
    capfd.readouterr()
    assert main(["minimise", str(small), "-o", str(tmp_path / "smaller.tape")]) == 0
    out = capfd.readouterr().out
    assert f"{answer['choices']} of " in out
    assert "racetape debug" in out


def test_minimise_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clean, cut = tmp_path / "clean.tape", tmp_path / "cut.tape"
    assert main(["record", "wrong-zone-small", *FIX, "-o", str(clean)]) == 0
    cut.write_bytes(clean.read_bytes()[:-2000])
    for arguments, message in (
        ([str(clean), "-o", str(tmp_path / "x.tape")], "nothing to minimise"),
        ([str(cut), "-o", str(tmp_path / "x.tape")], "cut"),
        ([str(clean), "-o", str(clean)], "name another"),
        ([str(tmp_path / "none"), "-o", str(tmp_path / "x.tape")], "No such file"),
    ):
        capfd.readouterr()
        assert main(["minimise", *arguments]) == 2
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_bad_scripts_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "bad.txt"
    script.write_text("cpu0 runs 10\ncpu7 runs 10\n")
    for arguments, message in (
        (["--script", str(script)], "line 2 of the script: there is no cpu7"),
        (["--script", str(tmp_path / "none")], "No such file"),
        (["--script", str(script), "--strategy", "pct"], "goes with no --strategy"),
    ):
        capfd.readouterr()
        assert main(["record", *SMALL[:3], *arguments, "-o", str(tmp_path / "x.tape")]) == 2
        err = capfd.readouterr().err
        assert message in err
        assert err.count("\n") == 1
