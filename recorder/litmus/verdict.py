"""The answer to a litmus test: its final states, and what becomes of its condition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from machine.errors import UsageError
from recorder.litmus.assembler import Assembled
from recorder.litmus.condition import Not
from recorder.litmus.errors import LitmusError
from recorder.litmus.explore import STATES_MAX, Exploration, explore
from recorder.litmus.observe import Observer
from recorder.litmus.program import Condition
from recorder.litmus.reduction import Reduction, reduce
from recorder.litmus.threads import Step

SEARCHES: Final = ("states", "dpor")


@dataclass(frozen=True, slots=True)
class State:
    """A final state as shown: the values of all locations, whether the proposition holds, and a node that has it."""

    values: tuple[int, ...]
    positive: bool
    node: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one test under one model.

    Attributes:
        locations: labels of the values in each state, e.g. `0:rax`, `x`.
        states: every final state that passes the test's filter, in order of their values.
        cut: why states may be missing, "" if the set is complete.
        contradictions: what the test claims (`forall`, `~exists`, `Tso=...`) and the machine contradicts, in words.
    """

    assembled: Assembled
    model: str
    condition: Condition
    locations: tuple[str, ...]
    states: tuple[State, ...]
    exploration: Exploration | Reduction
    contradictions: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the test."""
        return self.assembled.test.name

    @property
    def cut(self) -> str:
        """Why states may be missing, "" if the set is complete."""
        return self.exploration.cut

    @property
    def positive_count(self) -> int:
        """States in which the proposition holds."""
        return sum(state.positive for state in self.states)

    @property
    def allowed(self) -> bool:
        """Whether the proposition of the condition is reachable."""
        return self.positive_count > 0

    @property
    def satisfied(self) -> bool:
        """Whether the condition, quantifier and all, is true of the set of states."""
        return _satisfied(self.condition, self.positive_count, len(self.states))

    def json(self) -> dict[str, Any]:
        """The answer as a JSON object."""
        return {
            "name": self.name,
            "complete": not self.cut,
            "locs": list(self.locations),
            "states": [list(state.values) for state in self.states],
            "condition": "allowed" if self.allowed else "forbidden",
            "schedules": self.exploration.schedules,
        }

    def witness(self) -> tuple[State, list[Step]] | None:
        """A state that decides the condition, with a schedule to it.

        The proposition holds in it, or, for `forall`, does not.
        None if there is no such state.
        """
        wanted = self.condition.quantifier != "forall"
        for state in self.states:
            if state.positive == wanted:
                return state, self.exploration.witness(state.node)[0]
        return None


def judge(
    assembled: Assembled,
    model: str = "tso",
    condition: Condition | None = None,
    states_max: int = STATES_MAX,
    search: str = "states",
) -> Verdict:
    """Explore a test under "tso", "sc" or "up" and judge its condition, or another in its place.

    Args:
        states_max: limit on the states, or on the schedules made.
        search: "states" goes to every state; "dpor" (tso only) through schedules, not all of those that are equivalent.
    Raises UsageError for another search, LitmusError if the test names what it does not have, or an instruction faults.
    """
    test = assembled.test
    expected = None if condition else _expectation(test.path, test.info, model)
    condition = condition or test.condition
    observer = Observer(assembled, condition)
    if search not in SEARCHES or (search == "dpor" and model != "tso"):
        raise UsageError("a litmus test is searched by `states`, or under tso by `dpor`")
    exploration = reduce(assembled, states_max) if search == "dpor" else explore(assembled, model, states_max)
    found: dict[tuple[int, ...], State] = {}
    for node, final in exploration.finals.items():
        if test.filter is not None and observer.holds(Not(test.filter), final):
            continue
        values = observer.values(final)
        positive = observer.holds(condition.proposition, final)
        found.setdefault(values, State(values, positive, node))
    states = tuple(sorted(found.values(), key=lambda state: state.values))
    contradictions = _contradictions(condition, states, expected, model)
    labels = tuple(location.label for location in observer.locations)
    return Verdict(assembled, model, condition, labels, states, exploration, tuple(contradictions))


def _satisfied(condition: Condition, positive: int, count: int) -> bool:
    return {"exists": positive > 0, "~exists": positive == 0, "forall": positive == count}[condition.quantifier]


def _expectation(path: str, info: dict[str, str], model: str) -> tuple[bool, int | None] | None:
    """What a line such as `Tso=allowed 4` expects: (allowed, number of states or None); None without such a line."""
    for key, value in info.items():
        if key.lower() != model:
            continue
        match = re.fullmatch(r"(allowed|forbidden)(?: +([0-9]{1,9}))?", value.lower())
        if match is None:
            raise LitmusError(path, 0, f"{key}={value}: must be `allowed` or `forbidden`, and maybe a number of states")
        return match[1] == "allowed", int(match[2]) if match[2] else None
    return None


def _contradictions(
    condition: Condition, states: Sequence[State], expected: tuple[bool, int | None] | None, model: str
) -> list[str]:
    positive = sum(state.positive for state in states)
    out = []
    if condition.quantifier != "exists" and not _satisfied(condition, positive, len(states)):
        out.append(f"{condition.text} does not hold")
    if expected is not None:
        allowed, count = expected
        if allowed != (positive > 0):
            out.append(f"the file expects {'allowed' if allowed else 'forbidden'} under {model}")
        if count is not None and count != len(states):
            out.append(f"the file expects {count} states under {model}, there are {len(states)}")
    return out
