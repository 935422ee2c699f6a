"""`racetape doctor`: is this installation whole?"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from machine.errors import ImageError

PACKAGES: Final = ("machine", "traces", "recorder", "replayer", "debugger", "racetape")
OPTIONAL_TOOLS: Final = {
    "gcc": "builds the guest images (a tape carries its own; replay needs no compiler)",
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


def run_doctor() -> int:
    """Print what was found; 0 if racetape can work, else 1."""
    problems = list(clashes())
    problems += missing_images()
    for line in problems:
        click.echo(f"problem: {line}")
    for tool, use in OPTIONAL_TOOLS.items():
        found = shutil.which(tool)
        click.echo(f"{tool}: {found or 'not found'} - {use}")
    click.echo("racetape cannot work as it is" if problems else "racetape is ready")
    return 1 if problems else 0
