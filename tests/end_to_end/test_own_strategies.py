"""Strategies of others: by `module:Class`, by entry point, and what is wrong with them in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from machine.errors import UsageError
from recorder.strategies import strategy

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["wrong-zone-small", "--config", "smp2"]


def example() -> str:
    """`turns.py` of docs/hunt.md."""
    section = (ROOT / "docs" / "hunt.md").read_text().partition("### Your own")[2]
    return textwrap.dedent("    from recorder" + section.partition("    from recorder")[2].partition("\n\nand ")[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the module `turns` and a package that registers it as `my-turns`."""
    (tmp_path / "turns.py").write_text(example())
    info = tmp_path / "turns-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: turns\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[racetape.strategies]\nmy-turns = turns:Turns\n")
    return tmp_path


def run(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As the installed command does: without the current folder on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *([path] if path else [])]))}
    command = [sys.executable, "-P", "-m", "racetape", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_example_of_the_docs_hunts(folder: Path) -> None:
    command = ["hunt", *SMALL, "--strategy", "turns:Turns", "--endings-only", "--all", "--budget", "80", "--json", "-o"]
    one, two = (run(folder, *command, f"{jobs}.tape", "--jobs", jobs) for jobs in ("1", "2"))
    assert one.stderr == two.stderr == ""
    answers = [json.loads(done.stdout) for done in (one, two)]
    for answer in answers:
        assert (answer["schedules"], answer["strategy"]) == (80, "turns:Turns")
        assert answer["final_states"] > 40
    assert [answers[0][name] for name in ("steps", "final_states")] == [
        answers[1][name] for name in ("steps", "final_states")
    ]


def test_recording_again_and_by_entry_point(folder: Path) -> None:
    """The tape of a failing schedule is that of the seed that the answer names, whichever name the strategy goes by."""
    hunted = run(folder, "hunt", *SMALL, "--strategy", "turns:Turns", "--json", "-o", "bug.tape")
    (failure,) = json.loads(hunted.stdout)["failures"]
    for name, path in (("turns:Turns", None), ("my-turns", folder)):
        again = run(
            folder, "record", *SMALL, "--strategy", name, "--seed", str(failure["seed"]), "-o", "again.tape", path=path
        )
        assert again.stderr == ""
        assert (folder / "again.tape").read_bytes() == (folder / "bug.tape").read_bytes()
    assert run(folder, "verify", "bug.tape").returncode == 0


def test_what_is_wrong_is_one_line(folder: Path) -> None:
    (folder / "wrong.py").write_text(
        "class Empty:\n    pass\n\n\nclass Breaks:\n    def __init__(self):\n        1 / 0\n"
    )
    (folder / "syntax.py").write_text("class\n")
    for name, message in (
        ("nowhere:Turns", "cannot load strategy nowhere:Turns: ModuleNotFoundError"),
        ("turns:Nobody", "cannot load strategy turns:Nobody: AttributeError"),
        ("wrong:Breaks", "ZeroDivisionError"),
        ("wrong:Empty", "wrong:Empty is no strategy: it has no answer, choose, exact, name, "),
        ("syntax:Turns", "SyntaxError"),
        (":", "cannot load strategy :"),
        ("my-turn", "unknown strategy 'my-turn'; there are default, my-turns, pct,"),
    ):
        done = run(folder, "hunt", *SMALL, "--strategy", name, "-o", "bug.tape", path=folder)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert message in done.stderr


def test_names_of_our_own_are_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "turns-1.dist-info" / "entry_points.txt").write_text("[racetape.strategies]\npct = turns:Turns\n")
    monkeypatch.syspath_prepend(str(folder))
    assert strategy("pct").name == "pct"
    with pytest.raises(UsageError, match="unknown strategy"):
        strategy("my-turns")
