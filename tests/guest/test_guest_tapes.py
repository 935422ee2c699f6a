"""PAE and x86-64 guests from recording to answer: what recorder, replayer, symbols and debugger make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from racetape.cli import main

WORD_BITS = {"pae": 32, "x86_64": 64}
NEXT_ZONE = {"pae": "Normal", "x86_64": "DMA32"}
FIX = "fix-7454f4ba40b4"


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """(variant, configuration) -> tape of wrong-zone-small."""
    folder = tmp_path_factory.mktemp("tapes")
    found = {}
    for variant in ("buggy", FIX):
        for paging in WORD_BITS:
            for cpus in ("up", "smp2"):
                path = folder / f"{variant}-{cpus}-{paging}.tape"
                options = ["--variant", variant, "--config", f"{cpus}-{paging}", "-o", str(path)]
                assert main(["record", "wrong-zone-small", *options]) == 0
                found[variant, f"{cpus}-{paging}"] = path
    return found


Tapes = dict[tuple[str, str], Path]


def test_they_replay(tapes: Tapes) -> None:
    for path in tapes.values():
        assert main(["verify", str(path)]) == 0


@pytest.mark.parametrize("paging", WORD_BITS)
@pytest.mark.parametrize("counter", ["NR_ISOLATED_ANON", "NR_ISOLATED_FILE"])
def test_the_founding_case(tapes: Tapes, capsys: pytest.CaptureFixture[str], paging: str, counter: str) -> None:
    """The format of page tables plays no part in the bug; only what a negative number reads as is wider on x86-64."""
    capsys.readouterr()
    assert main(["first-divergence", str(tapes["buggy", f"up-{paging}"]), "--counter", counter, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    divergence, negative = answer["first_divergence"], answer["first_negative"]
    assert (divergence["function"], divergence["zone"]) == ("acct_isolated", "DMA")
    assert (negative["function"], negative["zone"]) == ("putback_lru_pages", NEXT_ZONE[paging])
    if counter == "NR_ISOLATED_FILE":
        excess = divergence["value"] - divergence["expected"]
        reader = answer["first_misled_reader"]
        assert (reader["function"], reader["zone"]) == ("too_many_isolated", NEXT_ZONE[paging])
        assert reader["value"] == 2 ** WORD_BITS[paging] - excess
    errors = [row["value"] - row["expected"] for row in answer["final"]]
    assert sum(errors) == 0
    assert max(errors) == -min(errors) > 0


@pytest.mark.parametrize("paging", WORD_BITS)
def test_nobody_is_misled_on_smp_and_nothing_is_wrong_with_the_fix(
    tapes: Tapes, capsys: pytest.CaptureFixture[str], paging: str
) -> None:
    capsys.readouterr()
    arguments = ["--counter", "NR_ISOLATED_FILE", "--json"]
    assert main(["first-divergence", str(tapes["buggy", f"smp2-{paging}"]), *arguments]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["first_divergence"]["zone"] == "DMA"
    assert answer["first_misled_reader"] is None
    for cpus in ("up", "smp2"):
        assert main(["first-divergence", str(tapes[FIX, f"{cpus}-{paging}"]), *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["first_divergence"] is None


def _debug(capsys: pytest.CaptureFixture[str], tape: Path, *commands: str) -> str:
    capsys.readouterr()
    assert main(["debug", str(tape), *(word for command in (*commands, "quit") for word in ("-ex", command))]) == 0
    return capsys.readouterr().out


def test_the_debugger_on_x86_64(tapes: Tapes, capsys: pytest.CaptureFixture[str]) -> None:
    tape = tapes["buggy", "up-x86_64"]
    capsys.readouterr()
    main(["first-divergence", str(tape), "--counter", "NR_ISOLATED_FILE", "--json"])
    step = json.loads(capsys.readouterr().out)["first_divergence"]["step"]
    out = _debug(capsys, tape, f"seek {step}", "bt", "info registers", "x/2i $pc", "p $rsp >> 47", "p sizeof(long)")
    chain = ["acct_isolated", "try_to_compact_pages", "do_huge_pmd_anonymous_page", "handle_mm_fault", "do_page_fault"]
    places = [out.index(f" {name} () at ") for name in [*chain, "exception_14", "task_start", "ret_from_fork"]]
    assert places == sorted(places)
    assert "addq" in out
    assert "\n131071\n8\n" in out
    rows = {row.split()[0]: row.split()[1] for row in out.splitlines() if row[:1].isalpha() and len(row.split()) > 1}
    assert rows["rip"].startswith("0xffffffff80")
    assert rows["rsp"].startswith("0xffff88")
    assert rows["efer"] == "0xd00"  # long mode enabled and active, no-execute


def test_the_first_instructions_of_a_64_bit_image_are_32_bit_ones(
    tapes: Tapes, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _debug(capsys, tapes["buggy", "up-x86_64"], "seek 0", "bt", "x/5i $pc", "seek 60", "bt")
    assert "startup_32 () at arch/x86/kernel/head_64.S" in out
    assert "%cr4" in out
    assert "(bad)" not in out
    assert "%rip" not in out
    assert "start_kernel" in out
