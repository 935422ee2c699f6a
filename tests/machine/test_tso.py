"""Store buffering: exactly the outcomes of x86-TSO, no more and no fewer."""

import itertools
import random

import pytest
from classic_tso import REGISTERS, TESTS, VARIABLES, condition, loaded, parse
from tso_enumerator import Instruction, Program, outcomes
from tso_explorer import REGION, Explorer, thread

X, Y = 0x8000, 0x8004


@pytest.fixture(scope="module")
def explorers() -> dict[int, Explorer]:
    return {cpus: Explorer(cpus) for cpus in (1, 2, 3, 4)}


@pytest.mark.parametrize(("name", "text", "initial", "cond", "allowed", "count"), TESTS, ids=[t[0] for t in TESTS])
def test_classic(
    explorers: dict[int, Explorer], name: str, text: str, initial: dict[str, int], cond: str, allowed: bool, count: int
) -> None:
    program = parse(text)
    memory = {VARIABLES[v] + i: b for v, value in initial.items() for i, b in enumerate(value.to_bytes(4, "little"))}
    ours = explorers[len(program)].outcomes(program, memory)
    assert ours == outcomes(program, memory, REGION)
    names = {number: name for name, number in REGISTERS.items()}
    used = [v for v in VARIABLES if v in text.replace("xchg", "").replace("xadd", "").replace("bts", "")]
    states = set()
    for registers, data in ours:
        state = {f"{cpu}{names[reg]}": registers[cpu][reg] for cpu, part in enumerate(program) for reg in loaded(part)}
        for variable in used:
            at = VARIABLES[variable] - REGION[0]
            state[variable] = int.from_bytes(data[at : at + 4], "little")
        states.add(tuple(state.items()))
    holds = condition(cond)
    assert any(holds(dict(state)) for state in states) == allowed
    assert len(states) == count


SIMPLE: tuple[Instruction, ...] = (
    ("store", X, 4, 1),
    ("store", Y, 4, 1),
    ("load", 0, X, 4),
    ("load", 3, Y, 4),
    ("mfence",),
    ("xchg", X, 4, 1, True),
    ("xchg", Y, 4, 2, True),
)

RICH: tuple[Instruction, ...] = (
    *SIMPLE,
    ("lfence",),
    ("sfence",),
    ("store_reg", X, 4, 0),
    ("store", X, 1, 0x11),
    ("store", X + 1, 1, 0x22),
    ("store", X + 1, 2, 0x4433),
    ("store", X + 2, 4, 0x88776655),
    ("load", 0, X, 1),
    ("load", 0, X, 2),
    ("load", 3, X + 1, 2),
    ("load", 3, X + 2, 4),
    ("store", 0x803E, 4, 0xDDCCBBAA),  # over a cache line
    ("load", 2, 0x803E, 2),
    ("load", 3, 0x803E, 4),
    ("xadd", 0x803F, 2, 3, False),
    ("load", 2, 0x8040, 2),
    ("add", X, 4, 1, False),
    ("add", X, 4, 1, True),
    ("add", X + 2, 1, 1, True),
    ("or", Y, 2, 0x8001, True),
    ("bts", X, 4, 17, False),
    ("bts", X, 4, 9, True),
    ("xadd", Y, 4, 3, True),
    ("xadd", X, 2, 3, False),
    ("cmpxchg", X, 4, 1, True),
    ("cmpxchg", Y, 4, 1, False),
    ("xchg", X, 1, 2, True),
    ("add", 0x803E, 4, 0x01010101, True),  # a locked access over a cache line stays whole
)


def prepared(threads: tuple[tuple[Instruction, ...], ...]) -> Program:
    """Gives XCHG and its kin something to write: registers 1 and 2 start with values of the thread's own."""
    program = []
    for number, part in enumerate(threads):
        registers = {i[3] for i in part if i[0] in ("xchg", "xadd", "cmpxchg")} & {1, 2}
        program.append((*(("imm", reg, 0x10 * (number + 2) + reg) for reg in sorted(registers)), *part))
    return tuple(program)


def compare(explorer: Explorer, program: Program) -> None:
    ours, model = explorer.outcomes(program), outcomes(program, {}, REGION, explorer.machine.store_buffer)
    assert ours == model, f"{program}\nmissing {model - ours}\nextra {ours - model}"


def programs(
    alphabet: tuple[Instruction, ...], threads: int, length: int, seed: int, count: int | None
) -> list[tuple[tuple[Instruction, ...], ...]]:
    """All programs up to exchange of threads, or a sample of them."""
    parts = [p for n in range(1, length + 1) for p in itertools.product(alphabet, repeat=n)]
    if count is None:
        return list(itertools.combinations_with_replacement(parts, threads))
    r = random.Random(seed)
    return [tuple(r.choice(parts) for _ in range(threads)) for _ in range(count)]


def test_all_of_two_threads_by_two(explorers: dict[int, Explorer]) -> None:
    for threads in programs(SIMPLE, 2, 2, 0, None):
        compare(explorers[2], prepared(threads))


@pytest.mark.parametrize(
    ("alphabet", "threads", "length", "count"),
    [(SIMPLE, 2, 3, 1500), (SIMPLE, 3, 2, 500), (RICH, 2, 3, 1500), (RICH, 3, 2, 400), (RICH, 4, 1, 300)],
    ids=["two-by-three", "three-by-two", "two-by-three-rich", "three-by-two-rich", "four-by-one-rich"],
)
def test_sample(explorers: dict[int, Explorer], alphabet: tuple, threads: int, length: int, count: int) -> None:
    for program in programs(alphabet, threads, length, 1, count):
        compare(explorers[threads], prepared(program))


@pytest.mark.soak
@pytest.mark.parametrize(("alphabet", "threads", "length"), [(SIMPLE, 2, 3), (SIMPLE, 3, 2), (RICH, 2, 2)])
def test_all(explorers: dict[int, Explorer], alphabet: tuple, threads: int, length: int) -> None:
    for program in programs(alphabet, threads, length, 0, None):
        compare(explorers[threads], prepared(program))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_longer_sample(explorers: dict[int, Explorer], seed: int) -> None:
    for program in programs(RICH, 2, 4, seed, 2000):
        compare(explorers[2], prepared(program))


@pytest.mark.parametrize("capacity", [1, 2])
def test_full_buffer(capacity: int) -> None:
    """With little room a store waits for a drain; the outcomes are those of a model with the same room."""
    explorer = Explorer(2, capacity)
    for program in programs(SIMPLE, 2, 3, 7, 400):
        compare(explorer, prepared(program))


def test_stores_to_one_line_drain_whole(explorers: dict[int, Explorer]) -> None:
    """An unaligned store within a cache line is never seen in parts, one over two lines is. A locked one happens whole,
    but may come between the two parts of a load."""
    for addr, locked, torn in (
        (0x8001, False, set()),
        (0x803E, False, {0x2211, 0x44330000}),
        (0x803E, True, {0x44330000}),
    ):
        write: Instruction = ("xchg", addr, 4, 1, True) if locked else ("store", addr, 4, 0x44332211)
        program = (thread(("imm", 1, 0x44332211), write), thread(("load", 0, addr, 4)))
        seen = {registers[1][0] for registers, _ in explorers[2].outcomes(program)}
        assert seen == {0, 0x44332211} | torn
        compare(explorers[2], program)
