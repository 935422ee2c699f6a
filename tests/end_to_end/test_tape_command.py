"""`racetape tape`: strip and rebuild, attachments, what is on a tape."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from machine.symbols import GUEST_ROOT
from racetape.cli import main
from traces import Attachment, Tape
from traces.attach import SOURCE, attach
from traces.chunks import EVENTS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.tape"
    assert main(["record", "wrong-zone-small", "-o", str(path)]) == 0
    return path


def test_what_strip_takes_away_rebuild_brings_back(small: Path, run: Run, tmp_path: Path) -> None:
    stripped, rebuilt = tmp_path / "stripped.tape", tmp_path / "rebuilt.tape"
    assert run("tape", "strip", small, "-o", stripped)[0] == 0
    status, out, _ = run("tape", "rebuild", stripped, "-o", rebuilt, "--json")
    assert status == 0
    assert rebuilt.read_bytes() == small.read_bytes()
    assert json.loads(out)["size_bytes"] == small.stat().st_size


def test_rebuild_whole_and_without_index(small: Path, run: Run, tmp_path: Path) -> None:
    whole, bare = tmp_path / "whole.tape", tmp_path / "bare.tape"
    assert run("tape", "rebuild", small, "--whole", "-o", whole)[0] == 0
    assert run("tape", "rebuild", small, "--no-index", "-o", bare)[0] == 0
    assert run("verify", whole)[0] == 0
    with Tape(small) as a, Tape(whole) as b, Tape(bare) as c:
        assert b.events_range == (0, a.end_step)
        assert b.events[a.header.ready_step :] == a.events[:] == c.events[:]
        assert c.index_of(c.events_chunks[0]) is None
        assert a.last_write("vm_stat[NR_FREE_PAGES]") == c.last_write("vm_stat[NR_FREE_PAGES]") is not None
        assert a.footer == c.footer


def test_indexes_can_be_made_later(small: Path, run: Run, tmp_path: Path) -> None:
    bare, later = tmp_path / "bare.tape", tmp_path / "later.tape"
    assert run("tape", "rebuild", small, "--no-index", "-o", bare)[0] == 0
    assert run("tape", "index", bare, "-o", later)[0] == 0
    assert later.read_bytes() == small.read_bytes()
    assert run("tape", "index", small, "-o", later)[0] == 0
    assert later.read_bytes() == small.read_bytes()
    old = Path(__file__).parents[1] / "traces" / "conformance" / "format-4-guest.tape"
    assert run("tape", "index", old, "-o", later)[0] == 0
    assert run("verify", later)[0] == 0
    with Tape(later) as tape:
        assert all(
            tape.index_of(chunk) is not None for chunk in tape.events_chunks if chunk.end_step > chunk.first_step
        )
    bare.write_bytes(small.read_bytes()[:-400])
    assert run("tape", "index", bare, "-o", later)[0] == 2
    with Tape(later) as tape:
        assert tape.unfinished
    assert run("tape", "index", small, "-o", small)[0] == 2


def test_rebuild_of_what_does_not_replay(small: Path, run: Run, tmp_path: Path) -> None:
    cut, target = tmp_path / "cut.tape", tmp_path / "target.tape"
    with Tape(small) as tape:
        end = next(c.offset for c in tape.chunks if c.kind == EVENTS)
    cut.write_bytes(small.read_bytes()[: end + 100])
    status, _, err = run("tape", "rebuild", cut, "-o", target)
    assert status == 2
    assert "the tape is cut" in err
    with Tape(target) as tape, Tape(small) as whole:
        assert tape.unfinished
        assert tape.events[:] == whole.events[: tape.end_step]
    damaged = bytearray(small.read_bytes())
    damaged[end - 10] ^= 1
    cut.write_bytes(damaged)
    status, _, err = run("tape", "rebuild", cut, "-o", tmp_path / "none.tape")
    assert (status, err.count("\n")) == (2, 1)
    assert not (tmp_path / "none.tape").exists()
    assert run("tape", "rebuild", small, "-o", small)[0] == 2


def test_attachments(small: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    path.write_bytes(small.read_bytes())
    path.chmod(0o640)
    log = tmp_path / "dmesg.txt"
    log.write_bytes(b"BUG\xff\n" * 1000)
    assert run("tape", "attach", path, log, "--note", "seen on Monday", "--note", "and again")[0] == 0
    assert run("tape", "attach", path, "--note", "third")[0] == 0
    assert path.stat().st_mode & 0o777 == 0o640
    assert run("verify", path)[0] == 0
    answer = json.loads(run("tape", "info", path, "--json")[1])
    assert [(row["name"], row["type"]) for row in answer["attachments"]] == [
        ("dmesg.txt", "file"), ("note 1", "note"), ("note 2", "note"), ("note 3", "note"),
    ]  # fmt: skip
    assert run("tape", "extract", path, "note 3")[1] == "third"
    assert run("tape", "extract", path, "dmesg.txt", "-o", tmp_path / "again.txt")[0] == 0
    assert (tmp_path / "again.txt").read_bytes() == log.read_bytes()
    # Neither is lost when the events are.
    assert run("tape", "strip", path, "-o", tmp_path / "s.tape")[0] == 0
    assert run("tape", "extract", tmp_path / "s.tape", "note 1")[1] == "seen on Monday"
    status, _, err = run("tape", "extract", path, "nothing")
    assert (status, "nothing named 'nothing'" in err) == (2, True)
    assert run("tape", "extract", path)[0] == 2
    assert run("tape", "attach", path)[0] == 2
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_image_comes_out_as_it_was(small: Path, run: Run, tmp_path: Path) -> None:
    assert run("tape", "extract", small, "--image", "-o", tmp_path / "vmlinux")[0] == 0
    with Tape(small) as tape:
        assert (tmp_path / "vmlinux").read_bytes() == tape.image()


def test_list_takes_the_sources_of_the_tape(small: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    assert run("tape", "attach", small, "--sources", "-o", path)[0] == 0
    assert path.stat().st_size > small.stat().st_size
    with Tape(path) as tape:
        assert tape.sources["mm/compaction.c"] == (GUEST_ROOT / "mm/compaction.c").read_bytes()
        changed = tape.sources["mm/compaction.c"].replace(b"static", b"STATIC")
    log = tmp_path / "compaction.c"
    log.write_bytes(changed)
    with Tape(path) as tape:
        attach(tape, tmp_path / "b.tape", [Attachment(name="mm/compaction.c", type=SOURCE, data=changed)])
    first = changed[: changed.index(b"STATIC")].count(b"\n") + 1
    status, out, _ = run("debug", tmp_path / "b.tape", "-ex", f"list compaction.c:{first}", "--batch")
    assert status == 0
    assert "STATIC" in out


def test_info_of_stripped_cut_and_damaged(small: Path, run: Run, tmp_path: Path) -> None:
    status, out, _ = run("tape", "info", small)
    assert status == 0
    assert "wrong-zone-small (buggy, up-2level)" in out
    answer = json.loads(run("tape", "info", small, "--json")[1])
    with Tape(small) as tape:
        events = tape.events[:]
        assert answer["events"] == len(events) == sum(answer["kinds"].values())
        assert answer["size_bytes"] == os.path.getsize(small)
    data = small.read_bytes()
    path = tmp_path / "bad.tape"
    path.write_bytes(data[:-500])
    status, out, err = run("tape", "info", path)
    assert (status, "cut" in out, "the tape is cut" in err) == (2, True, True)
    path.write_bytes(data + b"x")
    status, _, err = run("tape", "info", path)
    assert (status, err.count("\n"), "does not end as a tape" in err) == (2, 1, True)
