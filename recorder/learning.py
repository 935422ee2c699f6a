"""Learning what `recorder.profile` says of a scenario, by running it."""

from __future__ import annotations

from typing import Final

from machine import Machine, Snapshot, _core
from machine.symbols import Symbols
from recorder.profile import Profile
from recorder.schedule import Strategy, pick
from recorder.session import Session
from recorder.sharing import Sharing, bitmap
from recorder.strategies.default import Default
from recorder.strategies.random_walk import RandomWalk

LEARNING_RUNS: Final = 6
"""Random walks from which the shared words are learned, beside the default schedule."""
_LEARNING_STEPS_MAX: Final = 20_000_000


def profile_steps(machine: Machine, ready: Snapshot, step_max: int) -> Profile:
    """Length of a run. Moves the machine."""
    return Profile(_run(machine, ready, step_max, Default(), 0))


def profile_visible(machine: Machine, ready: Snapshot, step_max: int, symbols: Symbols, steps: Profile) -> Profile:
    """Learns which words are shared and tells the machine (`Machine.watch`). Moves the machine."""
    switch = next((number for number, name in symbols.tracepoints().items() if name == "sched_switch"), 0)
    sharing = Sharing(machine, switch)
    strategies: list[Strategy] = [Default(), *(RandomWalk() for _ in range(LEARNING_RUNS))]
    limit = min(step_max, ready.step + _LEARNING_STEPS_MAX)
    for seed, strategy in enumerate(strategies):
        _learn(machine, ready, limit, strategy, seed, sharing)
    words = sharing.words()
    machine.watch(bitmap(words, machine.ram_bytes))
    visible = tuple(_visible_counts(machine, ready, limit, eager) for eager in (True, False))
    return Profile(steps.step_count, len(words), len(strategies), (visible[0], visible[1]))


def _run(machine: Machine, ready: Snapshot, step_max: int, strategy: Strategy, seed: int) -> int:
    machine.restore(ready)
    machine.stop_at_trace = 0
    session = Session(machine, None, step_max=step_max, tap=False, keep=False)
    strategy.new_run(machine, seed)
    if session.run(strategy) == "interrupted":
        raise KeyboardInterrupt
    return machine.step - ready.step


def _learn(machine: Machine, ready: Snapshot, step_max: int, strategy: Strategy, seed: int, sharing: Sharing) -> None:
    machine.restore(ready)
    machine.stop_at_trace = 0
    sharing.new_run()
    session = Session(machine, None, step_max=step_max, tap=True, keep=False, on_events=sharing.take)
    strategy.new_run(machine, seed)
    stop = session.run(strategy)
    machine.tap = False
    if stop == "interrupted":
        raise KeyboardInterrupt


def _visible_counts(machine: Machine, ready: Snapshot, step_max: int, eager: bool) -> tuple[int, ...]:
    machine.restore(ready)
    machine.choices_enabled = False
    machine.execute(pick(_core.PICK_WALK, 0, eager=eager), step_max=step_max)
    machine.console_take()
    return tuple(machine.visible_counts())
