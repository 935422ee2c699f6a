"""`racetape doctor`: is this installation whole?"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from machine.errors import ImageError

PACKAGES: Final = ("machine", "traces", "recorder", "replayer", "debugger", "racetape")
OPTIONAL_TOOLS: Final = {
    "gcc": "builds the guest images (a tape carries its own; replay needs no compiler)",
    "as": "assembles litmus tests and text given to a bare machine (Debian package binutils)",
    "clang": "builds the fuzzer of the core (tools/install-debian-packages.sh)",
    "dot": "draws graphs (Debian package graphviz)",
    "gdb": "stock debugger, for comparison",
}


def clashes() -> Iterator[str]:
    """Packages of racetape that another distribution shadows: their plain names could be taken."""
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            yield f"package {name!r} comes from {origin}, not {home}: give racetape an environment of its own"


def missing_images() -> Iterator[str]:
    """Scenario images that are not built."""
    from machine import images

    for name in images.image_names():
        try:
            images.image_path(name)
        except ImageError as error:
            yield str(error)


@dataclass(frozen=True)
class Findings:
    """What `examine` found.

    Attributes:
        problems: sentences; racetape cannot work while there are any.
        tools: name of an optional tool -> its path, or None.
    """

    problems: list[str]
    tools: dict[str, str | None]

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {"ready": not self.problems, "problems": self.problems, "tools": self.tools}

    def text(self) -> str:
        """As people read it."""
        lines = [f"problem: {line}" for line in self.problems]
        lines += [f"{tool}: {path or 'not found'} - {OPTIONAL_TOOLS[tool]}" for tool, path in self.tools.items()]
        return "\n".join([*lines, "racetape cannot work as it is" if self.problems else "racetape is ready"])


def examine() -> Findings:
    """Look at the installation."""
    return Findings([*clashes(), *missing_images()], {tool: shutil.which(tool) for tool in OPTIONAL_TOOLS})
