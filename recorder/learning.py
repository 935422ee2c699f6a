"""Learning what `recorder.profile` says of a scenario, by running it."""

from __future__ import annotations

from typing import Final

from machine import Machine, Snapshot, _core
from machine.symbols import Symbols
from recorder.profile import Manner, Profile
from recorder.schedule import Strategy, pick
from recorder.session import Session, Stretch
from recorder.sharing import Sharing, bitmap
from recorder.strategies.default import Default
from recorder.strategies.random_walk import RandomWalk
from traces.schema import records_of

WALKS: Final = 6
"""Random walks over single steps, which need to know nothing."""
ROUND_RUNS: Final = 8
"""Runs by visible steps, again and again until so many in a row have shown no new shared word."""
_POLICIES: Final = (_core.PICK_POS, _core.PICK_WALK, _core.PICK_PCT)
_STEPS_MAX: Final = 4_000_000
"""Once so many steps have been looked at, it is enough."""


def profile_steps(machine: Machine, ready: Snapshot, step_max: int) -> Profile:
    """Length of a run. Moves the machine."""
    return Profile(_run(machine, ready, step_max, Default(), 0))


def profile_visible(machine: Machine, ready: Snapshot, step_max: int, symbols: Symbols, steps: Profile) -> Profile:
    """Learns which words are shared and tells the machine (`Machine.watch`). Moves the machine."""
    switch = next((number for number, name in symbols.tracepoints().items() if name == "sched_switch"), 0)
    sharing = Sharing(machine, switch)
    learner = _Learner(machine, ready, step_max, sharing)
    strategies: list[Strategy] = [Default(), *(RandomWalk() for _ in range(WALKS))]
    for seed, strategy in enumerate(strategies):
        if learner.steps < _STEPS_MAX:
            learner.record(strategy, seed)
    known = 0
    while known < (count := learner.tell()) and learner.steps < _STEPS_MAX:
        known = count
        for number in range(ROUND_RUNS):
            tasks = machine.cpus == 1 or number % 4 == 3
            ticks = 1 + number % 3 if tasks else 0
            learner.follow(_POLICIES[number % len(_POLICIES)], Manner(tasks, number % 2 == 0, ticks))
    visible = {
        (tasks, eager): _visible_counts(machine, ready, step_max, Manner(tasks, eager))
        for tasks in (False, True)
        for eager in (False, True)
    }
    return Profile(steps.step_count, learner.cpu_words, learner.task_words, learner.runs, visible)


class _Learner:
    """Makes runs, and shows their events to `sharing`."""

    def __init__(self, machine: Machine, ready: Snapshot, step_max: int, sharing: Sharing) -> None:
        self.machine, self.ready, self.sharing = machine, ready, sharing
        self.step_max = min(step_max, ready.step + _STEPS_MAX)
        self.runs = self.steps = self.cpu_words = self.task_words = 0

    def tell(self) -> int:
        """Tell the machine what is shared as far as is known; how much that is."""
        cpu_words, task_words = (self.sharing.words(tasks=tasks) for tasks in (False, True))
        self.machine.watch(bitmap(cpu_words, self.machine.ram_bytes))
        self.machine.watch(bitmap(task_words, self.machine.ram_bytes), tasks=True)
        self.cpu_words, self.task_words = len(cpu_words), len(task_words)
        return self.cpu_words + self.task_words

    def record(self, strategy: Strategy, seed: int) -> None:
        """A run by single steps."""
        session = self._begin(tap=True)
        strategy.new_run(self.machine, seed)
        self._end(session.run(strategy))

    def follow(self, policy: int, manner: Manner) -> None:
        """A run by visible steps: made without events, then repeated with them."""
        self.machine.restore(self.ready)
        self.machine.choices_enabled = True
        self.machine.choices_take()
        self.machine.execute(pick(policy, self.runs, manner, depth=3, steps=1000), step_max=self.step_max)
        choices = records_of(self.machine.choices_take())
        end_step, state_hash = self.machine.step, self.machine.state_hash()
        session = self._begin(tap=True)
        session.replay(Stretch(choices, end_step, state_hash))
        self._end("")

    def _begin(self, *, tap: bool) -> Session:
        self.machine.restore(self.ready)
        self.machine.stop_at_trace = 0
        self.sharing.new_run()
        return Session(self.machine, None, step_max=self.step_max, tap=tap, keep=False, on_events=self.sharing.take)

    def _end(self, stop: str) -> None:
        self.machine.tap = False
        self.runs += 1
        self.steps += self.machine.step - self.ready.step
        if stop == "interrupted":
            raise KeyboardInterrupt


def _run(machine: Machine, ready: Snapshot, step_max: int, strategy: Strategy, seed: int) -> int:
    machine.restore(ready)
    machine.stop_at_trace = 0
    session = Session(machine, None, step_max=step_max, tap=False, keep=False)
    strategy.new_run(machine, seed)
    if session.run(strategy) == "interrupted":
        raise KeyboardInterrupt
    return machine.step - ready.step


def _visible_counts(machine: Machine, ready: Snapshot, step_max: int, manner: Manner) -> tuple[int, ...]:
    machine.restore(ready)
    machine.choices_enabled = False
    machine.execute(pick(_core.PICK_WALK, 0, manner), step_max=step_max)
    machine.console_take()
    return tuple(machine.visible_counts())
