"""`racetape archive`: what is printed, as text and as JSON, and the exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import racetape
from racetape.cli import main
from traces import TapeWriter
from traces.archive import copies

Tapes = dict[tuple[str, str, str], Path]


@pytest.fixture(autouse=True)
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RACETAPE_ARCHIVE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    status = main(["archive", *map(str, arguments)])
    out, err = capfd.readouterr()
    return status, out, err


def answer(capfd: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> Any:
    found, out, err = run(capfd, *arguments, "--json")
    assert found == status, err
    return json.loads(out)


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    status, _, err = run(capfd, *arguments)
    assert status == 2
    assert err.startswith("racetape: ")
    assert err.count("\n") == 1
    return err


def test_from_init_to_gc(capfd: pytest.CaptureFixture[str], tapes: Tapes, tmp_path: Path, location: Path) -> None:
    buggy = {config: tapes["wrong-zone-small", "buggy", config] for config in ("up-2level", "smp2-2level")}
    fixed = tapes["wrong-zone-small", "fix-7454f4ba40b4", "up-2level"]
    assert "is no archive" in refused(capfd, "list")
    assert answer(capfd, "init") == {"archive": str(location)}
    assert "already" in refused(capfd, "init")

    added = answer(capfd, "add", *buggy.values(), fixed, "--tag", "x", "--note", "for the record")
    assert (len(added["tapes"]), added["problems"]) == (3, [])
    ids = [row["tape"] for row in added["tapes"]]
    assert [row["signature"] for row in added["tapes"]] == ["Normal NR_ISOLATED_ANON is negative"] * 2 + [None]
    status, out, _ = run(capfd, "add", fixed)
    assert (status, "was there" in out) == (0, True)

    rows = answer(capfd, "list")["tapes"]
    assert [row["tape"] for row in rows] == ids[::-1]
    assert rows[-1]["divergences"][0]["function"] == "acct_isolated"
    assert [row["tape"] for row in answer(capfd, "list", "--failed", "--tag", "x")["tapes"]] == ids[1::-1]
    assert [row["tape"] for row in answer(capfd, "list", "--config", "smp2-*")["tapes"]] == ids[1:2]
    assert [row["tape"] for row in answer(capfd, "list", "--limit", 1)["tapes"]] == ids[2:]
    assert len(answer(capfd, "list", "--since", "1h", "--text", "THE REC")["tapes"]) == 3
    assert answer(capfd, "list", "--until", "2000-01-01")["tapes"] == []
    for other in (ids[0][:6], buggy["up-2level"], buggy["smp2-2level"]):
        assert [row["tape"] for row in answer(capfd, "list", "--same-as", other)["tapes"]] == ids[1::-1]
    assert "did not fail" in refused(capfd, "list", "--same-as", fixed)
    _, out, _ = run(capfd, "list", "--function", "acct_isolated")
    assert [line.split()[0] for line in out.splitlines()] == [tape[:12] for tape in ids[1::-1]]

    shown = answer(capfd, "show", ids[0][:12])
    assert shown["notes"] == ["for the record"]
    assert sum(blob["size_bytes"] for blob in shown["blobs"]) < buggy["up-2level"].stat().st_size
    _, out, _ = run(capfd, "show", ids[0][:12])
    assert "in acct_isolated (mm/compaction.c:" in out

    assert answer(capfd, "verify")["ok"]
    out_path = tmp_path / "out.tape"
    assert answer(capfd, "export", ids[1], "-o", out_path)["file"] == str(out_path)
    assert out_path.read_bytes() == buggy["smp2-2level"].read_bytes()

    rules = ["--keep-per-signature", "1"]
    planned = answer(capfd, "gc", *rules, "--dry-run")
    assert planned["removed"] == [ids[1]]
    assert answer(capfd, "gc", *rules)["blobs"] == planned["blobs"] > 0
    assert answer(capfd, "rm", ids[0][:8])["removed"] == [ids[0]]
    _, out, _ = run(capfd, "gc")
    assert "0 tapes removed" in out
    assert [row["tape"] for row in answer(capfd, "list")["tapes"]] == [ids[2]]


def test_an_archived_tape_is_opened_by_name(
    capfd: pytest.CaptureFixture[str], tapes: Tapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tapes["wrong-zone-small", "buggy", "up-2level"]
    run(capfd, "init")
    (added,) = answer(capfd, "add", "--quick", path)["tapes"]
    name = f"archive:{added['tape'][:8]}"
    with racetape.Tape(name) as tape:
        assert tape.path.read_bytes() == path.read_bytes()
        tape.path.write_bytes(b"somebody was here")
    assert main(["first-divergence", name, "--counter", "NR_ISOLATED_FILE"]) == 1
    assert "acct_isolated" in capfd.readouterr().out
    for seed in range(copies.COPIES_MAX + 3):
        header = replace(tape.header, seed=seed)
        with TapeWriter(tmp_path / "other.tape") as writer, racetape.Tape(path) as source:
            writer.begin(header, source.image())
        other = answer(capfd, "add", "--quick", tmp_path / "other.tape")["tapes"][0]["tape"]
        with racetape.Tape(f"archive:{other}") as opened:
            assert opened.header == header
    assert len(list((tmp_path / "cache" / "racetape" / "tapes").iterdir())) == copies.COPIES_MAX
    run(capfd, "rm", added["tape"])
    assert main(["replay", name]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_import_from_a_folder_and_from_an_archive(
    capfd: pytest.CaptureFixture[str], tapes: Tapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tapes["wrong-zone-small", "buggy", "up-2level"].parent
    run(capfd, "init")
    small = tmp_path / "some"
    (small / "deep").mkdir(parents=True)
    for name in ("up-2level", "smp2-2level"):
        (small / "deep" / f"{name}.tape").symlink_to(folder / f"wrong-zone-small-buggy-{name}.tape")
    (small / "bad.tape").write_bytes(b"no tape")
    found = answer(capfd, "import", small, "--quick", "--tag", "t", status=2)
    assert (found["new"], found["there"], len(found["problems"])) == (2, 0, 1)
    other = tmp_path / "other"
    run(capfd, "init", other)
    found = answer(capfd, "import", tmp_path / "kept", "--archive", other)
    assert (found["new"], found["there"], found["problems"]) == (2, 0, [])
    assert [row["tags"] for row in answer(capfd, "list", "--archive", other)["tapes"]] == [["t"], ["t"]]
    assert "no archive and no folder" in refused(capfd, "import", tmp_path / "nowhere")
    assert "come from the other" in refused(capfd, "import", tmp_path / "kept", "--archive", other, "--tag", "x")


def test_what_is_damaged_is_said_and_status_is_2(
    capfd: pytest.CaptureFixture[str], tapes: Tapes, tmp_path: Path, location: Path
) -> None:
    run(capfd, "init")
    path = tapes["wrong-zone-small", "buggy", "up-2level"]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "bad.tape").write_bytes(damaged)
    assert "damaged" in refused(capfd, "add", tmp_path / "bad.tape")
    (kept,) = answer(capfd, "add", "--damaged", tmp_path / "bad.tape")["tapes"]
    assert (kept["signature"], kept["diagnosis_note"]) == (None, "the tape is damaged")
    (good,) = answer(capfd, "add", "--quick", path)["tapes"]
    (blob,) = (
        file
        for file in (location / "blobs").iterdir()
        if file.name in [row["blob"] for row in answer(capfd, "show", good["tape"])["blobs"][-1:]]
    )
    blob.write_bytes(blob.read_bytes()[:-1])
    status, out, err = run(capfd, "verify")
    assert (status, out.count("\n"), err.count("\n")) == (2, 1, 1)
    assert blob.name in out
    assert good["tape"][:12] in out
    found = answer(capfd, "verify", status=2)
    assert not found["ok"]
    assert good["tape"] in found["problems"][0]["tapes"]
    assert "cannot be exported" in refused(capfd, "export", good["tape"], "-o", tmp_path / "out.tape")
    assert not (tmp_path / "out.tape").exists()
    for manifest in (location / "tapes").iterdir():
        manifest.write_bytes(b"?")
    (location / "catalogue.sqlite").unlink()
    status, out, err = run(capfd, "list")
    assert (status, out) == (2, "")
    assert "not complete" in err
    assert "nothing was removed" in refused(capfd, "gc", "--keep-days", "1")
    assert "nothing was deleted" in refused(capfd, "gc")


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "xyz"],
        ["show", "12"],
        ["rm", "123456"],
        ["export", "123456", "-o", "/tmp/x.tape"],
        ["list", "--since", "soon"],
        ["list", "--since", "9999999999999w"],
        ["list", "--same-as", "nothing"],
        ["add"],
        ["add", "/nowhere.tape"],
        ["init", "/proc/none/x"],
        ["list", "--archive", "nope://x"],
    ],
)
def test_bad_usage_is_one_line(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    run(capfd, "init")
    assert "Traceback" not in refused(capfd, *arguments)


def test_ctrl_c_leaves_the_archive_whole(tapes: Tapes, location: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(capfd, "init")
    path = tapes["wrong-zone", "buggy", "up-2level"]
    command = [sys.executable, "-m", "racetape", "archive", "add", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        while not list((location / "intents").iterdir()) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    # -SIGINT: it was through, and Python itself about to end, which takes no notice any more.
    assert (process.returncode, err.strip()) in ((0, ""), (130, "racetape: interrupted"), (-signal.SIGINT, ""))
    assert answer(capfd, "verify")["ok"]
    assert not list((location / "intents").iterdir())
