"""`racetape hunt --cluster`: the same answer as alone, whoever dies on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask_cluster
import pytest
from dask_cluster import LocalDask, local_dask, wait_until

from machine.errors import RacetapeError
from racetape.cli import main
from recorder.hunt import Checks, Hunt, Tally, Verdict, cluster, hunt

SMALL = {"scenario": "wrong-zone-small", "configuration": "smp2-2level", "strategy": "random-walk", "seed": 0}
CRASH = ["wrong-zone-small", "--config", "smp2", "--strategy", "random-walk", "--endings-only"]
LONG = ["hunt", *CRASH, "--all", "--budget", "500", "--json"]
FIX = "fix-7454f4ba40b4"

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning", "default::pytest.PytestUnraisableExceptionWarning")


def answered(answer: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on who ran it and when."""
    rows = [{**row, "tape": ""} for row in answer["failures"]]
    kept = {k: v for k, v in answer.items() if k not in ("seconds", "first_failure_seconds", "resumed")}
    return {**kept, "failures": rows}


def contents(verdict: Verdict) -> tuple[object, ...]:
    tally = verdict.tally
    return verdict.result, tally.schedules, tally.steps, tally.stops, tally.found, tally.states


def schedules_done(path: Path) -> int:
    return int(json.loads(path.read_bytes().splitlines()[1])["schedules"]) if path.exists() else 0


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], bytes]:
    """The answer of LONG and its first tape, by this process alone."""
    tape = tmp_path_factory.mktemp("alone") / "bug.tape"
    command = [sys.executable, "-m", "racetape", *LONG, "--jobs", "1", "-o", str(tape)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    return json.loads(done.stdout), tape.read_bytes()


@pytest.fixture(scope="module")
def dask() -> Iterator[LocalDask]:
    """Two workers, for tests that leave them alone."""
    with local_dask(2) as running:
        yield running


def start(address: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "racetape", *LONG, "--cluster", address, "-o", str(folder / "bug.tape"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str], folder: Path, expected: tuple[dict[str, Any], bytes]) -> None:
    """Waits for it: the answer and the tape are those of one process."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (1, "")
    assert answered(json.loads(out)) == answered(expected[0])
    assert (folder / "bug.tape").read_bytes() == expected[1]


def test_the_same_answer_as_alone(dask: LocalDask, tmp_path: Path, expected: tuple[dict[str, Any], bytes]) -> None:
    finished(start(dask.address, tmp_path), tmp_path, expected)


def test_the_first_failure_is_the_first_by_number(dask: LocalDask) -> None:
    what = Hunt(**SMALL, schedules=1000)
    assert contents(hunt(dataclasses.replace(what, cluster=dask.address))) == contents(hunt(what))


def test_a_worker_is_killed(tmp_path: Path, expected: tuple[dict[str, Any], bytes]) -> None:
    state = tmp_path / "state.hunt"
    with local_dask(2) as dask:
        process = start(dask.address, tmp_path, "--resume", str(state))
        wait_until(lambda: schedules_done(state) >= 64)
        dask.kill(dask.workers[0])
        done = schedules_done(state)
        finished(process, tmp_path, expected)
        assert done < 400


def test_all_workers_are_killed_and_others_come(tmp_path: Path, expected: tuple[dict[str, Any], bytes]) -> None:
    state = tmp_path / "state.hunt"
    with local_dask(1) as dask:
        process = start(dask.address, tmp_path, "--resume", str(state))
        wait_until(lambda: schedules_done(state) >= 64)
        dask.kill(*dask.workers)
        assert schedules_done(state) < 400
        dask.start_worker()
        finished(process, tmp_path, expected)


def test_the_scheduler_is_killed_and_started_anew(tmp_path: Path, expected: tuple[dict[str, Any], bytes]) -> None:
    state = tmp_path / "state.hunt"
    with local_dask(1) as dask:
        process = start(dask.address, tmp_path, "--resume", str(state))
        wait_until(lambda: schedules_done(state) >= 64)
        dask.kill(dask.scheduler, *dask.workers)
        assert schedules_done(state) < 400
        time.sleep(1)
        dask.start_scheduler()
        dask.start_worker()
        finished(process, tmp_path, expected)


def test_the_scheduler_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is in the file, and goes on without any cluster."""
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    alone = Hunt(**SMALL, schedules=500, every=True)
    what = dataclasses.replace(alone, resume=tmp_path / "state.hunt")
    with local_dask(1) as dask:

        def kill(tally: Tally) -> None:
            if tally.schedules >= 64:
                dask.kill(dask.scheduler, *dask.workers)

        with pytest.raises(RacetapeError, match=r"scheduler at .* is gone .* --resume FILE"):
            hunt(dataclasses.replace(what, cluster=dask.address), kill)
    last = hunt(what)
    assert 64 <= last.resumed < 500
    assert contents(last) == contents(hunt(alone))


def test_the_hunt_is_killed_and_goes_on(
    dask: LocalDask, tmp_path: Path, expected: tuple[dict[str, Any], bytes]
) -> None:
    """The cluster drops what nobody waits for any more, and the rest is given out again."""
    state = tmp_path / "state.hunt"
    process = start(dask.address, tmp_path, "--resume", str(state))
    wait_until(lambda: schedules_done(state) >= 64)
    process.kill()
    process.communicate()
    assert schedules_done(state) < 500
    finished(start(dask.address, tmp_path, "--resume", str(state)), tmp_path, expected)


def test_ctrl_c_and_on_with_processes(dask: LocalDask, tmp_path: Path, expected: tuple[dict[str, Any], bytes]) -> None:
    state = tmp_path / "state.hunt"
    process = start(dask.address, tmp_path, "--resume", str(state))
    wait_until(lambda: schedules_done(state) >= 64)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert json.loads(out)["interrupted"]
    command = [sys.executable, "-m", "racetape", *LONG, "--jobs", "2", "--resume", str(state)]
    again = subprocess.Popen(
        [*command, "-o", str(tmp_path / "bug.tape")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    finished(again, tmp_path, expected)


def test_time_is_a_budget_there_too(dask: LocalDask) -> None:
    began = time.monotonic()
    verdict = hunt(Hunt(**SMALL, variant=FIX, schedules=1 << 40, seconds=2, cluster=dask.address))
    assert time.monotonic() - began < 20
    assert verdict.result == "budget"
    assert verdict.seconds >= 2
    assert verdict.tally.schedules > 0


def test_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)
    with local_dask() as dask, pytest.raises(RacetapeError, match="has had no worker for 1 s"):
        hunt(Hunt(**SMALL, schedules=100, cluster=dask.address))


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        (dask_cluster.die_on_a_worker, "worker after worker of the Dask cluster died on one block"),
        (dask_cluster.no_memory_on_a_worker, "MemoryError: no room for 1 GiB"),
        (dask_cluster.refuse_on_a_worker, "nothing to check here"),
        (lambda prepared: (), "cannot be sent to the workers of a cluster"),
    ],
)
def test_workers_that_cannot(checks: Checks, message: str) -> None:
    with local_dask(1, deaths=0) as dask, pytest.raises(RacetapeError, match=message) as caught:
        hunt(Hunt(**SMALL, variant=FIX, schedules=100, cluster=dask.address, checks=checks))
    assert "\n" not in str(caught.value)


def another_version(folder: Path) -> None:
    info = folder / "racetape-99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: racetape\nVersion: 99\n")


def another_build(folder: Path) -> None:
    (folder / "sitecustomize.py").write_text(
        "import recorder.strategies.random_walk as walk\nwalk.BATCH_RECORDS = 255\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_version, "has racetape 99, the hunt is of racetape"),
        (another_build, "has another build of racetape: its first_schedule is"),
        (dask_cluster.no_racetape, "a worker of the Dask cluster cannot run this hunt; has it racetape"),
    ],
)
def test_workers_with_another_racetape_are_refused(
    change: Any, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(tmp_path)
    with local_dask() as dask:
        dask.start_worker(tmp_path)
        capfd.readouterr()
        command = ["hunt", *CRASH, "--variant", FIX, "--budget", "100", "-o", str(tmp_path / "bug.tape")]
        assert main([*command, "--cluster", dask.address]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert message in err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:abc", "what://127.0.0.1:80", ""])
def test_nobody_answers(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    capfd.readouterr()
    assert main(["hunt", *CRASH, "-o", str(tmp_path / "bug.tape"), "--cluster", address]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    assert f"no Dask scheduler answers at {address}" in err


def test_bad_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["hunt", *CRASH, "-o", str(tmp_path / "bug.tape"), "--cluster", "127.0.0.1:1"]
    assert main([*command, "--jobs", "2"]) == 2
    assert "--jobs is for processes on this host" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)  # as if it were not installed
    assert main(command) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "pip install 'racetape[cluster]'" in err


def test_without_a_cluster_dask_is_not_loaded() -> None:
    code = "import sys, recorder.hunt, racetape.hunt; sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(dask_cluster.ROOT)})
