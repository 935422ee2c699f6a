"""The bug of June 2011 as the product tells it: recordings in, statements of kernel history out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from racetape.cli import main
from traces import Tape, TapeWriter

Tapes = dict[tuple[str, str, str], Path]
FIX = "fix-7454f4ba40b4"
ISOLATED = ("NR_ISOLATED_FILE", "NR_ISOLATED_ANON")
SCENARIOS = ("wrong-zone", "wrong-zone-small")


def ask(capsys: pytest.CaptureFixture[str], tape: Path, counter: str) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON answer of first-divergence."""
    capsys.readouterr()
    status = main(["first-divergence", str(tape), "--counter", counter, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_buggy_on_the_reported_configuration(tapes: Tapes, capsys: pytest.CaptureFixture[str], scenario: str) -> None:
    status, answer = ask(capsys, tapes[scenario, "buggy", "up-2level"], "NR_ISOLATED_FILE")
    assert status == 1
    assert answer["counter"] == "NR_ISOLATED_FILE"
    divergence, negative, reader = (
        answer[key] for key in ("first_divergence", "first_negative", "first_misled_reader")
    )
    assert divergence["function"] == "acct_isolated"
    assert divergence["file"] == "mm/compaction.c"
    assert divergence["zone"] == "DMA"
    excess = divergence["value"] - divergence["expected"]
    assert excess > 0
    assert negative["function"] == "putback_lru_pages"
    assert negative["zone"] == "Normal"
    assert negative["value"] < 0
    assert divergence["step"] < negative["step"] < reader["step"]
    assert reader["function"] == "too_many_isolated"
    assert reader["zone"] == "Normal"
    assert reader["value"] == 2**32 - excess
    errors = {(row["name"], row["zone"]): row["value"] - row["expected"] for row in answer["final"]}
    assert sum(errors.values()) == 0
    assert sorted(value for value in errors.values() if value) == [-excess, excess]


def test_one_cluster_in_all(tapes: Tapes, capsys: pytest.CaptureFixture[str]) -> None:
    """At Linux's own constants one cluster, 32 pages of both classes together, lands in the wrong zone."""
    moved = 0
    for counter in ISOLATED:
        _, answer = ask(capsys, tapes["wrong-zone", "buggy", "up-2level"], counter)
        moved += sum(max(0, row["value"] - row["expected"]) for row in answer["final"])
    assert moved == 32


@pytest.mark.parametrize("configuration", ["up-2level", "smp2-2level", "smp4-2level"])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("counter", ISOLATED)
def test_the_fix_is_clean(
    tapes: Tapes, capsys: pytest.CaptureFixture[str], scenario: str, configuration: str, counter: str
) -> None:
    status, answer = ask(capsys, tapes[scenario, FIX, configuration], counter)
    assert status == 0
    assert [answer[key] for key in ("first_divergence", "first_negative", "first_misled_reader")] == [None] * 3
    assert all(row["value"] == row["expected"] for row in answer["final"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_seed_patch_changes_nothing(tapes: Tapes, capsys: pytest.CaptureFixture[str], scenario: str) -> None:
    outcomes = []
    for variant in ("buggy", "seed-wmb"):
        status, answer = ask(capsys, tapes[scenario, variant, "up-2level"], "NR_ISOLATED_FILE")
        assert status == 1
        moments = [answer[key] for key in ("first_divergence", "first_negative", "first_misled_reader")]
        outcomes.append([[row[key] for key in ("function", "zone", "value", "expected")] for row in moments])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("configuration", ["smp2-2level", "smp4-2level"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_smp_hides_the_bug_from_readers(
    tapes: Tapes, capsys: pytest.CaptureFixture[str], scenario: str, configuration: str
) -> None:
    status, answer = ask(capsys, tapes[scenario, "buggy", configuration], "NR_ISOLATED_FILE")
    assert status == 1
    assert answer["first_divergence"]["function"] == "acct_isolated"
    assert answer["first_negative"]["value"] < 0
    reader = answer["first_misled_reader"]
    assert reader is None or reader["value"] < 2**31
    assert any("clamp" in note for note in answer["notes"])


def test_a_single_zone_can_be_asked_for(tapes: Tapes, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tapes["wrong-zone", "buggy", "up-2level"]
    _, by_item = ask(capsys, tape, "NR_ISOLATED_FILE")
    _, by_lvalue = ask(capsys, tape, "contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]")
    assert by_lvalue["first_negative"]["step"] == by_item["first_negative"]["step"]
    status, global_count = ask(capsys, tape, "vm_stat[NR_ISOLATED_FILE]")
    assert status == 0
    assert global_count["first_divergence"] is None


@pytest.mark.parametrize("counter", [" NR_ISOLATED_FILE ", "NR_ISOLATED_FILE"])
def test_blanks_around_a_counter_do_not_matter(tapes: Tapes, capsys: pytest.CaptureFixture[str], counter: str) -> None:
    status, answer = ask(capsys, tapes["wrong-zone-small", "buggy", "up-2level"], counter)
    assert status == 1
    assert (answer["counter"], answer["complete"], answer["has_ghost"]) == ("NR_ISOLATED_FILE", True, True)


def test_an_unsigned_value_is_never_negative(tapes: Tapes, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tapes["wrong-zone-small", "buggy", "up-2level"]
    status, answer = ask(capsys, tape, "*(unsigned char *)&current_task")
    assert status == 0
    assert answer["first_negative"] is None
    assert not answer["has_ghost"]


def test_an_interrupted_recording_is_not_called_true(
    tapes: Tapes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A run that did not get to the bug says how far its answer goes."""
    path = tmp_path / "short.tape"
    with Tape(tapes["wrong-zone-small", "buggy", "up-2level"]) as tape, TapeWriter(path) as writer:
        writer.begin(tape.header, tape.image())
        choices = next(iter(tape.choices()))
        writer.choices(choices.records, choices.end_step, choices.state_hash)
    capsys.readouterr()
    assert main(["first-divergence", str(path), "--counter", "NR_ISOLATED_FILE"]) == 2
    out, err = capsys.readouterr()
    assert f"is true up to @{choices.end_step}, where the tape is cut" in out
    assert err.count("\n") == 1


def test_every_reported_moment_can_be_jumped_to(tapes: Tapes, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tapes["wrong-zone", "buggy", "up-2level"]
    _, answer = ask(capsys, tape, "NR_ISOLATED_FILE")
    for key in ("first_divergence", "first_negative", "first_misled_reader"):
        moment = answer[key]
        assert main(["debug", str(tape), "-ex", f"seek {moment['step']}", "-ex", "bt", "--batch"]) == 0
        assert moment["function"] in capsys.readouterr().out


def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--json", "--keep", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert all(answer["checks"].values())
    assert len(answer["reverse"]) > 2
    assert len(list(tmp_path.glob("*.tape"))) == len(answer["runs"])


def test_demo_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    text = capsys.readouterr().out
    assert "acct_isolated" in text
    assert "too_many_isolated" in text
    assert " NO " not in text
