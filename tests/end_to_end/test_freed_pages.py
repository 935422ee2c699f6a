"""The use of a freed page, from the hunt to the tape that explains it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from machine import images
from machine.pool import page_pool
from racetape.cli import main
from recorder.hunt import Hunt, hunt
from recorder.record import prepare
from recorder.schedule import auto

CAUSE = "use of a freed page in user_main"


def test_from_the_hunt_to_the_prompt(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tape, small, script, again = (str(tmp_path / name) for name in ("a.tape", "b.tape", "b.txt", "c.tape"))
    assert main(["hunt", "mremap-flush", "--json", "-o", tape]) == 1
    (failure,) = json.loads(capfd.readouterr().out)["failures"]
    assert failure["cause"] == CAUSE
    assert main(["verify", tape]) == 0
    capfd.readouterr()
    assert main(["replay", tape, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["stop"], answer["steps"]) == ("freed", failure["steps"])
    where, _, callers = answer["freed_use"].rpartition(" in ")
    assert where == f"@{failure['steps'] - 1} {failure['text']}"
    assert callers.split(" < ")[0] == "free_pages_prepare"
    assert {"put_page", "truncate_page", "user_main"} <= set(callers.split(" < "))
    assert "stores to page frame" in failure["text"]
    assert main(["minimise", tape, "-o", small, "--script", script, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["cause"] == CAUSE
    assert main(["record", "mremap-flush", "--script", script, "-o", again]) == 1
    assert Path(again).read_bytes() == Path(small).read_bytes()
    command = [sys.executable, "-m", "racetape", "debug", small, "-ex", "seek end", "-ex", "quit"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "the run ends at @" in shown
    assert "(scenarios/mremap_flush.c:" in shown


@pytest.mark.parametrize("scenario", ["wrong-zone-small", "compact-small", "shootdown-small"])
@pytest.mark.parametrize("configuration", ["up-pae", "smp2-2level", "smp2-x86_64"])
def test_the_guest_does_not_touch_what_it_has_freed(scenario: str, configuration: str) -> None:
    variant = next(name for name in images.scenario(scenario).variants if name.startswith("fix-"))
    verdict = hunt(Hunt(scenario, variant, configuration, schedules=100))
    assert (verdict.result, dict(verdict.tally.stops)) == ("budget", {"exit": 100})


def test_pages_that_are_free_when_the_guest_is_ready_are_known() -> None:
    """Those that were freed by the boot, too: a load from some of the first frames of the allocator finds it free."""
    prepared = prepare("window", None, "smp2-2level")
    machine = prepared.machine
    pool = page_pool(machine, prepared.image)
    assert pool is not None
    found = 0
    for frame in range(pool.first_frame, pool.first_frame + 64):
        machine.restore(prepared.at_ready)
        code = b"\xa1" + (0xC0000000 + 4096 * frame).to_bytes(4, "little")  # in the direct mapping
        machine.write(machine.translate(0, machine.registers(0)["rip"]), code)
        if machine.execute(auto(1).tobytes())[0] == "freed":
            use = machine.freed_use()
            assert use is not None
            assert (use[0], use[4]) == ("load", 4096 * frame)
            assert use[7] < prepared.ready_step
            found += 1
    assert 16 < found <= 64
