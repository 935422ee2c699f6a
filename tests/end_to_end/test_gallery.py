"""The gallery: every tape shows its bug, is small, and is what is made from its script today."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from debugger.checks import CounterCheck
from machine import Machine, images
from machine.errors import TapeError
from racetape.cli import main
from racetape.gallery_build import build
from recorder.hunt.trial import Trial
from recorder.record import prepare_image
from recorder.strategies.script import Script
from traces import Tape
from traces.gallery import PREFIX, SIZE_BYTES_MAX, Entry, compiler, entries, entry, resolve

EVERY = pytest.mark.parametrize("row", entries(), ids=lambda row: row.name)


@EVERY
def test_a_tape_shows_its_failure(row: Entry) -> None:
    """By its own image and choices alone, as a tape from anywhere."""
    scenario = images.scenario(row.scenario)
    with Tape(PREFIX + row.name) as tape:
        header, image = tape.header, tape.image()
        records = np.concatenate([part.records for part in tape.choices(header.ready_step)])
        assert (header.scenario, header.variant, header.configuration) == (row.scenario, row.variant, row.configuration)
        assert bool(tape.events_chunks) == row.layer_b
        assert tape.footer is not None
        steps, state_hash = tape.footer.steps, tape.footer.state_hash
    machine = Machine(cpus=header.cpus, ram_bytes=header.ram_bytes)
    prepared = prepare_image(
        machine,
        image,
        header.command_line,
        scenario=header.scenario,
        variant=header.variant,
        configuration=header.configuration,
        step_max=scenario.step_max,
    )
    assert prepared.ready_step == header.ready_step
    checks = [CounterCheck(machine, image, scenario.counters, scenario.counters_more)] if scenario.counters else []
    ended = Trial(prepared, checks).run(Script(records), 0)
    assert ended.failure is not None
    assert ended.failure.cause == row.cause
    assert (ended.steps, ended.state_hash) == (steps, state_hash)


@cache
def same_compiler() -> bool:
    return images.compiler() == compiler()


@pytest.mark.parametrize("name", ["wrong-zone", "class-flip", "dirty-bit", "exit-race-no-mb"])
def test_a_tape_is_what_is_made_today(name: str, tmp_path: Path) -> None:
    """After a change of the guest `make gallery` brings them up to date. Another gcc makes other images."""
    compare_with_today(entry(name), tmp_path)


@pytest.mark.soak
@EVERY
def test_every_tape_is_what_is_made_today(row: Entry, tmp_path: Path) -> None:
    compare_with_today(row, tmp_path)


def compare_with_today(row: Entry, tmp_path: Path) -> None:
    path = tmp_path / "again.tape"
    failure = build(row, path)
    if not same_compiler():
        pytest.skip(f"this is {images.compiler()}; the gallery was made with {compiler()}: only failures are compared")
    assert failure is not None
    assert failure.cause == row.cause
    with Tape(row.path) as shipped, Tape(path) as made:
        assert shipped.image() == made.image(), "the guest has changed: make gallery"
        for field in ("cpus", "ram_bytes", "store_buffer", "command_line", "ready_step", "events_first", "strategy"):
            assert getattr(shipped.header, field) == getattr(made.header, field), field
        assert shipped.footer == made.footer
        for one, other in zip(shipped.choices(), made.choices(), strict=True):
            assert (one.end_step, one.state_hash) == (other.end_step, other.state_hash)
            assert np.array_equal(one.records, other.records)
        for chunk, again in zip(shipped.events_chunks, made.events_chunks, strict=True):
            assert shipped.read_events(chunk) == made.read_events(again)
    assert path.stat().st_size <= SIZE_BYTES_MAX


def test_every_file_is_listed_and_small() -> None:
    files = {path.stem: path.stat().st_size for path in entries()[0].path.parent.glob("*.tape")}
    assert set(files) == {row.name for row in entries()}
    assert max(files.values()) <= SIZE_BYTES_MAX


def test_bundled_bugs_are_all_there() -> None:
    """Every scenario that goes wrong by default, but for the large twin of wrong-zone-small."""
    buggy = {row.name for row in images.scenarios() if row.variants[0] == "buggy"} - {"wrong-zone"}
    assert len(buggy) > 8
    assert buggy <= {row.scenario for row in entries()}


def test_a_name_means_its_file() -> None:
    assert resolve("gallery:window") == entry("window").path
    assert resolve("some/where.tape") == Path("some/where.tape")
    with pytest.raises(TapeError, match="did you mean window"):
        resolve("gallery:windwo")


def test_the_command_lists_them(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["gallery"]) == 0
    text = capfd.readouterr().out
    assert main(["gallery", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [row["tape"] for row in rows] == [PREFIX + row.name for row in entries()]
    for row in rows:
        assert row["shows"] in text
        for command in row["commands"]:
            assert command in text
            assert shlex.split(command)[0] == "racetape"
            assert row["tape"] in shlex.split(command)


@pytest.mark.parametrize("name", ["wrong-zone", "window"])
def test_what_is_proposed_can_be_done(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    row = entry(name)
    for command in row.commands:
        arguments = shlex.split(command)[1:]
        batch = ["--batch"] if arguments[0] == "debug" else []
        assert main([*arguments, *batch]) == (1 if arguments[0] == "first-divergence" else 0)
        shown = capfd.readouterr().out
        assert shown
    assert "acct_isolated" in shown or "add_to_shared" in shown or "putback_lru_pages" in shown


@pytest.mark.soak
@EVERY
def test_all_that_is_proposed_can_be_done(row: Entry, capfd: pytest.CaptureFixture[str]) -> None:
    for command in row.commands:
        arguments = shlex.split(command)[1:]
        batch = ["--batch"] if arguments[0] == "debug" else []
        assert main([*arguments, *batch]) == (1 if arguments[0] == "first-divergence" else 0)
        assert capfd.readouterr().out


def test_an_unknown_name_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "gallery:nothing"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "no such tape in the gallery: 'nothing'" in error
