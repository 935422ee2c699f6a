"""A process that measures one build of the core on request, so that two builds can take turns.

Run as `python -m benchmarks.worker FOLDER`; RACETAPE_CORE names the build. Each line of standard input names a
measurement and a guest; the answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.guests import Guest
from benchmarks.racetape_runs import MEASUREMENTS, Figures


class Worker:
    """The parent's end. `core` is the path of a build of the core; None means what is installed."""

    def __init__(self, folder: Path, core: str | None) -> None:
        environment = dict(os.environ)
        if core is not None:
            environment["RACETAPE_CORE"] = core
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parent.parent,
        )

    def measure(self, measurement: str, guest: str) -> Figures:
        """One measurement. Raises RuntimeError if it fails; the worker has printed why."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{measurement} {guest}\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{measurement} of {guest} failed")
        figures: Figures = json.loads(line)
        return figures

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        measurement, guest = line.split()
        print(json.dumps(MEASUREMENTS[measurement](folder, Guest.read(folder, guest))), flush=True)


if __name__ == "__main__":
    main()
