"""Where the core's time goes: `python -m benchmarks.profile`, with Linux's `perf` (no hardware counters needed).

A build of the core with debug information, otherwise with setup.py's flags, runs the workload under `perf record`. Each
sample counts for the innermost inlined function's source file, so that what gcc has inlined into a handler (the fast
memory path, the tap) is told apart from the handler.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks import guests
from benchmarks.guests import Guest

ROOT: Final = Path(__file__).parent.parent
ROUNDS: Final = 6000
SAMPLES_PER_SECOND: Final = 4000

PARTS: Final = {
    "fetch and dispatch": ("execute.c", "execute.h", "chain.c", "chain.h", "plan.c", "block.c", "block.h"),
    "decode": ("decode.c", "decode.h", "insn.c", "insn.def"),
    "execute": ("exec_", "exec.h", "op.h", "operand.h", "flags.h", "registers.", "segment."),
    "memory, direct path": ("access.h", "memory.h"),
    "memory, other paths (TLB, walks, store buffer)": ("access.c", "memory.c", "tlb.", "mmu.", "store_buffer."),
    "tap": ("tap.", "event.def"),
}
"""Part -> beginnings of the names of its source files."""


def build_core(folder: Path, checkout: Path) -> Path:
    """The core of `checkout` with its setup.py's flags and -g, built in `folder`."""
    code = """if True:
        import sys, setuptools
        from distutils.core import run_setup
        distribution = run_setup("setup.py", stop_after="init")
        distribution.cmdclass = {}  # the core alone, no guest images
        distribution.ext_modules[0].extra_compile_args.append("-g")
        command = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp, command.inplace = sys.argv[1], sys.argv[1] + "/objects", 0
        distribution.run_command("build_ext")
    """
    command = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("machine/_core*.so"))


def sample(folder: Path, core: Path, measurement: str, guest: str) -> Counter[int]:
    """Samples by address in `core` of one measurement; 0 stands for every address elsewhere."""
    data = folder / "perf.data"
    environment = os.environ | {"RACETAPE_CORE": str(core)}
    # With CPU clock samples the address is where the timer found the program: exact enough for lines, not instructions.
    record = ["perf", "record", "-q", "-e", "cpu-clock:u", "-F", str(SAMPLES_PER_SECOND), "-o", str(data), "--"]
    subprocess.run(
        [*record, sys.executable, "-m", "benchmarks.worker", str(folder)],
        input=f"{measurement} {guest}\n", text=True, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    script = subprocess.run(
        ["perf", "script", "-i", str(data), "-F", "ip,dso", "--show-mmap-events"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    mapped = re.compile(r"\[0x([0-9a-f]+)\(0x([0-9a-f]+)\) @ (\w+) .*: r-xp " + re.escape(str(core)))
    start = end = offset = 0
    samples: Counter[int] = Counter()
    for line in script.splitlines():
        if match := mapped.search(line):
            start, offset = int(match[1], 16), int(match[3], 0)
            end = start + int(match[2], 16)
        elif "PERF_RECORD" not in line and line.strip():
            ip = int(line.split()[0], 16)
            samples[ip - start + offset if start <= ip < end else 0] += 1
    if not end:
        raise RuntimeError("perf did not see the core being loaded")
    return samples


def sources(core: Path, addresses: Iterable[int]) -> dict[int, tuple[str, str, str]]:
    """Address -> (source file, line, outermost function) of the innermost inlined code there."""
    known = sorted(addresses)
    text = "\n".join(map(hex, known))
    done = subprocess.run(
        ["addr2line", "-a", "-i", "-f", "-e", str(core)], input=text, capture_output=True, text=True, check=True
    )
    found: dict[int, tuple[str, str, str]] = {}
    for block in re.split(r"^(?=0x[0-9a-f]+\n)", done.stdout, flags=re.MULTILINE)[1:]:
        address, *frames = block.splitlines()
        file, _, line = frames[1].partition(" (")[0].rpartition(":")
        found[int(address, 16)] = (Path(file).name, line, frames[-2])
    return found


def part(file: str) -> str:
    """Which of PARTS a source file belongs to."""
    for name, beginnings in PARTS.items():
        if file.startswith(beginnings):
            return name
    return "the rest of the core"


def share(counts: Counter[str], total: int, most: int) -> list[str]:
    """The most frequent, in per cent."""
    return [f"  {100 * count / total:5.1f} %  {name}" for name, count in counts.most_common(most)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--measurement", default="", help="quiet, tap, interleaved_tap, ... (default: quiet and tap)")
    parser.add_argument("--guest", default="workload", choices=guests.GUESTS)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="whose core to build (default: this one)")
    parser.add_argument("--top", type=int, default=12, help="functions and lines to list (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="racetape-profile-") as name:
        folder = Path(name)
        guests.build(folder, [arguments.guest], ROUNDS)
        core = build_core(folder, arguments.checkout)
        Guest.read(folder, arguments.guest)
        for measurement in [arguments.measurement] if arguments.measurement else ["quiet", "tap"]:
            samples = sample(folder, core, measurement, arguments.guest)
            del samples[0]  # nearly all of it is Python starting
            where = sources(core, samples)
            parts: Counter[str] = Counter()
            functions: Counter[str] = Counter()
            lines: Counter[str] = Counter()
            for address, count in samples.items():
                file, line, function = where[address]
                parts[part(file)] += count
                functions[function] += count
                lines[f"{file}:{line} in {function}"] += count
            total = parts.total()
            print(f"{measurement} of {arguments.guest}: {total} samples in the core")
            print("\n".join([*share(parts, total, 99), " by function (with what is inlined):"]))
            print(
                "\n".join([*share(functions, total, arguments.top), " by line:", *share(lines, total, arguments.top)])
            )


if __name__ == "__main__":
    main()
