"""What `racetape minimise` writes: short, made of places, and still right when the guest has changed elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from machine import images
from racetape.cli import main
from recorder import prepare
from recorder.places import guest_symbols
from recorder.strategies.script import parse_choices, resolve, script_line
from traces import Tape

BUGS = ("window", "dirty-bit", "compound-publish", "class-flip", "vmstat-lost-update", "wrong-zone-small")


def minimised(name: str, folder: Path, capfd: pytest.CaptureFixture[str], seed: int = 0) -> dict[str, Any]:
    bug = str(folder / "bug.tape")
    assert main(["hunt", name, "--seed", str(seed), "--budget", "20000", "--jobs", "1", "-o", bug]) == 1
    capfd.readouterr()
    arguments = ["-o", str(folder / "small.tape"), "--script", str(folder / "small.txt"), "--json"]
    assert main(["minimise", bug, *arguments]) == 0
    answer: dict[str, Any] = json.loads(capfd.readouterr().out)
    return answer


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", BUGS)
def test_every_bug_is_said_in_a_few_words(
    name: str, seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = minimised(name, tmp_path, capfd, seed)
    script = tmp_path / "small.txt"
    assert answer["complete"]
    assert len(script.read_text()) <= 1024
    assert main(["record", name, "--script", str(script), "-o", str(tmp_path / "again.tape")]) == (
        0 if name == "wrong-zone-small" else 1  # whose counters are wrong while it ends well
    )
    with Tape(tmp_path / "small.tape") as small, Tape(tmp_path / "again.tape") as again:
        assert small.footer is not None
        assert small.footer == again.footer
    if name != "wrong-zone-small":  # by the default schedule
        assert " runs to " in answer["script"]


NOPS = 'asm volatile("nop; nop; nop");'
CHANGES = {
    "not executed": (
        "kernel/sched.c",
        "asmlinkage void schedule",
        f"void f(void) {{ {NOPS} }} asmlinkage void schedule",
    ),
    "executed": ("scenarios/window.c", "u32 before = self", f"{NOPS} u32 before = self"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_places_hold_when_other_code_changes(
    change: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of steps do not, if the code that has changed is executed."""
    minimised("window", tmp_path, capfd)
    script, exact = tmp_path / "small.txt", tmp_path / "exact.txt"
    prepared = prepare("window")
    places = guest_symbols(prepared.machine, prepared.image)
    records = resolve(prepared.machine, parse_choices(script.read_text(), 2), places)
    exact.write_text("\n".join(map(script_line, records)))
    again = str(tmp_path / "again.tape")
    assert main(["record", "window", "--script", str(exact), "-o", again]) == 1

    guest = tmp_path / "machine" / "guest"
    shutil.copytree(images.GUEST, guest)
    file, old, new = CHANGES[change]
    text = (guest / file).read_text()
    assert old in text
    (guest / file).write_text(text.replace(old, new, 1))
    monkeypatch.setattr(images, "GUEST", guest)
    monkeypatch.setattr(images, "IMAGES", tmp_path / "built")
    images.build(["small-smp-buggy"], jobs=1)
    assert prepare("window").image != prepared.image
    assert main(["record", "window", "--script", str(script), "-o", again]) == 1
    assert main(["record", "window", "--script", str(exact), "-o", again]) == (change == "not executed")


def test_whether_a_fence_is_involved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`exit-race` fails with two deviations, one of them a held store, which only saves switches."""
    tape, small = str(tmp_path / "a.tape"), str(tmp_path / "small.tape")
    assert main(["hunt", "exit-race", "--strategy", "bounded", "--bound", "2", "--budget", "10000", "-o", tape]) == 1
    capsys.readouterr()
    assert main(["minimise", tape, "-o", small]) == 0
    assert "stores are held to save some: without, it takes" in capsys.readouterr().out
    assert main(["minimise", tape, "-o", small, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["proved"]
    assert answer["held"] == 1
    assert answer["without_held"]["switches"] > answer["switches"]
