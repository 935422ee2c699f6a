"""The pytest plugin: a mark and a fixture that hunt, reports that show the shortest schedule, tapes that stay."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

from racetape.cli import main

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent.parent
PLUGIN = "racetape.pytest_plugin"
CRASH = "scenario='wrong-zone-small', config='smp2', strategy='random-walk', endings_only=True, seed=6, budget=200"
Run = Callable[..., pytest.RunResult]
FIXED = "scenario='wrong-zone-small', config='smp2', variant='fix-7454f4ba40b4', budget=40"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on `test_it.py` with this source; where racetape is not installed, with the plugin named."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    installed = any(row.value == PLUGIN for row in entry_points(group="pytest11"))
    named = [] if installed else ["-p", PLUGIN]

    def go(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=source)
        return pytester.runpytest_subprocess(*named, *arguments)

    return go


def test_the_entry_point_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"racetape": PLUGIN}


def test_a_marked_test_fails_with_the_shortest_schedule(run: Run, pytester: pytest.Pytester) -> None:
    result = run(
        f"""
        import pytest

        @pytest.mark.racetape({CRASH})
        def test_crash():
            raise AssertionError("the body ran")

        @pytest.mark.racetape({FIXED})
        def test_fixed():
            print("the body ran")
        """,
        "--junitxml=report.xml",
        "-rA",
    )
    result.assert_outcomes(passed=1, failed=1)
    text = result.stdout.str()
    where = re.search(r"^wrong-zone-small \(buggy, smp2-2level\): failed in schedule (\d+) of 200$", text, re.MULTILINE)
    assert where is not None
    assert "exception 14 in __list_del (include/linux/list.h:" in text
    assert "Traceback" not in text
    assert text.count("the body ran") == 1  # of the test that passed
    folder = pytester.path / ".pytest_racetape"
    (tape,) = folder.glob("*.tape")
    (script,) = folder.glob("*.txt")
    lines = [line.strip() for line in text.splitlines()]
    assert all(line in lines for line in script.read_text().splitlines())
    assert len(script.read_text().splitlines()) <= 8
    assert f"racetape debug {tape}" in lines
    assert (folder / ".gitignore").read_text() == "*\n"
    assert main(["verify", str(tape)]) == 0
    again = tape.with_name("again.tape")
    assert main(["record", "wrong-zone-small", "--config", "smp2", "--script", str(script), "-o", str(again)]) == 1
    assert again.read_bytes() == tape.read_bytes()

    cases = properties(pytester.path / "report.xml")
    assert cases["test_crash"]["racetape_tape"] == str(tape)
    assert cases["test_crash"]["racetape_script"] == str(script)
    assert cases["test_crash"]["racetape_cause"] == "exception 14 in __list_del"
    assert cases["test_crash"]["racetape_schedules"] == where[1]
    assert cases["test_fixed"] == {"racetape_schedules": "40"}


def test_the_fixture(run: Run, pytester: pytest.Pytester) -> None:
    result = run(
        f"""
        import pytest
        from racetape.pytest_plugin import ScheduleFailed

        def test_clean(hunt):
            assert hunt({FIXED})["schedules"] == 40

        def test_two_failures(hunt):
            for seed in (1, 2):
                with pytest.raises(ScheduleFailed, match="NR_ISOLATED_ANON is -") as caught:
                    hunt("wrong-zone-small", seed=seed, minimise=0)
                assert caught.value.answer["schedules"] == 1
                assert caught.value.tape.is_file()

        @pytest.mark.xfail(raises=ScheduleFailed, strict=True)
        def test_known_bug(hunt):
            hunt("wrong-zone-small", budget=5)

        def test_wrong(hunt):
            hunt("wrong-zone-smal")

        def test_wrong_too(hunt):
            hunt("wrong-zone-small", budgets=3)
        """,
        "--racetape-artifacts",
        "tapes",
    )
    result.assert_outcomes(passed=2, xfailed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["racetape: no such scenario: 'wrong-zone-smal'; did you mean*", "racetape: no such argument: 'budgets'*"]
    )
    names = sorted(path.stem.removeprefix("test_it.py-") for path in (pytester.path / "tapes").glob("*.tape"))
    known, first, second = names
    assert known.startswith("test_known_bug-")
    assert second == f"{first}-2"
    assert not (pytester.path / ".pytest_racetape").exists()


def properties(report: Path) -> dict[str | None, dict[str | None, str | None]]:
    """Of each test in a JUnit report."""
    return {
        case.get("name"): {row.get("name"): row.get("value") for row in case.iter("property")}
        for case in ElementTree.parse(report).iter("testcase")
    }


def test_marks_add_up(run: Run, pytester: pytest.Pytester) -> None:
    result = run(
        f"""
        import pytest
        pytestmark = pytest.mark.racetape(scenario="wrong-zone", strategy="pct", budget=7)

        @pytest.mark.racetape({FIXED})
        @pytest.mark.parametrize("kind", [
            pytest.param("up", marks=pytest.mark.racetape(config="smp2")),
            "smp",
        ])
        def test_it(kind):
            pass

        class TestAll:
            pytestmark = pytest.mark.racetape(scenario="wrong-zone-small", config="up", variant="fix-7454f4ba40b4")

            def test_mine(self):
                pass

            @pytest.mark.racetape(variant="buggy")
            def test_other(self):
                pass
        """,
        "--junitxml=report.xml",
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["wrong-zone-small (buggy, up-2level): failed in schedule 1 of 7"])
    cases = properties(pytester.path / "report.xml")
    assert {name: case["racetape_schedules"] for name, case in cases.items()} == {
        "test_it[up]": "40",
        "test_it[smp]": "40",
        "test_mine": "7",
        "test_other": "1",
    }


def test_the_example_of_the_docs(run: Run) -> None:
    section = (ROOT / "docs" / "hunt.md").read_text().partition("## In pytest")[2]
    result = run("    import pytest" + section.partition("    import pytest")[2].partition("\n\nA ")[0])
    result.assert_outcomes(passed=3, xfailed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "which scenario?"),
        ("'wrong-zone-small'", "keyword arguments only, not 'wrong-zone-small'"),
        ("scenario='nonsense'", "no such scenario: 'nonsense'"),
        ("scenario='wrong-zone-small', variant='nonsense'", "no such variant: 'nonsense'"),
        ("scenario='wrong-zone-small', config='nonsense'", "no such configuration: 'nonsense'"),
        ("scenario='wrong-zone-small', strategy='nonsense'", "unknown strategy 'nonsense'"),
        ("scenario='wrong-zone-small', strategy='default'", "makes no random choice"),
        ("scenario='wrong-zone-small', budgets=1", "no such argument: 'budgets'; there are scenario, variant, config"),
        ("scenario='wrong-zone-small', budget='1'", "budget is '1', and must be int"),
        ("scenario='wrong-zone-small', budget=True", "budget is True, and must be int"),
        ("scenario='wrong-zone-small', budget=0", "budget is 0; the least is 1"),
        ("scenario='wrong-zone-small', jobs=0", "jobs is 0; the least is 1"),
        ("scenario='wrong-zone-small', seed=2**64", "seed is more than 2^64 - 1"),
        ("scenario=7", "scenario is 7, and must be str"),
    ],
)
def test_bad_arguments_are_one_usage_error(run: Run, arguments: str, message: str) -> None:
    result = run(
        f"""
        import pytest

        @pytest.mark.racetape({arguments})
        def test_it():
            pass

        def test_other():
            print("another test ran")
        """
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    assert line.startswith("ERROR: test_it.py::test_it: racetape: ")
    assert message in line
    assert "passed" not in result.stdout.str()


def test_contradicting_marks_are_a_usage_error(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.racetape(scenario="wrong-zone-small", budget=3)
        @pytest.mark.racetape(budget=4)
        def test_it():
            pass
        """
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "budget is given twice: " in result.stderr.str()


def test_a_hunt_in_which_no_schedule_ends_is_no_success(run: Run) -> None:
    result = run(
        """
        import dataclasses
        from racetape import pytest_plugin

        def test_it(hunt, monkeypatch):
            real = pytest_plugin._hunt_of
            monkeypatch.setattr(pytest_plugin, "_hunt_of", lambda o: dataclasses.replace(real(o), step_max=110_000))
            hunt("wrong-zone-small", config="smp2", budget=3)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*: not one of 3 schedules came to an end"])


def test_ctrl_c_ends_the_session(run: Run) -> None:
    result = run(
        f"""
        import os, signal, threading, pytest

        threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()

        @pytest.mark.racetape({FIXED.replace("budget=40", "budget=10**9")})
        def test_long():
            print("the body ran")

        def test_other():
            print("the body ran")
        """
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in result.stdout.str()
    assert "the body ran" not in result.stdout.str()


def test_artefacts_that_cannot_be_written_are_one_line(run: Run) -> None:
    result = run(
        """
        def test_it(hunt):
            hunt("wrong-zone-small", budget=3)
        """,
        "--racetape-artifacts",
        "/dev/null/tapes",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["racetape: *Not a directory: '/dev/null/tapes'"])


def test_unused_it_loads_nothing(run: Run) -> None:
    result = run(
        """
        import sys

        def test_it(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("racetape") or "racetape.pytest_plugin" in sys.modules
            for name in ("numpy", "click", "machine", "recorder", "debugger", "traces", "distributed"):
                assert name not in sys.modules
        """,
        "-p",
        "no:hypothesispytest",
    )
    result.assert_outcomes(passed=1)
