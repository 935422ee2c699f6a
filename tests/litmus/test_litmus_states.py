"""The bundled tests have exactly the known final states, under every model."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from expected_states import EXPECTED

from recorder.litmus import Assembled, assemble, judge, parse, parse_file
from recorder.litmus.bundled import FOLDER, find, groups
from recorder.litmus.engine import Moment

FILES = sorted(FOLDER.glob("*/*.litmus"))
MODELS = ("tso", "sc", "up")


@cache
def assembled() -> dict[str, Assembled]:
    return {row.test.name: row for row in assemble([parse_file(path) for path in FILES])}


def expected(name: str, model: str) -> list[tuple[int, ...]]:
    models = EXPECTED[name][1]
    text = models[model]
    if text.startswith("as "):
        text = models[text[3:]]
    return [tuple(int(value) for value in state.split(",")) for state in text.split()]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", EXPECTED)
def test_known_states(name: str, model: str) -> None:
    verdict = judge(assembled()[name], model)
    assert verdict.locations == tuple(EXPECTED[name][0].split())
    assert [state.values for state in verdict.states] == expected(name, model)
    assert not verdict.cut
    assert verdict.exploration.schedules >= len(verdict.states)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_own_expectations(path: Path, model: str) -> None:
    """Every bundled test says what each model makes of it, and is right."""
    row = assembled()[path.stem]
    assert model in {key.lower() for key in row.test.info}
    verdict = judge(row, model)
    assert verdict.contradictions == ()
    assert not verdict.cut


@cache
def in_32_bits() -> dict[str, Assembled]:
    """The bundled tests as X86 tests (in AT&T order, which %eax tells), but those with quadwords."""
    texts = [path.read_text() for path in FILES]
    texts = [text.replace("X86_64", "X86").replace("uint64_t", "int") for text in texts if "movq" not in text]
    texts = [re.sub(r":r([a-d]x)", r":E\1", re.sub(r"r([sd]i)\b", r"e\1", text)) for text in texts]
    return {row.test.name: row for row in assemble([parse(text, "x86.litmus") for text in texts])}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "halves"])
def test_known_states_in_32_bits(name: str, model: str) -> None:
    verdict = judge(in_32_bits()[name], model)
    assert [label.lower().replace(":e", ":r") for label in verdict.locations] == EXPECTED[name][0].split()
    assert [state.values for state in verdict.states] == expected(name, model)
    assert verdict.allowed == judge(assembled()[name], model).allowed


def test_the_24_classics() -> None:
    names = {path.stem for path in find("classic")}
    assert len(names) == 24
    assert {"sb", "iriw", "n2", "n6", "inc-inc-lock"} <= names
    assert "classic" in groups()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["n6", "sb", "iriw", "spinlock", "two-forwarded", "inc-inc"])
def test_every_state_can_be_run_again(name: str, model: str) -> None:
    """The plan of a witness, on a machine of its own, ends in the state it was asked for."""
    row = assembled()[name]
    exploration = judge(row, model).exploration
    for node, final in exploration.finals.items():
        steps, plan = exploration.witness(node)
        assert len(plan) == 16 * len(steps)
        engine = type(exploration.engine)(row)
        first = engine.first()
        keys = list(first.key)
        engine.go_to(first, 0)
        for number, step in enumerate(steps):
            if model == "up":  # on one CPU, a change of thread is a change of registers
                engine.go_to(Moment(tuple(keys), None), step.thread)
            reason, _, _ = engine.machine.execute(plan[16 * number : 16 * number + 16], exact=True)
            assert reason == "plan"
            keys[step.thread] = engine.threads.number(engine.state(step.thread))
            keys[-1] = engine.memories.number(engine.stage.memory())
        assert tuple(engine.threads[number] for number in keys[:-1]) == final.threads
        assert engine.memories[keys[-1]] == final.memory
