"""`racetape tape`: strip and rebuild, attachments, what is on a tape."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from machine.symbols import GUEST_ROOT
from racetape.cli import main
from traces import Attachment, Tape, TapeWriter, gallery
from traces.attach import SOURCE, attach
from traces.chunks import EVENTS, INDEX, zstd_pack

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


def flipped(path: Path, at: int, target: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    target.write_bytes(data)
    return target


def test_damage_in_layer_b_costs_only_time(small: Path, run: Run, tmp_path: Path) -> None:
    with Tape(small) as tape:
        at = tape.events_chunks[0].end_offset - 10
    path = flipped(small, at, tmp_path / "bad.tape")
    status, out, _ = run("tape", "info", path)
    assert "events       damaged" in out
    for command in ("strip", "rebuild"):
        assert run("tape", command, path, "-o", tmp_path / f"{command}.tape")[0] == 0
    assert (tmp_path / "rebuild.tape").read_bytes() == small.read_bytes()
    assert run("tape", "strip", small, "-o", tmp_path / "same.tape")[0] == 0
    assert (tmp_path / "strip.tape").read_bytes() == (tmp_path / "same.tape").read_bytes()
    # Damage in layer A costs nothing that was there.
    with Tape(small) as tape:
        path = flipped(small, tape.choices_chunks[-1].end_offset - 2, tmp_path / "worse.tape")
    for command in ("strip", "rebuild", "index"):
        target = tmp_path / f"{command}.tape"
        target.write_bytes(b"precious")
        status, _, err = run("tape", command, path, "-o", target)
        assert (status, err.count("\n"), target.read_bytes()) == (2, 1, b"precious")


def test_nothing_is_attached_to_what_is_not_ours(run: Run, tmp_path: Path) -> None:
    before = gallery.resolve("gallery:split").read_bytes()
    try:
        status, _, err = run("tape", "attach", "gallery:split", "--note", "mine")
        assert (status, "gallery:split stays as it is" in err) == (2, True)
        assert gallery.resolve("gallery:split").read_bytes() == before
    finally:
        gallery.resolve("gallery:split").write_bytes(before)
    assert run("tape", "attach", "gallery:split", "--note", "mine", "-o", tmp_path / "mine.tape")[0] == 0


def test_strange_names_and_targets(small: Path, run: Run, tmp_path: Path) -> None:
    path, odd, plain = tmp_path / "a.tape", tmp_path / "odd\udcff.txt", tmp_path / "red\n\x1b[31m.txt"
    path.write_bytes(small.read_bytes())
    for file in (odd, plain):
        file.write_bytes(b"x")
    status, _, err = run("tape", "attach", path, odd)
    assert (status, err.count("\n"), "no UTF-8" in err) == (2, 1, True)
    assert run("tape", "attach", path, plain, "--note", "not \udcff UTF-8")[0] == 0
    status, out, _ = run("tape", "info", path)
    assert (status, "\x1b" in out, r"red\n\x1b[31m.txt" in out) == (0, False, True)
    assert run("tape", "extract", path, "note 1", "-o", tmp_path / "note")[0] == 0
    assert (tmp_path / "note").read_bytes() == b"not \xff UTF-8"
    status, _, err = run("tape", "extract", path, "note 1", "-o", path)
    assert (status, "would overwrite" in err) == (2, True)
    assert run("verify", path)[0] == 0


def test_an_index_that_lies_about_kinds(small: Path, run: Run, tmp_path: Path) -> None:
    """Of kinds that there are not, or that is none at all behind a good checksum: `info` says what it can."""
    for body, kinds in ((b"\0\0\0\1\x9f\1\2", {"kind 159": 2}), (b"\xff" * 9, None)):
        path = tmp_path / "lying.tape"
        with Tape(small) as tape, TapeWriter(path) as writer:
            for chunk in tape.chunks:
                data = zstd_pack(body) if chunk.kind == INDEX else tape.payload(chunk)
                writer.raw(chunk.kind, data, chunk.first_step, chunk.end_step)
            writer.end()
        status, out, _ = run("tape", "info", path, "--json")
        assert (status, json.loads(out)["kinds"]) == (0, kinds)
        status, _, err = run("verify", path)
        assert (status, "index" in err) == (2, True)
