"""What commands share: options, how tapes are opened, how answers and errors are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    # Imported where they are used: --help and a mistyped option should not wait for numpy and drgn.
    from traces import Tape

EXIT_FOUND: Final = 1
EXIT_BAD: Final = 2
EXIT_INTERRUPTED: Final = 130

variant_option = click.option("--variant", help="Variant of the guest (default: the scenario's first).")
configuration_option = click.option(
    "--config", "configuration", help="CPUs, paging: smp2-pae, up-x86_64... (default: as reported)."
)
output_option = click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Tape to write."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


TAPE_NAME: Final = "racetape.tape_name"
"""Where a context keeps the name of a tape that is not a file of the user's."""


class TapePath(click.Path):
    """A tape: a file, or by its name one of the gallery's or of the archive's."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The file."""
        if str(value).startswith(("gallery:", "archive:")):
            from traces.names import resolve

            if ctx is not None:
                ctx.meta[TAPE_NAME] = str(value)
            value = resolve(value)
        return super().convert(value, param, ctx)


tape_argument = click.argument("tape", type=TapePath())


def epilog(*examples: str) -> str:
    """The examples at the end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)


def emit(data: Any) -> None:
    """Print a JSON answer."""
    click.echo(json.dumps(data, indent=2))


def fail(message: str, status: int = EXIT_BAD) -> int:
    """One line on standard error; returns the exit status to go with it."""
    print(f"racetape: {' '.join(message.split())}", file=sys.stderr)
    return status


@contextmanager
def opened(path: Path) -> Iterator[Tape]:
    """The tape, with every chunk's checksum right: an answer from a damaged tape would be worth nothing."""
    from traces import Tape

    with Tape(path) as tape:
        for chunk in tape.chunks:
            tape.payload(chunk)
        if tape.damage is not None:
            raise tape.damage
        yield tape


def finish(tape: Tape, status: int) -> NoReturn:
    """Exit with `status`, or with 2 and a line if part of the tape is missing: what was printed holds for the rest."""
    if tape.damage is not None:
        raise tape.damage
    if tape.unfinished:
        sys.exit(fail(f"{tape.path}: the tape is cut; all of this is about the part up to @{tape.end_step}"))
    sys.exit(status)


def describe_stop(stop: str | None, exit_status: int | None) -> str:
    """Why a run ended, in words."""
    if stop == "exit":
        return f"the guest ended the run with status {exit_status:#x}" if exit_status else "the guest ended the run"
    return {
        None: "the tape is cut before the end of the run",
        "steps": "the step limit was reached before the guest ended the run",
        "interrupted": "recording was interrupted; the tape holds the run up to there",
        "idle": "every CPU waits and nothing can wake one: deadlock",
        "livelock": "those that do not wait go in circles: livelock",
        "freed": "a freed page was used",
        "shutdown": "triple fault",
    }.get(stop, f"stopped: {stop}")
