"""Every schedule of a litmus test on the real machine, and what can come of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from recorder.litmus.assembler import Assembled
from recorder.litmus.engine import Choice, Engine
from recorder.litmus.multiprocessor import Multiprocessor, SequentiallyConsistent
from recorder.litmus.threads import Key, Step, ThreadState
from recorder.litmus.uniprocessor import Uniprocessor

STATES_MAX: Final = 500_000
"""Default limit on the states of one test (about a minute, half a gigabyte)."""

MODELS: Final[dict[str, Callable[[Assembled], Engine]]] = {
    "tso": Multiprocessor,
    "sc": SequentiallyConsistent,
    "up": Uniprocessor,
}
"""Memory models by name."""


@dataclass(frozen=True, slots=True)
class FinalState:
    """A final state: each thread's registers, and memory."""

    threads: tuple[ThreadState, ...]
    memory: bytes


@dataclass(frozen=True, slots=True)
class Exploration:
    """All that one test can do under one model.

    finals: every final state, by the number of its node.
    cut: why states may be missing, "" if none can be.
    schedules: ways from the start to a final state; orders that differ only in local instructions are one, and loops
        that come back to the same state are not gone round.
    """

    engine: Engine
    finals: dict[int, FinalState]
    cut: str
    schedules: int
    states: int
    transitions: int
    _parents: list[tuple[int, Choice]] = field(repr=False)

    @property
    def effort(self) -> str:
        """What was done, in words."""
        return f"{self.schedules:,} schedules, {self.states:,} states of the machine"

    def witness(self, node: int) -> tuple[list[Step], bytes]:
        """One schedule that ends in a final state: its steps, and its plan for `Machine.execute` (one record each).

        The plan is for the machine as it stands at the start of the test; under model "up" every thread is CPU 0.
        """
        choices: list[Choice] = []
        while node:
            node, choice = self._parents[node]
            choices.append(choice)
        steps: list[Step] = []
        plan = b""
        moment = self.engine.first()
        for choice in reversed(choices):
            more, records = self.engine.narrate(moment, choice)
            steps += more
            plan += records
            following = self.engine.take(moment, choice)
            assert following is not None, "what was taken once can be taken again"
            moment = following
        return steps, plan


def explore(assembled: Assembled, model: str = "tso", states_max: int = STATES_MAX) -> Exploration:
    """Run every schedule of a test under a model; states already seen are not gone on from.

    Args:
        model: "tso", "sc" or "up".
        states_max: states after which to give up; the result is then cut.
    Raises LitmusError if an instruction faults.
    """
    engine = MODELS[model](assembled)
    moment = engine.first()
    numbers: dict[Key, int] = {moment.key: 0}
    parents: list[tuple[int, Choice]] = [(0, Choice(0))]
    successors: list[list[int]] = [[]]
    finals: dict[int, FinalState] = {}
    todo = [moment]
    cut = ""
    while todo:
        moment = todo.pop()
        node = numbers[moment.key]
        choices = engine.choices(moment.key)
        if not choices:
            *threads, memory = moment.key
            finals[node] = FinalState(tuple(engine.threads[number] for number in threads), engine.memories[memory])
        for choice in choices:
            following = engine.take(moment, choice)
            if following is None:
                continue
            key = following.key
            if key not in numbers:
                if len(numbers) >= states_max:
                    cut = f"more than {states_max:,} states"
                    continue
                numbers[key] = len(numbers)
                parents.append((node, choice))
                successors.append([])
                todo.append(following)
            successors[node].append(numbers[key])
        assert successors[node] or not choices or cut, "some choice can always be taken"
    transitions = sum(map(len, successors))
    schedules = _count_paths(successors, finals.keys())
    return Exploration(engine, finals, cut or engine.cut, schedules, len(numbers), transitions, parents)


def _count_paths(successors: list[list[int]], ends: Collection[int]) -> int:
    """Paths from node 0 to any of `ends` that do not take an edge back to a node they are on (depth-first order)."""
    counts: dict[int, int] = {}
    on_path: set[int] = set()
    stack = [0]
    while stack:
        node = stack[-1]
        if node not in on_path and node not in counts:
            on_path.add(node)
            stack += [follower for follower in successors[node] if follower not in counts and follower not in on_path]
            continue
        stack.pop()
        if node in on_path and node not in counts:
            on_path.discard(node)
            counts[node] = (node in ends) + sum(counts.get(follower, 0) for follower in successors[node])
    return counts[0]
