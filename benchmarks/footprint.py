"""What an instruction costs by how many different ones take turns: `python -m benchmarks.footprint`.

Straight-line code of simple instructions, no memory, in an endless loop. Each instruction is one indirect jump of the
host, whose predictor has only so many entries: beyond them every dispatch is a misprediction.
"""

from __future__ import annotations

import random
import struct
import time
from typing import Final

from machine import BareMachine, _core

SIZES: Final = (16, 64, 256, 1024, 2048, 4096, 16384)
STEPS: Final = 4_000_000
ROUNDS: Final = 5
BASE: Final = 0x10000
KINDS: Final = (
    "mov %eax,%edx",
    "lea 4(%eax),%edx",
    "test %eax,%eax",
    "mov %edx,%esi",
    "xor %edi,%edi",
    "mov $5,%ecx",
    "and $7,%esi",
    "or %eax,%edi",
)


def nanoseconds(lines: list[str]) -> float:
    """CPU time an instruction of a loop over `lines`, the best of a few rounds."""
    bare = BareMachine(32, ram_bytes=1 << 24)
    bare.load(BASE, "\n".join(["start:", *lines, "jmp start"]))
    bare.set(rip=BASE)
    machine = bare.machine
    machine.tap = machine.choices_enabled = False
    plan = struct.pack("<BBHIQ", _core.RUN, 0, 0, 0, STEPS)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        machine.execute(plan, step_max=machine.step + STEPS)
        best = min(best, time.process_time() - started)
    return best / STEPS * 1e9


def main() -> None:
    """Print the table."""
    print("instructions    all alike    of eight kinds    ns each")
    for size in SIZES:
        chooser = random.Random(1)
        alike, mixed = nanoseconds([KINDS[0]] * size), nanoseconds(chooser.choices(KINDS, k=size))
        print(f"{size:>12}{alike:>13.2f}{mixed:>18.2f}")


if __name__ == "__main__":
    main()
