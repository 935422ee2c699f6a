"""What makes two hunts the same hunt: then schedule n of one is schedule n of the other."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from recorder.hunt.search import Search
from recorder.record import Prepared, tool

if TYPE_CHECKING:
    from recorder.hunt.systematic import Systematic
    from recorder.hunt.verdict import Hunt


def identity(what: Hunt, prepared: Prepared, search: Search | Systematic) -> dict[str, Any]:
    """All that an answer depends on except how much is searched, in plain values; two compare by `difference`.

    The version says nothing about a working copy, and nothing about a host. So the first schedule is run, and how it
    ends stands for the core, the strategies and the checks. Moves the machine. Raises KeyboardInterrupt.
    """
    first = search.block(0, 1, every=True)
    if first.interrupted:
        raise KeyboardInterrupt
    return {
        "tool": tool(),
        "scenario": prepared.scenario,
        "variant": prepared.variant,
        "configuration": prepared.configuration,
        "image": sha256(prepared.image).hexdigest(),
        "strategy": what.strategy,
        "seed": what.seed,
        "every": what.every,
        "checks": f"{what.checks.__module__}.{getattr(what.checks, '__qualname__', type(what.checks).__qualname__)}",
        "step_max": prepared.step_max,
        "first_schedule": {
            "stops": dict(first.stops),
            "steps": first.steps,
            "states": [f"{state:016x}" for state in sorted(first.states)],
            "causes": sorted(first.found),
        },
    }


def difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """(name, of one, of the other) of the first thing that differs, None if nothing does."""
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            return name, one.get(name), other.get(name)
    return None
