"""Deadlocks: a hunt in a guest that takes two locks in either order, and who waits for what."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import mini
import pytest

from debugger.session import Session
from debugger.waits import cycle, waits
from racetape.cli import main
from replayer import Timeline
from traces import Tape

SOURCE = Path(mini.__file__).with_name("abba_guest.c")
LOCKED = ["cpu0 for cpu1, cpu1 for cpu0"]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's image."""
    folder = tmp_path_factory.mktemp("abba")
    (folder / "link").write_text(mini.LINK)
    flags = "-m32 -O1 -g -ffreestanding -nostdlib -static -no-pie -fno-pic -mgeneral-regs-only -fno-stack-protector"
    command = [
        "gcc",
        *flags.split(),
        "-Wl,--build-id=none,-T,link,--no-warn-rwx-segments",
        "-o",
        "abba.elf",
        str(SOURCE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "abba.elf"


@pytest.mark.parametrize("strategy", ["portfolio", "random-walk", "bounded"])
def test_a_hunt_names_the_cycle(guest: Path, tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tmp_path / "a.tape"
    assert main(["hunt", str(guest), "--strategy", strategy, "--budget", "3000", "--json", "-o", str(tape)]) == 1
    (failure,) = json.loads(capsys.readouterr().out)["failures"]
    assert failure["cause"].startswith("livelock: ")
    assert [line.removeprefix("cycle: ") for line in failure["waits"] if line.startswith("cycle")] == LOCKED
    said = "\n".join(failure["waits"])
    assert "reads second_lock = 0x1, which cpu1 made so @" in said
    assert "reads first_lock = 0x1, which cpu0 made so @" in said


def test_it_is_minimised_and_looked_at(guest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tape, small = str(tmp_path / "a.tape"), str(tmp_path / "small.tape")
    assert main(["hunt", str(guest), "-o", tape]) == 1
    assert "        cycle: cpu0 for cpu1, cpu1 for cpu0\n" in capsys.readouterr().out
    assert main(["minimise", tape, "-o", small, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["proved"]
    assert (answer["switches"], answer["held"]) == (1, 0)
    assert main(["verify", small]) == 0
    with Tape(small) as opened:
        timeline = Timeline(opened)
        timeline.seek(timeline.last_step)
        rows = waits(timeline)
        assert [row.state for row in rows] == ["spins", "spins"]
        assert cycle(rows) == [0, 1]
        made = {row.cpu: word.made.cpu for row in rows for word in row.words if word.made and word.read.value}
        assert made == {0: 1, 1: 0}
        session = Session(opened)
        assert session.execute("info waits").splitlines()[0].startswith("cpu0 runs: boot ()")
        assert "cycle" not in session.execute("info waits")


def test_who_halts_waits_for_nobody(guest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "halts.toml"
    scenario.write_text(f'image = "{guest}"\ncommand_line = "H"\n')
    tape = tmp_path / "h.tape"
    assert main(["hunt", str(scenario), "--json", "-o", str(tape)]) == 1
    (failure,) = json.loads(capsys.readouterr().out)["failures"]
    assert failure["cause"] == "deadlock"
    assert failure["waits"][0].startswith("cpu0 halts: take ()")
    assert failure["waits"][1].startswith("cpu1 halts: ")
    assert len(failure["waits"]) == 2


def test_other_failures_say_nothing_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hunt", "window", "--json", "-o", str(tmp_path / "w.tape")]) == 1
    assert json.loads(capsys.readouterr().out)["failures"][0]["waits"] == []
