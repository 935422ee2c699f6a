"""Commands for the first minutes: a demonstration, and whether the installation is sound."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from racetape.commands.common import (
    EXIT_FOUND,
    emit,
    epilog,
    json_option,
)


@click.command(epilog=epilog("racetape demo", "racetape demo --keep tapes/"))
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Leave the tapes in this folder.")
@json_option
def demo(keep: Path | None, as_json: bool) -> None:
    """Record, replay and explain the Linux bug of June 2011; everything printed is computed now."""
    from racetape.demo import run_demo

    sys.exit(run_demo(keep, as_json))


@click.command(epilog=epilog("racetape doctor", "racetape doctor --json"))
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation: packages that shadow racetape's, guest images, tools.

    Exit status 1 if something is wrong.
    """
    from racetape.doctor import examine

    findings = examine()
    if as_json:
        emit(findings.json())
    else:
        click.echo(findings.text())
    if findings.problems:
        sys.exit(EXIT_FOUND)
