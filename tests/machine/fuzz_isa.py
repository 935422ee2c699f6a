"""`make fuzz-isa SEED=1 COUNT=1000000`: any number of vectors on the real CPU and on our machine.

A mismatch is made as small as it gets (instructions left out, registers and memory zero) and printed as one line that
`python tests/machine/fuzz_isa.py --vector 'LINE'` runs again.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from native_generator import Generator
from native_layout import REGISTERS, WINDOWS, WORLDS, Vector
from native_oracle import Comparison, build_runner, host_flags, host_maker

from machine import _core

BATCH = 10_000
WORKS = dict(zip(["64", "32", "32-limits", "32-bases", "16", "16-stack"], WORLDS, strict=True))


def to_line(vector: Vector) -> str:
    """All that makes up a vector; what is zero is left out."""
    world = next(name for name, world in WORKS.items() if world == vector.world)
    parts = [f"world={world}", f"name={vector.name}", f"code={vector.code.hex()}", f"entry={vector.entry:#x}"]
    parts.append(f"flags={vector.flags:#x}")
    parts += [f"{name}={value:#x}" for name, value in zip(REGISTERS, vector.gpr, strict=True) if value]
    if vector.undefined:
        parts.append(f"undefined={vector.undefined:#x}")
    for number, bits in vector.undefined_bits.items():
        parts.append(f"undefined_{REGISTERS[number]}={bits:#x}")
    parts += [f"undefined_byte={addr:#x}" for addr in sorted(vector.undefined_bytes)]
    for (start, _), window in zip(WINDOWS, vector.windows, strict=True):
        used = window.rstrip(b"\0")
        skip = len(used) - len(used.lstrip(b"\0"))
        if used:
            parts.append(f"{start + skip:#x}={used[skip:].hex()}")
    return " ".join(parts)


def from_line(line: str) -> Vector:
    fields = [part.split("=", 1) for part in line.split()]
    world = WORKS[next(value for key, value in fields if key == "world")]
    vector = Vector(world, b"", [0] * 16, windows=[bytearray(size) for _, size in WINDOWS], text=line)
    for key, value in fields:
        if key == "code":
            vector.code = bytes.fromhex(value)
        elif key == "name":
            vector.name = value
        elif key in ("entry", "flags", "undefined"):
            setattr(vector, key, int(value, 0))
        elif key in REGISTERS:
            vector.gpr[REGISTERS.index(key)] = int(value, 0)
        elif key == "undefined_byte":
            vector.undefined_bytes.add(int(value, 0))
        elif key.startswith("undefined_"):
            vector.undefined_bits[REGISTERS.index(key.removeprefix("undefined_"))] = int(value, 0)
        elif key.startswith("0x"):
            vector.put(int(key, 0), bytes.fromhex(value))
    return vector


def without_each_instruction(vector: Vector) -> Iterator[Vector]:
    at = 0
    while vector.name == "block" and at < len(vector.code):
        try:
            length = _core.decode(vector.code[at:].ljust(16, b"\xcc"), bits=vector.world.bits)[1]
        except ValueError:
            return
        if length < len(vector.code):
            yield replace(vector, code=vector.code[:at] + vector.code[at + length :])
        at += length


def with_each_zero(vector: Vector) -> Iterator[Vector]:
    if vector.flags != 2:
        yield replace(vector, flags=2)
    for number, value in enumerate(vector.gpr):
        if value:
            yield replace(vector, gpr=[0 if n == number else other for n, other in enumerate(vector.gpr)])
    for number, window in enumerate(vector.windows):
        for part in halves(0, len(window)):
            if any(window[part]):
                changed = [bytearray(other) for other in vector.windows]
                changed[number][part] = bytes(len(changed[number][part]))
                yield replace(vector, windows=changed)


def halves(start: int, end: int) -> Iterator[slice]:
    """The whole, its halves, their halves, ..."""
    yield slice(start, end)
    if end - start > 4:
        middle = (start + end) // 2
        yield from halves(start, middle)
        yield from halves(middle, end)


def smallest(vector: Vector, differs: Callable[[Vector], bool]) -> Vector:
    """Takes away one thing after the other as long as the two sides differ."""
    found = True
    while found:
        found = False
        for candidates in (without_each_instruction, with_each_zero):
            for candidate in candidates(vector):
                if differs(candidate):
                    vector, found = candidate, True
                    break
    return vector


def report(sides: Comparison, vector: Vector) -> None:
    small = smallest(vector, lambda candidate: bool(sides.failures([candidate])))
    for line in sides.failures([small]):
        print(line)
    print(f"    again: python tests/machine/fuzz_isa.py --vector '{to_line(small)}'", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--bits", type=int, choices=(16, 32, 64), help="only code of this size")
    parser.add_argument("--name", help="only this mnemonic")
    parser.add_argument("--stop-after", type=int, default=10, help="mismatches")
    parser.add_argument("--vector", help="run this one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sides = Comparison(build_runner(Path(folder)))
        if arguments.vector:
            failures = sides.failures([from_line(arguments.vector)])
            print("\n".join(failures) or "no difference")
            return bool(failures)
        worlds = [world for world in sides.worlds if arguments.bits in (None, world.bits)]
        generator = Generator(arguments.seed, worlds=worlds, maker=host_maker())
        generator.host_flags = host_flags()
        if arguments.name:
            generator.rows = [row for row in generator.rows if row.name == arguments.name]
        vectors = (
            (generator.single() for _ in range(arguments.count))
            if arguments.name
            else generator.vectors(arguments.count)
        )
        done = mismatches = 0
        start = time.monotonic()
        while batch := list(islice(vectors, BATCH)):
            for vector in sides.differing(batch):
                mismatches += 1
                report(sides, vector)
                if mismatches >= arguments.stop_after:
                    return 1
            done += len(batch)
            print(
                f"\r{done:,} vectors, {done / (time.monotonic() - start):,.0f}/s, {mismatches} differ",
                end="",
                flush=True,
            )
        print()
    return mismatches > 0


if __name__ == "__main__":
    sys.exit(main())
