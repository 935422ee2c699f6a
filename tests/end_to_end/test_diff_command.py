"""`racetape diff` as one uses it: words, JSON, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from racetape.cli import main


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diff") / "good.tape"
    assert main(["record", "window", "-o", str(path)]) == 0
    return path


def test_two_runs_that_differ(good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["diff", str(good), "gallery:window"]) == 1
    text = capfd.readouterr().out
    assert "up to there both do the same" in text
    assert "first value that differs: load of 4 bytes, shared" in text
    assert "add_to_shared () at scenarios/window.c:35" in text
    jump = next(line for line in text.splitlines() if line.startswith(f"    racetape debug {good}"))
    position = jump.rsplit("@", 1)[1].rstrip("'")
    assert main(["debug", str(good), "-ex", f"seek @{position}", "--batch"]) == 0
    assert "add_to_shared () at scenarios/window.c:35" in capfd.readouterr().out


def test_the_same_as_json(good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(good), "gallery:window", "--json", "--values", "1"]) == 1
    answer = json.loads(capfd.readouterr().out)
    assert (answer["same"], answer["images"], len(answer["values"])) == (False, "alike", 1)
    assert answer["parting"]["why"] == "choice"
    assert answer["parting"]["a"]["step"] == answer["parting"]["b"]["step"]
    assert answer["values"][0]["name"] == "shared"
    assert answer["headers"] == {"strategy": {"a": "default", "b": "script"}}


def test_two_runs_that_are_the_same(good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(good), str(good)]) == 0
    assert capfd.readouterr().out.endswith("both did the same\n")


def test_trouble_is_a_line_and_status_2(good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = good.read_bytes()
    cut, damaged = tmp_path / "cut.tape", tmp_path / "damaged.tape"
    cut.write_bytes(data[:-20])
    damaged.write_bytes(data[:-4000] + bytes([data[-4000] ^ 1]) + data[-3999:])
    for other, said in ((cut, "the tape is cut"), (damaged, "damaged"), (tmp_path / "none", "no such"), (tmp_path, "")):
        capfd.readouterr()
        assert main(["diff", str(good), str(other)]) == 2
        error = capfd.readouterr().err
        assert said in error.lower()
        assert error.count("\n") == 1
    assert main(["diff", str(good)]) == 2


def test_two_ways_to_the_same(tmp_path: Path, good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Schedules that differ, and no task notices."""
    script = tmp_path / "script.txt"
    script.write_text("cpu1 runs 3 instructions\n")
    assert main(["record", "window", "--script", str(script), "-o", str(tmp_path / "other.tape")]) == 0
    capfd.readouterr()
    assert main(["diff", str(good), str(tmp_path / "other.tape")]) == 1
    text = capfd.readouterr().out
    assert "the runs part at @" in text
    assert "no value differs" in text
