"""Speed of racetape beside the unicorn emulator, both on the same guest code in the same run.

Every round measures everything once, one after the other; what is printed are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import guests, peer
from benchmarks.guests import Guest
from benchmarks.racetape_runs import compare_end
from benchmarks.rows import TASKS, Round, Task, speed, summary, table
from benchmarks.worker import Worker

ROUNDS: Final = 11
ROUNDS_QUICK: Final = 5
WORKLOAD_ROUNDS: Final = 1000
WORKLOAD_ROUNDS_QUICK: Final = 400


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, without tape and boot: < 20 s")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {ROUNDS}, quick {ROUNDS_QUICK})")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[t.name for t in TASKS],
        metavar="TASK",
        help="only these tasks: " + ", ".join(t.name for t in TASKS),
    )
    parser.add_argument("--against", metavar="CORE", help="a second build of the core (_core*.so) to take turns with")
    parser.add_argument("--json", action="store_true", help="print JSON, with the figures of every round")
    return parser.parse_args()


def peer_length(folder: Path, name: str) -> int:
    """Instructions of a guest that the peer runs, too. Raises RuntimeError if they differ in their last memory."""
    guest = Guest.read(folder, name)
    dump = folder / "dump"
    peer.run_unicorn(folder, guest, "plain", dump)
    instructions, same = compare_end(folder, guest, dump)
    dump.unlink()
    if not same:
        raise RuntimeError(f"racetape and unicorn end {name} with different memory")
    return instructions


def measure(folder: Path, task: Task, worker: Worker, length: int) -> dict[str, float]:
    """One task; `length` is the number of instructions that a peer executes."""
    if task.runner == "racetape":
        return worker.measure(task.what, task.guest)
    guest = Guest.read(folder, task.guest)
    if task.runner == "native":
        return {"seconds": peer.run_native(folder, guest), "instructions": length}
    run = peer.run_unicorn(folder, guest, task.what)
    return {"seconds": run.seconds, "instructions": length, "events": run.accesses}


def run_rounds(folder: Path, tasks: list[Task], count: int, workers: list[Worker]) -> list[list[Round]]:
    """The rounds as each worker saw them. Peers run once a round and count for every worker."""
    if not peer.has_native(folder):
        tasks = [task for task in tasks if task.runner != "native"]
    lengths = {task.guest: 0 for task in tasks if task.runner != "racetape"}
    for guest in lengths:
        lengths[guest] = peer_length(folder, guest)
    rounds: list[list[Round]] = [[{} for _ in range(count)] for _ in workers]
    for number in range(count):
        for task in tasks:
            # Who goes first changes from round to round.
            for i in range(len(workers)):
                which = (number + i) % len(workers)
                if task.runner == "racetape" or i == 0:
                    figures = measure(folder, task, workers[which], lengths.get(task.guest, 0))
                rounds[which][number][task.name] = figures
    return rounds


@contextmanager
def prepared(tasks: list[Task], workload_rounds: int, cores: list[str | None]) -> Iterator[tuple[Path, list[Worker]]]:
    """A folder with everything built, and a worker for each build of the core."""
    with tempfile.TemporaryDirectory(prefix="racetape-bench-") as name:
        folder = Path(name)
        guests.build(folder, {task.guest for task in tasks}, workload_rounds)
        peer.build_driver(folder)
        workers = [Worker(folder, core) for core in cores]
        try:
            yield folder, workers
        finally:
            for worker in workers:
                worker.close()


def about(load: float) -> dict[str, str]:
    """Where and when this was measured. `load` is the load average before it began."""
    root = Path(__file__).parent.parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    models = [
        row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row
    ]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit.stdout.strip(),
        "machine": f"{len(models)} x {models[0] if models else platform.machine()}",
        "python": platform.python_version(),
        "unicorn": metadata.version("unicorn"),
        "load": f"{load:.1f}",
        "core": os.environ.get("RACETAPE_CORE", "installed"),
    }


def compared(workers_rounds: list[list[Round]]) -> dict[str, float]:
    """Medians of the speed of the second build over that of the first, by task."""
    first, second = workers_rounds
    names = [task.name for task in TASKS if task.runner == "racetape" and task.label and task.name in first[0]]
    return {
        name: round(median(speed(b[name]) / speed(a[name]) for a, b in zip(first, second, strict=True)), 3)
        for name in names
    }


def main() -> None:
    arguments = parse()
    tasks = [task for task in TASKS if task.quick or not arguments.quick]
    if arguments.only:
        tasks = [task for task in TASKS if task.name in arguments.only]
    named = [os.environ.get("RACETAPE_CORE"), *([arguments.against] if arguments.against else [])]
    cores = [path and os.path.abspath(path) for path in named]
    length = WORKLOAD_ROUNDS_QUICK if arguments.quick else WORKLOAD_ROUNDS
    count = arguments.rounds or (ROUNDS_QUICK if arguments.quick else ROUNDS)
    load = os.getloadavg()[0]
    with prepared(tasks, length, cores) as (folder, workers):
        rounds = run_rounds(folder, tasks, count, workers)
    result: dict[str, Any] = {"about": about(load), **summary(rounds[0])}
    if arguments.against:
        result["against"] = {"core": arguments.against, **summary(rounds[1]), "over_first": compared(rounds)}
    if arguments.json:
        print(json.dumps(result | {"rounds": rounds}, indent=1))
        return
    print(", ".join(f"{key} {value}" for key, value in result["about"].items()), end="\n\n")
    print(table(result))
    if arguments.against:
        print(f"\n== {arguments.against}\n\n{table(result['against'])}\n\nits speed over that of the first:")
        for name, ratio in result["against"]["over_first"].items():
            print(f"  {name:<20}{ratio:>8.3f}x")


if __name__ == "__main__":
    main()
