"""`racetape tape`: what can be done to a tape as a file."""

from __future__ import annotations

from pathlib import Path

import click

from racetape.commands.common import (
    emit,
    epilog,
    finish,
    json_option,
    opened,
    output_option,
    tape_argument,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tape() -> None:
    """What can be done to a tape as a file."""


@tape.command(epilog=epilog("racetape tape strip bug.tape -o small.tape"))
@tape_argument
@output_option
@json_option
def strip(tape: Path, output: Path, as_json: bool) -> None:
    """Copy TAPE without its derived layer: the schedule alone, which replays to the same hashes."""
    from traces import strip as strip_tape

    with opened(tape) as recording:
        size_bytes = strip_tape(recording, output)
    if as_json:
        emit({"tape": str(output), "size_bytes": size_bytes, "from": str(tape)})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes (was {tape.stat().st_size:,})")
    finish(recording, 0)
