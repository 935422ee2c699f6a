"""`racetape litmus` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from racetape.cli import main
from recorder.litmus.bundled import FOLDER

SB = """X86 SB
{ }
 P0          | P1          ;
 MOV [x],$1  | MOV [y],$1  ;
 MOV EAX,[y] | MOV EAX,[x] ;
exists (0:EAX=0 /\\ 1:EAX=0)
"""


@pytest.fixture
def sb(tmp_path: Path) -> Path:
    path = tmp_path / "SB.litmus"
    path.write_text(SB)
    return path


def test_log_is_in_the_form_of_herd(sb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", str(sb)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:11] == [
        "Test SB Allowed",
        "States 4",
        "0:EAX=0; 1:EAX=0; x=1; y=1;",
        "0:EAX=0; 1:EAX=1; x=1; y=1;",
        "0:EAX=1; 1:EAX=0; x=1; y=1;",
        "0:EAX=1; 1:EAX=1; x=1; y=1;",
        "Ok",
        "Witnesses",
        "Positive: 1 Negative: 3",
        "Condition exists (0:EAX=0 /\\ 1:EAX=0)",
        "Observation SB Sometimes 1 3",
    ]
    assert lines[12].startswith("Allowed under tso; ")
    assert lines[12].endswith(", complete")


@pytest.mark.parametrize(
    ("model", "condition", "count"), [("tso", "allowed", 4), ("sc", "forbidden", 3), ("up", "forbidden", 3)]
)
def test_json(sb: Path, capsys: pytest.CaptureFixture[str], model: str, condition: str, count: int) -> None:
    assert main(["litmus", "--json", "--model", model, str(sb)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert list(answer) == ["name", "complete", "locs", "states", "condition", "schedules"]
    assert answer["name"] == "SB"
    assert answer["complete"] is True
    assert answer["locs"] == ["0:EAX", "1:EAX", "x", "y"]
    assert answer["condition"] == condition
    assert len(answer["states"]) == count
    assert ([0, 0, 1, 1] in answer["states"]) == (model == "tso")
    assert answer["schedules"] >= count


def test_witness_is_a_schedule_in_source_lines(sb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", "--witness", str(sb)]) == 0
    out = capsys.readouterr().out
    steps = [
        line.split(None, 1)[1] for line in out[out.index("A schedule to 0:EAX=0; 1:EAX=0;") :].splitlines()[1:] if line
    ]
    assert len(steps) == 6
    assert sum("drain" in step for step in steps) == 2
    load, drain = next(i for i, s in enumerate(steps) if "MOV EAX,[x]" in s), steps.index("P0  drain: x=1")
    assert load < drain
    assert any(step.startswith("P0  MOV [x],$1") and step.endswith("line 4") for step in steps)
    assert main(["litmus", "--witness", "--model", "sc", str(sb)]) == 0
    assert "no schedule reaches (0:EAX=0 /\\ 1:EAX=0)" in capsys.readouterr().out
    assert main(["litmus", "--witness", "--json", str(sb)]) == 0
    witness = json.loads(capsys.readouterr().out)["witness"]
    assert witness["state"] == [0, 0, 1, 1]
    assert len(witness["schedule"]) == 6


def test_another_condition(sb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", str(sb), "--condition", "forall (0:EAX=1 \\/ 1:EAX=1)", "--witness"]) == 1
    out = capsys.readouterr().out
    assert "Fails under tso" in out
    assert "contradicted: forall (0:EAX=1 \\/ 1:EAX=1) does not hold" in out
    assert "A schedule to 0:EAX=0; 1:EAX=0; x=1; y=1;" in out
    assert main(["litmus", str(sb), "--condition", "exists q=1"]) == 2
    assert "no variable 'q'" in capsys.readouterr().err


def test_claims_decide_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "claim.litmus"
    for claim, status in (
        ("exists x=2", 0),
        ("exists x=1", 0),
        ("~exists x=1", 1),
        ("~exists x=2", 0),
        ("forall x=1", 0),
        ("forall x=2", 1),
    ):
        path.write_text(f"X86 t\n{{ }}\n P0 ;\n MOV [x],$1 ;\n{claim}\n")
        assert main(["litmus", str(path)]) == status, claim
    for expectation, status in (
        ("Tso=allowed", 0),
        ("tso = Allowed 1", 0),
        ("Tso=forbidden", 1),
        ("Tso=allowed 2", 1),
        ("Tso=maybe", 2),
    ):
        path.write_text(f"X86 t\n{expectation}\n{{ }}\n P0 ;\n MOV [x],$1 ;\nexists x=1\n")
        assert main(["litmus", str(path)]) == status, expectation
        assert main(["litmus", str(path), "--model", "sc"]) == 0
    capsys.readouterr()


def test_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "count.litmus"
    path.write_text("X86 t\n{ }\n P0 ;\n L: INC [x] ;\n JMP L ;\nexists x=-1\n")
    assert main(["litmus", str(path), "--limit", "200"]) == 1
    assert "Not seen under tso" in (out := capsys.readouterr().out)
    assert "INCOMPLETE: more than 200 states" in out
    assert main(["litmus", str(path), "--limit", "200", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["complete"] is False
    assert "incomplete: more than 200 states" in captured.err


def test_folders_and_bad_files(sb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad test is one line and status 2; the others still run."""
    (sb.parent / "bad.litmus").write_text("X86 bad\n{ }\n P0 ;\n MOV [x],$1 ;\n FROB ;\n")
    (sb.parent / "worse.litmus").write_bytes(b"\xff\xfe\x00")
    (sb.parent / "MP.litmus").write_text(SB.replace("SB", "MP"))
    assert main(["litmus", "--table", str(sb.parent)]) == 2
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["test", "MP", "SB"]
    errors = captured.err.splitlines()
    assert len(errors) == 2
    assert any(f"{sb.parent / 'bad.litmus'}:5: `FROB`: no such instruction" in error for error in errors)
    assert any("worse.litmus: not a text file" in error for error in errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which test?"),
        (["no-such-test"], "no such file, folder, bundled test or group"),
        (["sb", "--model", "arm"], "'arm' is not one of 'tso', 'sc', 'up'"),
        (["sb", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_empty_folder_and_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", str(tmp_path)]) == 2
    assert "no *.litmus file in this folder" in capsys.readouterr().err
    huge = tmp_path / "huge.litmus"
    huge.write_bytes(b" " * (1 << 21))
    assert main(["litmus", str(huge)]) == 2
    assert "no litmus test" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", "--list"]) == 0
    out = capsys.readouterr().out
    assert "classic (24 tests): 22w amd10" in out
    for path in FOLDER.glob("*/*.litmus"):
        assert path.stem in out.split()


@pytest.mark.parametrize("model", ["tso", "sc", "up"])
def test_classics_as_a_table(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", "classic", "--model", model, "--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 25
    verdicts = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert verdicts["mp"] == "Forbidden"
    assert verdicts["n6"] == ("Allowed" if model == "tso" else "Forbidden")
    assert verdicts["inc-inc"] == ("Forbidden" if model == "up" else "Allowed")


def test_bundled_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", "iriw", "iriw", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert len(json.loads(line)["states"]) == 15


@pytest.mark.parametrize("arch", ["X86", "X86_64"])
def test_null_pointer_is_one_line(arch: str, tmp_path: Path) -> None:
    """A pointer that was never set, in a process of its own: nothing a test does may harm the host."""
    path = tmp_path / "null.litmus"
    path.write_text(f"{arch} null\n{{ }}\n P0 ;\n movl (%e{'ax' if arch == 'X86' else 'bx'}),%ecx ;\n")
    done = subprocess.run(
        [sys.executable, "-m", "racetape", "litmus", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "null.litmus:4: P0: `movl (%e" in done.stderr
    assert "touches address 0x0, where no variable of the test lies" in done.stderr


def test_the_example_of_the_documentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "litmus.md").read_text()
    (example,) = [block for block in page.split("```")[1::2] if block.startswith("\nX86_64 ")]
    path = tmp_path / "example.litmus"
    path.write_text(example)
    assert main(["litmus", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["locs"] == ["0:rax", "1:rax", "x", "y"]
    assert answer["states"] == [[0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]]
    assert f'"schedules": {answer["schedules"]}' in page


def test_several_logs(sb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["litmus", str(sb), "mp", "--model", "sc"]) == 0
    logs = capsys.readouterr().out.split("Test ")[1:]
    assert [log.splitlines()[0] for log in logs] == ["SB Allowed", "mp Allowed"]
    assert [log.splitlines()[1] for log in logs] == ["States 3", "States 3"]
