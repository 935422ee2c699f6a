"""Instructions a second on the `wrong-zone` guest, with and without the event tap, beside unicorn.

Both run the same image from reset to the tracepoint `ready`. Unicorn is driven from Python, as its package offers it.
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from typing import Any, Final

from benchmarks.peer import Peer, best
from machine import _core, images
from machine._core import Machine
from recorder.record import ready_identifier

SCENARIO: Final = "wrong-zone"
MILLION: Final = 1_000_000
PLAN: Final = struct.pack("<BBHIQ", _core.AUTO, 0, 0, 0, 1 << 62)


def boot(scenario: images.Scenario, image: bytes) -> Machine:
    """A machine about to execute the image's first instruction."""
    machine = Machine(cpus=scenario.configuration().cpus, ram_bytes=scenario.ram_bytes)
    images.boot(machine, image, scenario.command_line)
    machine.stop_at_trace = ready_identifier(image)
    return machine


def run(machine: Machine, *, tap: bool) -> tuple[float, int]:
    """Seconds of CPU time to `ready`, and events made on the way (each chunk dropped when full)."""
    machine.tap = tap
    events = index = done = 0
    started = time.process_time()
    while True:
        stop, index, done = machine.execute(PLAN, index=index, done=done)
        if tap:
            events += machine.events()[0]
            machine.events_clear()
        if stop != "events":
            break
    elapsed_s = time.process_time() - started
    if stop != "trace":
        raise RuntimeError(f"the guest stopped with {stop} at step {machine.step}")
    return elapsed_s, events


def measure(rounds: int) -> dict[str, Any]:
    """All figures: million instructions a second, and ratios within this run."""
    scenario = images.scenario(SCENARIO)
    image = images.image_bytes(scenario.image())
    probe = boot(scenario, image)
    _, events = run(probe, tap=True)
    steps, until = probe.step, probe.registers(0)["rip"]

    def peer(hooked: bool) -> float:
        other = Peer(image, scenario.ram_bytes, scenario.command_line)
        if hooked:
            other.hook_memory()
        return other.run(until)

    seconds = {
        "racetape": best(lambda: run(boot(scenario, image), tap=False)[0], rounds),
        "racetape, every event in memory": best(lambda: run(boot(scenario, image), tap=True)[0], rounds),
        "unicorn": best(lambda: peer(False), rounds),
        "unicorn, memory hooks in Python": peer(True),
    }
    speed = {name: steps / elapsed_s / MILLION for name, elapsed_s in seconds.items()}
    return {
        "instructions": steps,
        "events": events,
        "million_instructions_per_second": {name: round(value, 2) for name, value in speed.items()},
        "ratios": {
            "racetape / unicorn": round(speed["racetape"] / speed["unicorn"], 2),
            "racetape recording / unicorn": round(speed["racetape, every event in memory"] / speed["unicorn"], 2),
            "racetape recording / unicorn with hooks": round(
                speed["racetape, every event in memory"] / speed["unicorn, memory hooks in Python"], 1
            ),
            "racetape recording / racetape": round(speed["racetape, every event in memory"] / speed["racetape"], 2),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement; the fastest counts")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{SCENARIO} guest, reset to ready: {figures['instructions']:,} steps, {figures['events']:,} events")
    for name, value in figures["million_instructions_per_second"].items():
        print(f"  {name:<36} {value:>10.2f} Mi/s")
    for name, value in figures["ratios"].items():
        print(f"  {name:<44} {value:>6}x")


if __name__ == "__main__":
    main()
