"""DPOR visits every execution of x86-TSO once, as many as the axioms allow, which know nothing of schedules."""

from __future__ import annotations

import random

import pytest
from executions import Op, executions, programs

from recorder.litmus import LitmusTest, assemble, explore, parse, parse_file, reduce
from recorder.litmus.bundled import find, groups, in_group

PLACES = "xyz"
REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi")

# Published for the same programs: executions that Nidhugg and GenMC visit under TSO (one for each rf and co).
PUBLISHED = {"sb": 4, "mp": 3, "lb": 3, "iriw": 15, "wrc": 7, "n6": 5, "n5": 4, "22w": 3}


def litmus(program: tuple[tuple[Op, ...], ...]) -> LitmusTest:
    cells = []
    for ops in program:
        rows, loads, stores = [], iter(REGISTERS), 0
        for op in ops:
            if op[0] == "mfence":
                rows.append("mfence")
            elif op[0] == "load":
                rows.append(f"movl ({PLACES[op[1]]}),%{next(loads)}")
            else:
                stores += 1
                rows.append(f"movl ${10 * len(cells) + stores},({PLACES[op[1]]})")
        cells.append(rows)
    table = " | ".join(f"P{n}" for n in range(len(cells))) + " ;\n"
    for i in range(max(map(len, cells))):
        table += " | ".join(rows[i] if i < len(rows) else "" for rows in cells) + " ;\n"
    return parse(f"X86 generated\n{{ x=0; y=0; z=0; }}\n{table}", "generated")


def check(some: list[tuple[tuple[Op, ...], ...]]) -> None:
    for program, row in zip(some, assemble([litmus(program) for program in some]), strict=True):
        reduction = reduce(row)
        assert not reduction.cut
        assert reduction.schedules == executions(program), program
        assert reduction.blocked <= 2 * reduction.schedules, program


@pytest.mark.parametrize("stores", range(1, 5))
def test_all_programs_of_two_accesses(stores: int) -> None:
    check(list(programs(stores)))


def sample(seed: int, count: int, threads: int, length: int) -> list[tuple[tuple[Op, ...], ...]]:
    r = random.Random(seed)
    out = []
    while len(out) < count:
        program = tuple(
            tuple(
                ("mfence",) if r.random() < 0.12 else (r.choice(("load", "store")), r.randrange(2 + (threads > 2)))
                for _ in range(r.randint(1, length))
            )
            for _ in range(threads)
        )
        if sum(op[0] == "store" for ops in program for op in ops) <= 5:
            out.append(program)
    return out


@pytest.mark.parametrize(("threads", "length"), [(2, 4), (3, 3), (4, 2)])
def test_random_programs(threads: int, length: int) -> None:
    check(sample(threads, 60, threads, length))


@pytest.mark.soak
@pytest.mark.parametrize(("threads", "length"), [(2, 5), (3, 3), (4, 2)])
def test_many_random_programs(threads: int, length: int) -> None:
    check(sample(10 + threads, 1500, threads, length))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_as_many_as_others_visit(name: str) -> None:
    (assembled,) = assemble([parse_file(path) for path in find(name)])
    reduction = reduce(assembled)
    assert reduction.schedules == PUBLISHED[name]
    assert reduction.blocked <= reduction.schedules


@pytest.mark.parametrize("group", groups())
def test_all_bundled_tests_end_as_they_do_state_by_state(group: str) -> None:
    """Loops that wait and spinlocks among them."""
    for assembled in assemble([parse_file(path) for path in in_group(group)]):
        reduction = reduce(assembled)
        assert reduction.cut == "", assembled.test.name
        expected = {(final.threads, final.memory) for final in explore(assembled).finals.values()}
        assert {(final.threads, final.memory) for final in reduction.finals.values()} == expected, assembled.test.name
        assert reduction.schedules < 1000
