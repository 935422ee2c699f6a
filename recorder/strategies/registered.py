"""Strategies of others: registered by a package (entry points of the group `racetape.strategies`) or `module:Class`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from machine.errors import UsageError
from recorder.schedule import Strategy

GROUP: Final = "racetape.strategies"
_MEMBERS: Final = sorted({*Strategy.__annotations__, *(name for name in vars(Strategy) if not name.startswith("_"))})


def registered_names() -> list[str]:
    """Names that installed packages have registered."""
    return sorted({row.name for row in entry_points(group=GROUP)})


def registered(name: str) -> Strategy | None:
    """A new strategy of this name, None if nobody has registered it.

    Raises UsageError if it cannot be loaded or is none.
    """
    if ":" in name:
        # As for `python -m`, but last: a file here is found and hides nothing.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        return _made(name, lambda: _attribute(name))
    for row in entry_points(group=GROUP, name=name):
        return _made(f"{name} ({row.value})", row.load)
    return None


def _attribute(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _made(what: str, load: Callable[[], Any]) -> Strategy:
    try:
        made: Strategy = load()()
    except Exception as error:  # it is somebody's code
        text = " ".join(str(error).split())
        raise UsageError(f"cannot load strategy {what}: {type(error).__name__}: {text}") from error
    missing = [name for name in _MEMBERS if not hasattr(made, name)]
    if missing:
        raise UsageError(f"{what} is no strategy: it has no {', '.join(missing)} (docs/hunt.md)")
    return made
