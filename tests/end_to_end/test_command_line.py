"""The command line: shape of the answers, exit status, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
import pytest

from racetape.cli import main, racetape
from traces import Tape, TapeWriter

Tapes = dict[tuple[str, str, str], Path]
Damage = Callable[[bytearray, random.Random], None]
COUNTER = "NR_ISOLATED_FILE"


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    status = main(list(arguments))
    out, err = capfd.readouterr()
    return status, out, err


def assert_refused(status: int, err: str) -> None:
    """Exit status 2 and one line that names the program."""
    assert status == 2
    assert err.startswith("racetape: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def small(tapes: Tapes) -> Path:
    return tapes["wrong-zone-small", "buggy", "up-2level"]


def test_every_command_has_help_with_an_example() -> None:
    commands = dict(racetape.commands)
    for name, command in racetape.commands.items():
        if isinstance(command, click.Group):
            assert command.help, name
            del commands[name]
            commands |= {f"{name} {part}": row for part, row in command.commands.items()}
    for name, command in commands.items():
        assert command.help, name
        assert f"racetape {name}" in (command.epilog or ""), name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.name)


def test_scenarios_json(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capfd, "scenarios", "--json")
    rows = json.loads(out)
    assert status == 0
    assert {"wrong-zone", "wrong-zone-small"} <= {row["name"] for row in rows}
    for row in rows:
        assert set(row) == {"name", "summary", "variants", "configurations"}
        if row["name"].startswith("wrong-zone"):
            assert row["variants"][:3] == ["buggy", "fix-7454f4ba40b4", "seed-wmb"]
        assert row["configurations"][0].endswith("-2level")


def test_record_replay_verify(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tape = tmp_path / "a.tape"
    arguments = ["--config", "smp2-2level", "--strategy", "random-walk", "--seed", "3", "-o", str(tape), "--json"]
    status, out, _ = run(capfd, "record", "wrong-zone-small", *arguments)
    assert status == 0
    recorded = json.loads(out)
    status, out, _ = run(capfd, "replay", str(tape), "--json")
    replayed = json.loads(out)
    assert status == 0
    assert replayed["state_hash"] == recorded["state_hash"]
    assert replayed["console"] == recorded["console"]
    status, out, _ = run(capfd, "verify", str(tape), "--json")
    verified = json.loads(out)
    assert status == 0
    assert verified["ok"]
    assert verified["events"] == recorded["events"]


def test_same_run_same_tape(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tapes = [tmp_path / "a.tape", tmp_path / "b.tape"]
    for tape in tapes:
        run(capfd, "record", "wrong-zone-small", "--strategy", "random-walk", "--seed", "9", "-o", str(tape))
    assert tapes[0].read_bytes() == tapes[1].read_bytes()


def test_stripped_tape_replays_in_another_process(
    capfd: pytest.CaptureFixture[str], small: Path, tmp_path: Path
) -> None:
    stripped = tmp_path / "stripped.tape"
    assert run(capfd, "tape", "strip", str(small), "-o", str(stripped))[0] == 0
    assert stripped.stat().st_size < small.stat().st_size
    _, out, _ = run(capfd, "replay", str(small), "--json")
    other = subprocess.run(
        [sys.executable, "-m", "racetape.cli", "replay", str(stripped), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(other.stdout)["state_hash"] == json.loads(out)["state_hash"]
    assert json.loads(other.stdout)["memory_hash"] == json.loads(out)["memory_hash"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "no-such-scenario", "-o", "x.tape"],
        ["record", "wrong-zone-small", "--variant", "no-such", "-o", "x.tape"],
        ["record", "wrong-zone-small", "--config", "up-9level", "-o", "x.tape"],
        ["record", "wrong-zone-small", "--strategy", "luck", "-o", "x.tape"],
        ["record", "wrong-zone-small", "--seed", "minus", "-o", "x.tape"],
        ["record", "wrong-zone-small", "--seed", "5", "-o", "x.tape"],
        ["record", "wrong-zone-small", "-o", "no/such/folder/x.tape"],
        ["record", "wrong-zone-small", "-o", "/dev/full"],
        ["record", "wrong-zone-small"],
        ["replay", "no-such.tape"],
        ["verify", "no-such.tape"],
        ["debug", "no-such.tape", "--batch"],
        ["first-divergence", "no-such.tape", "--counter", COUNTER],
        ["tape", "strip", "no-such.tape", "-o", "x.tape"],
        ["replay", "/"],
        ["no-such-command"],
        ["scenarios", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_bad_usage(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capfd, *arguments)
    assert_refused(status, err)


@pytest.mark.parametrize(
    "counter",
    [
        "NR_NO_SUCH_ITEM",
        "no_such_variable",
        "vm_stat[",
        "",
        "contig_page_data",
        "1 + 1",
        "*0",
        "vm_stat[1000000]",
        "vm_stat[-1]",
        "contig_page_data.node_zones[3].vm_stat[0]",
        "current_task",
        "contig_page_data.node_zones[1].lru[2].list",
    ],
)
def test_bad_counter(capfd: pytest.CaptureFixture[str], small: Path, counter: str) -> None:
    status, _, err = run(capfd, "first-divergence", str(small), "--counter", counter)
    assert_refused(status, err)


@pytest.mark.parametrize(
    "command", ["seek nowhere", "seek @99999999999", "watch no_such", "x/zz 0", "print 1 +", "frobnicate"]
)
def test_bad_debugger_command(capfd: pytest.CaptureFixture[str], small: Path, command: str) -> None:
    status, _, err = run(capfd, "debug", str(small), "-ex", command, "--batch")
    assert status == 2
    assert err.strip()
    assert "Traceback" not in err


READERS = (
    ["replay", "{}"],
    ["verify", "{}"],
    ["first-divergence", "{}", "--counter", COUNTER],
    ["debug", "{}", "-ex", "when", "--batch"],
)


@pytest.mark.parametrize("reader", READERS, ids=lambda row: row[0])
@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"no tape at all\n" * 50, b"\x7fELF" + b"\x01" * 200])
def test_not_a_tape(capfd: pytest.CaptureFixture[str], tmp_path: Path, reader: list[str], content: bytes) -> None:
    path = tmp_path / "odd.tape"
    path.write_bytes(content)
    status, _, err = run(capfd, *[word.format(path) for word in reader])
    assert_refused(status, err)


def assert_all_refused(
    capfd: pytest.CaptureFixture[str],
    small: Path,
    folder: Path,
    damage: Damage,
    turns: int,
) -> None:
    """Whatever reads a damaged tape says so in one line and exits with 2; what it printed before holds for the rest."""
    whole = small.read_bytes()
    dice = random.Random(turns)
    path = folder / "damaged.tape"
    for turn in range(turns):
        data = bytearray(whole)
        damage(data, dice)
        path.write_bytes(data)
        reader = READERS[turn % len(READERS)]
        status, _, err = run(capfd, *[word.format(path) for word in reader])
        assert status == 2, (reader, len(data))
        assert "Traceback" not in err
        assert err.count("\n") == 1, err


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def flip(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("turns", [60, pytest.param(500, marks=pytest.mark.soak)])
def test_damaged_tapes(
    capfd: pytest.CaptureFixture[str],
    small: Path,
    tmp_path: Path,
    damage: Damage,
    turns: int,
) -> None:
    assert_all_refused(capfd, small, tmp_path, damage, turns)


@pytest.mark.parametrize("reader", READERS, ids=lambda row: row[0])
def test_tape_of_another_machine_state_version(
    capfd: pytest.CaptureFixture[str], small: Path, tmp_path: Path, reader: list[str]
) -> None:
    path = tmp_path / "other.tape"
    with Tape(small) as tape, TapeWriter(path) as writer:
        writer.begin(replace(tape.header, state_version=999), tape.image())
        for choices in tape.choices():
            writer.choices(choices.records, choices.end_step, choices.state_hash)
        assert tape.footer is not None
        writer.finish(tape.footer)
    status, _, err = run(capfd, *[word.format(path) for word in reader])
    assert_refused(status, err)
    assert "999" in err
