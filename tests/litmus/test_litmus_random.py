"""Random programs: the same sets of final states as the enumerators, which know nothing of our machine."""

from __future__ import annotations

import random

import pytest
from interleavings import interleavings
from tso_enumerator import Final, Instruction, Program, outcomes

from recorder.litmus import LitmusTest, assemble, explore, parse, reduce
from recorder.litmus.engine import Moment
from recorder.litmus.layout import BASE

REGION = (BASE, BASE + 192)
NAMES = ("ax", "cx", "dx", "bx")
LOW = ("al", "cl", "dl", "bl")
MODELS = ("tso", "sc", "up")


def register(number: int, size: int) -> str:
    return {1: LOW[number], 2: NAMES[number], 4: "e" + NAMES[number], 8: "r" + NAMES[number]}[size]


def place(addr: int) -> str:
    return f"m+{addr - BASE}"


def text_of(instruction: Instruction, wide: int) -> str:
    """AT&T text of an instruction; constants go to registers of `wide` bytes."""
    kind = instruction[0]
    suffix = {1: "b", 2: "w", 4: "l", 8: "q"}
    if kind in ("mfence", "lfence", "sfence"):
        return kind
    if kind == "imm":
        return f"mov{suffix[wide]} ${instruction[2]},%{register(instruction[1], wide)}"
    if kind == "or_reg":
        return f"or{suffix[wide]} ${instruction[2]},%{register(instruction[1], wide)}"
    if kind == "load":
        _, reg, addr, size = instruction
        return f"mov{suffix[size]} {place(addr)},%{register(reg, size)}"
    _, addr, size, argument, *rest = instruction
    if kind == "store":
        return f"mov{suffix[size]} ${argument},{place(addr)}"
    if kind == "store_reg":
        return f"mov{suffix[size]} %{register(argument, size)},{place(addr)}"
    lock = "lock " if rest[0] and kind != "xchg" else ""
    if kind in ("add", "or", "bts"):
        return f"{lock}{kind}{suffix[size]} ${argument},{place(addr)}"
    return f"{lock}{kind}{suffix[size]} %{register(argument, size)},{place(addr)}"


def litmus(program: Program, memory: dict[int, int], bits: int) -> LitmusTest:
    cells = [[text_of(row, bits // 8) for row in thread] for thread in program]
    rows = [" | ".join(f"P{n}" for n in range(len(program)))]
    for number in range(max(map(len, cells))):
        rows.append(" | ".join(thread[number] if number < len(thread) else "" for thread in cells))
    values = ", ".join(str(memory.get(addr, 0)) for addr in range(*REGION))
    table = "".join(f"{row} ;\n" for row in rows)
    name = {32: "X86", 64: "X86_64"}[bits]
    return parse(f"{name} random\n{{ uint8_t m[{REGION[1] - REGION[0]}] = {{{values}}}; }}\n{table}", "random")


def random_instruction(r: random.Random, sizes: tuple[int, ...], loads: tuple[int, ...]) -> Instruction:
    """Accesses around the start of the second cache line; `loads`: sizes of what goes into registers."""
    kind = r.choice(
        ("store",) * 4 + ("store_reg", "load", "load", "load", "load", "mfence", "sfence", "lfence", "rmw", "rmw")
    )
    near = r.choice((0, 0, 0, 1, 2, 4, 64, 64, 65, 60, 61, 62, 63, 128))
    addr = BASE + near
    size = r.choice(sizes)
    if kind == "store":
        return ("store", addr, size, r.choice((1, 2, 0x7F, (1 << 8 * min(size, 4) - 1) - 1)))
    if kind == "store_reg":
        return ("store_reg", addr, size, r.randrange(4))
    if kind == "load":
        return ("load", r.randrange(4), addr, r.choice(loads))
    if kind != "rmw":
        return (kind,)
    what = r.choice(("add", "or", "bts", "xchg", "xadd", "cmpxchg"))
    locked = what == "xchg" or r.random() < 0.5
    if what in ("add", "or"):
        return (what, addr, size, r.choice((1, 3, 0x40)), locked)
    if what == "bts":
        size = r.choice([s for s in sizes if s > 1])
        return (what, addr, size, r.randrange(8), locked)
    return (what, addr, r.choice(loads), r.randrange(4), locked)


def random_program(r: random.Random, threads: int, length: int, bits: int) -> Program:
    # A 32-bit result clears the upper half of a 64-bit register, which the enumerator does not know.
    sizes, loads = ((1, 2, 4), (1, 2, 4)) if bits == 32 else ((1, 2, 4, 8), (1, 2, 8))
    program = []
    for number in range(threads):
        setup = [("imm", reg, 0x11 * (1 + number) + reg) for reg in range(4) if r.random() < 0.5]
        program.append((*setup, *(random_instruction(r, sizes, loads) for _ in range(r.randint(1, length)))))
    return tuple(program)


def compare(programs: list[tuple[Program, dict[int, int]]], bits: int) -> None:
    names = ("rax", "rcx", "rdx", "rbx")
    rows = assemble([litmus(program, memory, bits) for program, memory in programs])
    for (program, memory), row in zip(programs, rows, strict=True):
        for model in MODELS:
            exploration = explore(row, model)
            assert not exploration.cut
            order = [exploration.engine.stage.register_names.index(name) for name in names]
            ours: set[Final] = {
                (
                    tuple(tuple(thread.registers[at] for at in order) for thread in final.threads),
                    final.memory[: REGION[1] - REGION[0]],
                )
                for final in exploration.finals.values()
            }
            if model == "tso":
                theirs = outcomes(program, memory, REGION)
                reduction = reduce(row)
                assert not reduction.cut
                finals = {(final.threads, final.memory) for final in reduction.finals.values()}
                assert finals == {(final.threads, final.memory) for final in exploration.finals.values()}
            else:
                theirs = interleavings(program, memory, REGION, model)
            assert ours == theirs, (model, [[text_of(i, bits // 8) for i in thread] for thread in program])


def sample(seed: int, count: int, threads: int, length: int, bits: int) -> list[tuple[Program, dict[int, int]]]:
    r = random.Random(seed)
    out = []
    for _ in range(count):
        memory = {BASE + r.choice((0, 1, 2, 64, 63, 128)): r.randrange(256) for _ in range(r.randrange(3))}
        out.append((random_program(r, threads, length, bits), memory))
    return out


@pytest.mark.parametrize("bits", [32, 64])
def test_witnesses_of_random_programs(bits: int) -> None:
    """Every final state is reached by its schedule, all of it run again on another machine."""
    programs = sample(77, 40, 2, 4, bits)
    for row in assemble([litmus(program, memory, bits) for program, memory in programs]):
        for model in ("tso", "sc", "dpor"):
            exploration = reduce(row) if model == "dpor" else explore(row, model)
            engine = type(exploration.engine)(row)
            first = engine.first()
            for node, final in exploration.finals.items():
                engine.go_to(Moment(first.key, first.base, exploration.witness(node)[1]), 0)
                assert tuple(engine.state(thread) for thread in range(len(final.threads))) == final.threads
                assert engine.stage.memory() == final.memory


SHAPES = [(2, 3, 120), (2, 4, 60), (3, 2, 60), (3, 3, 20), (4, 2, 10), (1, 8, 60)]


@pytest.mark.parametrize(("threads", "length", "count"), SHAPES)
@pytest.mark.parametrize("bits", [32, 64])
def test_random_programs(bits: int, threads: int, length: int, count: int) -> None:
    compare(sample(length, count, threads, length, bits), bits)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("threads", "length", "count"), SHAPES)
@pytest.mark.parametrize("bits", [32, 64])
def test_many_random_programs(bits: int, threads: int, length: int, count: int, seed: int) -> None:
    compare(sample(1000 + seed, count * 5, threads, length, bits), bits)
