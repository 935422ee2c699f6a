"""Guests of somebody else: an ELF file, or a file that declares a scenario."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from racetape.cli import main

sys.path.append(str(Path(__file__).parent.parent / "recorder"))
import mini


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "mini.elf"
    path.write_bytes(mini.image())
    return path


def test_an_image_is_hunted_recorded_and_minimised(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape, small = tmp_path / "bug.tape", tmp_path / "small.tape"
    assert main(["hunt", str(image), "-o", str(tape), "--budget", "500", "--jobs", "1", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["scenario"] == str(image)
    assert answer["configuration"] == "smp2-2level"
    assert main(["verify", str(tape)]) == 0
    assert main(["minimise", str(tape), "-o", str(small), "--script", str(tmp_path / "s.txt")]) in (0, 1)
    assert main(["verify", str(small)]) == 0
    assert main(["record", str(image), "--script", str(tmp_path / "s.txt"), "-o", str(tmp_path / "again.tape")]) == 1
    assert main(["hunt", str(image), "--config", "smp1", "-o", str(tape), "--budget", "50", "--jobs", "2"]) in (0, 1)


def test_a_file_declares_variants_and_configurations(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "racy-smp2-2level.elf").write_bytes(image.read_bytes())
    declared = tmp_path / "mine.toml"
    declared.write_text(
        'image = "{variant}-{configuration}.elf"\nvariants = ["racy"]\nconfigurations = ["smp2-2level"]\n'
        'command_line = "x"\nram_bytes = 0x800000\nstep_max = 1_000_000\n'
    )
    assert main(["hunt", str(declared), "-o", str(tmp_path / "b.tape"), "--budget", "500", "--jobs", "1"]) == 1
    assert "racy, smp2-2level" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense = 1", "unknown key 'nonsense'"),
        ("step_max = 'x'", "step_max is no int"),
        ("[[", "bad.toml: "),
        ('configurations = ["smp9-2level"]', "no such configuration"),
        ("variants = []", "at least one variant"),
        ('image = "nowhere.elf"', "cannot read image"),
    ],
)
def test_bad_declarations(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert main(["hunt", str(path), "-o", str(tmp_path / "b.tape")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_no_image_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hunt", str(tmp_path / "none.elf"), "-o", str(tmp_path / "b.tape")]) == 2
    assert "no such scenario or file" in capsys.readouterr().err
    text = tmp_path / "text.elf"
    text.write_text("no ELF at all")
    assert main(["record", str(text), "-o", str(tmp_path / "b.tape")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
