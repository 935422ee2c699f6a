"""`racetape matrix`: a hunt in each cell; the June 2011 patch that only adds a barrier changes none of them."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from debugger.checks import scenario_counters
from machine import images
from racetape.cli import main
from racetape.seed_cells import Cells
from racetape.seed_matrix import HYPOTHESES, print_seed_matrix, run_seed_matrix

CONFIGURATIONS = ["up-2level", "smp2-pae", "smp4-x86_64"]
FIX = "fix-7454f4ba40b4"
BUGGY = ("wrong-zone-small", "buggy", "up-2level")
CLAMP = ("wrong-zone-small", "seed-clamp", "up-2level")


def cells(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, object]]]:
    capfd.readouterr()
    chosen = [part for name in CONFIGURATIONS for part in ("--config", name)]
    status = main(["matrix", "wrong-zone-small", *chosen, *arguments, "--json"])
    rows = json.loads(capfd.readouterr().out)
    return status, {(row["variant"], row["configuration"]): row for row in rows}


def test_the_counters_go_wrong_everywhere_but_with_the_fix(capfd: pytest.CaptureFixture[str]) -> None:
    status, found = cells(capfd, "--budget", "25")
    assert status == 1
    assert set(found) == {(v, c) for v in images.scenario("wrong-zone-small").variants for c in CONFIGURATIONS}
    for (variant, _), cell in found.items():
        if variant == FIX:
            assert (cell["result"], cell["schedules"], cell["cause"]) == ("budget", 25, None)
            assert cell["bound"]["rate"] == pytest.approx(1 - 0.05 ** (1 / 25))  # type: ignore[index]
        else:
            assert (cell["result"], cell["schedules"]) == ("failed", 1)
            assert "NR_ISOLATED_ANON is negative" in str(cell["cause"])


def test_the_barrier_of_the_seed_patch_changes_no_outcome(capfd: pytest.CaptureFixture[str]) -> None:
    """mm-paths.md 1.8: under TSO a store barrier orders nothing more. Crash by crash, the same schedules."""
    _, found = cells(capfd, "--variant", "buggy", "--variant", "seed-wmb", "--endings-only", "--budget", "80")
    fields = ("result", "schedules", "cause", "inconclusive")
    for configuration in CONFIGURATIONS:
        buggy, patched = found["buggy", configuration], found["seed-wmb", configuration]
        assert [buggy[name] for name in fields] == [patched[name] for name in fields]
    assert {cell["result"] for cell in found.values()} == {"failed", "budget"}


def test_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["matrix", "wrong-zone-small", "--config", "up", "--budget", "5"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["buggy", FIX, "seed-wmb", "seed-clamp"]
    said = re.sub(r"\(\d+\.\d s\) *", "", lines[1])
    fails = ["fails", "in", "1"]
    assert said.split() == ["up-2level", *fails, "clean", "in", "5", *fails, *fails]
    assert said != lines[1]
    assert main(["matrix", "wrong-zone-small", "--config", "up", "--variant", FIX, "--budget", "5"]) == 0


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["wrong-zone-small", "--config", "x"], ["wrong-zone-small", "--variant", "x"]]
)
def test_bad_usage(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["matrix", *arguments]) == 2
    err = capfd.readouterr().err
    assert err.startswith("racetape: no such")
    assert err.count("\n") == 1


def test_the_barrier_changes_nothing_in_any_schedule_of_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """The June 2011 patch: as many schedules with one deviation, the same ones fail, for the same causes; the fix is
    clean."""
    arguments = ["matrix", "wrong-zone-small", "--strategy", "bounded", "--bound", "1", "--budget", "100000", "--all"]
    variants = [part for name in ("buggy", FIX, "seed-wmb") for part in ("--variant", name)]
    assert main([*arguments, *variants, "--config", "smp2-2level", "--json"]) == 1
    buggy, fixed, barrier = json.loads(capsys.readouterr().out)
    assert (buggy["variant"], fixed["variant"], barrier["variant"]) == ("buggy", "fix-7454f4ba40b4", "seed-wmb")
    for name in ("result", "schedules", "causes", "bound", "inconclusive"):
        assert buggy[name] == barrier[name]
    assert buggy["bound"]["deviations"] == 1
    assert buggy["schedules"] > 300
    assert len(buggy["causes"]) >= 1
    assert fixed["result"] == "exhausted"
    assert fixed["schedules"] > 300
    assert main([*arguments[:2], "--strategy", "dpor", "--bound", "1"]) == 2
    assert main(["matrix", "window", "--strategy", "dpor", "--config", "smp2-2level"]) == 1
    out = capsys.readouterr().out
    assert "clean in all 4" in out
    assert "one of each class of equivalent schedules" in out


@pytest.fixture(scope="module")
def answers(made_once: Callable[..., Path]) -> list[dict[str, Any]]:
    """Half a minute's work: once, even if these tests are shared out."""

    def run(folder: Path) -> None:
        (folder / "answers").write_bytes(pickle.dumps(run_seed_matrix(scenario_counters)))

    found: list[dict[str, Any]] = pickle.loads((made_once("seed-matrix", run) / "answers").read_bytes())
    return found


def test_the_hypotheses_of_june_2011_are_settled(
    answers: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the last are not what it was (mm-paths.md 1.8)."""
    assert [row["true"] for row in answers] == [*[False] * (len(answers) - 1), True]
    for row in answers:
        for cell in row["cells"]:
            assert cell["result"] in ("failed", "exhausted")
            if cell["result"] == "exhausted":
                assert cell["complete"]
                assert cell["bound"]["deviations"] >= 1
                assert not cell["bound"]["cut"]
    print_seed_matrix(answers)
    out = capsys.readouterr().out
    assert "no   a write barrier is missing" in out
    assert "yes  compaction's scanner walks into the next zone" in out


def test_an_answer_names_what_it_stands_on(answers: list[dict[str, Any]]) -> None:
    for row in answers:
        stalls = [str(cell["tape"]["stalls"]) for cell in row["cells"] if "tape" in cell]
        numbers = [f"{cell['schedules']:,}" for cell in row["cells"]] + stalls
        assert set(numbers) & set(re.findall(r"[\d,]+", row["why"])) or "DMA +3, Normal -3" in row["why"]


def settled(answers: list[dict[str, Any]], about: str, change: Callable[[Cells], None]) -> bool | None:
    """The answer, had the cells come out otherwise."""
    number = next(i for i, row in enumerate(HYPOTHESES) if about in row.text)
    cells = {
        cell: deepcopy(found) for cell, found in zip(HYPOTHESES[number].cells, answers[number]["cells"], strict=True)
    }
    change(cells)
    return HYPOTHESES[number].settle(cells)[0]


def test_answers_can_come_out_the_other_way(answers: list[dict[str, Any]]) -> None:
    def signature(text: str) -> Callable[[Cells], None]:
        return lambda cells: cells[BUGGY]["causes"].update({text: 7})

    def stall(cells: Cells) -> None:
        cells[CLAMP]["tape"]["stalls"] = 1

    def place(cells: Cells) -> None:
        for row in cells[BUGGY]["tape"]["counters"].values():
            row["first"]["file"] = "mm/huge_memory.c"

    assert settled(answers, "clamp", stall) is True
    assert settled(answers, "soft_offline_page", signature("missing increment")) is True
    assert settled(answers, "PageSwapBacked", signature("class flip")) is True

    def collapse(cells: Cells) -> None:
        for cell in (row for name, row in cells.items() if name[:2] == ("collapse", "fixed")):
            cell.update(result="failed", text="wrong zone: DMA +1, Normal -1")

    assert settled(answers, "backing out", place) is True
    assert settled(answers, "backing out", collapse) is True
    assert settled(answers, "khugepaged", collapse) is True

    def split(cells: Cells) -> None:
        cells["split", "fixed", "smp2-2level"].update(result="failed", text="D is lost")

    assert settled(answers, "2-level page directory", split) is True


def test_a_mark_that_goes_unnoticed_where_it_must_not_decides_nothing(answers: list[dict[str, Any]]) -> None:
    def unnoticed(cells: Cells) -> None:
        cells["split", "buggy", "smp2-2level"].update(result="exhausted", causes={})

    assert settled(answers, "2-level page directory", unnoticed) is None


def test_files_in_a_collapse_or_none_in_june_decide_nothing(answers: list[dict[str, Any]]) -> None:
    def files(cells: Cells) -> None:
        cells["collapse", "fixed", "up-2level"]["tape"]["isolated"]["NR_ISOLATED_FILE"] = 1

    def anonymous(cells: Cells) -> None:
        cells[BUGGY]["tape"]["counters"]["NR_ISOLATED_FILE"]["errors"] = {}

    assert settled(answers, "khugepaged", files) is None
    assert settled(answers, "khugepaged", anonymous) is None


def test_a_search_that_was_cut_decides_nothing(answers: list[dict[str, Any]]) -> None:
    def cut(cells: Cells) -> None:
        for cell in cells.values():
            cell["complete"] = False
            cell["result"] = "budget" if cell["result"] == "exhausted" else cell["result"]

    for row in HYPOTHESES:
        if "clamp" not in row.text:  # it stands on one schedule of each, which were made
            assert settled(answers, row.text, cut) is None


def test_several_scenarios_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that lack a configuration have no row for it."""
    arguments = ["window", "dirty-bit", "--config", "up-2level", "--config", "smp2-2level", "--budget", "300"]
    assert main(["matrix", *arguments, "--json"]) == 1
    cells = json.loads(capsys.readouterr().out)
    rows = {(cell["scenario"], cell["variant"], cell["configuration"]): cell["result"] for cell in cells}
    assert rows == {
        ("window", "buggy", "smp2-2level"): "failed",
        ("window", "fixed", "smp2-2level"): "budget",
        ("dirty-bit", "buggy", "up-2level"): "budget",
        ("dirty-bit", "buggy", "smp2-2level"): "failed",
        ("dirty-bit", "fix-d52605d7cb30", "up-2level"): "budget",
        ("dirty-bit", "fix-d52605d7cb30", "smp2-2level"): "budget",
    }
    assert main(["matrix", *arguments]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["window", "buggy", "fixed"]
    assert lines[2].split() == ["dirty-bit", "buggy", "fix-d52605d7cb30"]
    assert lines[3].split()[0] == "up-2level"
    assert any("(dirty-bit buggy smp2-2level)" in line for line in lines)
    assert main(["matrix", "window", "dirty-bit", "--variant", "nope"]) == 2
    assert "none of these scenarios" in capsys.readouterr().err


def test_what_no_scenario_has_is_said_even_if_others_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    several = ["matrix", "window", "dirty-bit", "--config", "smp2", "--variant", "buggy", "--budget", "5"]
    assert main([*several, "--variant", "fixd"]) == 2
    assert "none of these scenarios has fixd" in capsys.readouterr().err


def test_what_is_asked_for_twice_is_one_cell(capsys: pytest.CaptureFixture[str]) -> None:
    twice = ["window", "window", "--variant", "buggy", "--config", "smp2", "--config", "smp2-2level", "--budget", "5"]
    assert main(["matrix", *twice, "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)) == 1
