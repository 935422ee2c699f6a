"""`racetape tape`: what can be done to a tape as a file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from machine.errors import UsageError
from racetape.commands.common import (
    TAPE_NAME,
    emit,
    epilog,
    finish,
    json_option,
    output_option,
    tape_argument,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tape() -> None:
    """What can be done to a tape as a file."""


@tape.command(epilog=epilog("racetape tape info bug.tape", "racetape tape info bug.tape --json"))
@tape_argument
@json_option
def info(tape: Path, as_json: bool) -> None:
    """Say what is on TAPE: what was run, how it ended, what takes how much room, what is attached."""
    from racetape.tape_info import print_info, tape_info
    from traces import Tape

    with Tape(tape) as recording:
        answer = tape_info(recording)
    if as_json:
        emit(answer)
    else:
        print_info(answer)
    if recording.damage is not None:
        raise recording.damage
    finish(recording, 0)


@tape.command(epilog=epilog("racetape tape strip bug.tape -o small.tape"))
@tape_argument
@output_option
@json_option
def strip(tape: Path, output: Path, as_json: bool) -> None:
    """Copy TAPE without its derived layer: the schedule alone, which replays to the same hashes."""
    from traces import Tape
    from traces import strip as strip_tape

    # Damage in what is dropped is no matter.
    with Tape(tape) as recording:
        size_bytes = strip_tape(recording, output)
    if as_json:
        emit({"tape": str(output), "size_bytes": size_bytes, "from": str(tape)})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes (was {recording.path.stat().st_size:,})")
    finish(recording, 0)


@tape.command(
    epilog=epilog(
        "racetape tape rebuild small.tape -o full.tape      what 'strip' took away",
        "racetape tape rebuild old.tape -o new.tape         an old tape in today's format, with indexes",
        "racetape tape rebuild bug.tape --whole -o all.tape events of the set-up, too",
    )
)
@tape_argument
@output_option
@click.option("--whole", is_flag=True, help="With the events from reset on.")
@click.option("--no-index", is_flag=True, help="Without indexes: smaller, slower to ask.")
@json_option
def rebuild(tape: Path, output: Path, whole: bool, no_index: bool, as_json: bool) -> None:
    """Replay TAPE and write it with its derived layer: events, checkpoints, indexes.

    Exit status 1 if it does not replay as it was recorded.
    """
    from racetape.progress import ticking
    from replayer import rebuild as rebuild_tape
    from traces import Tape

    # Damage in what is made again is no matter.
    with Tape(tape) as recording, ticking("rebuilding", recording.end_step) as tick:
        rebuilt = rebuild_tape(recording, output, whole=whole, index=not no_index, progress=tick)
    if as_json:
        emit({"tape": str(output), "size_bytes": rebuilt.size_bytes, "events": rebuilt.events, "from": str(tape)})
    else:
        click.echo(f"{output}: {rebuilt.events:,} events, {rebuilt.size_bytes:,} bytes")
    finish(recording, 0)


@tape.command(epilog=epilog("racetape tape index old.tape -o new.tape"))
@tape_argument
@output_option
@json_option
def index(tape: Path, output: Path, as_json: bool) -> None:
    """Copy TAPE with an index of each chunk of events, without replaying it."""
    from racetape.progress import ticking
    from traces import Tape
    from traces.reindex import reindex

    with Tape(tape) as recording, ticking("indexing", recording.end_step) as tick:
        size_bytes = reindex(recording, output, tick)
    if as_json:
        emit({"tape": str(output), "size_bytes": size_bytes, "from": str(tape)})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes (was {recording.path.stat().st_size:,})")
    finish(recording, 0)


@tape.command(
    epilog=epilog(
        "racetape tape attach bug.tape --sources               the guest's source files",
        "racetape tape attach bug.tape --note 'seen on Monday'",
        "racetape tape attach bug.tape dmesg.txt -o with.tape",
    )
)
@tape_argument
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE...")
@click.option("--note", "notes", multiple=True, help="Attach this text; may be repeated.")
@click.option("--sources", is_flag=True, help="Attach the source files of the guest's code, as installed here.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: TAPE itself.")
@json_option
def attach(
    tape: Path, files: tuple[Path, ...], notes: tuple[str, ...], sources: bool, output: Path | None, as_json: bool
) -> None:
    """Attach files or notes to TAPE; nothing else of it changes."""
    from recorder.record import guest_sources
    from traces import Attachment, Tape
    from traces.attach import NOTE
    from traces.attach import attach as attach_to

    name = click.get_current_context().meta.get(TAPE_NAME)
    if name is not None and output is None:
        raise UsageError(f"{name} stays as it is; say with -o where the tape with the attachments is to go")
    if not files and not notes and not sources:
        raise UsageError("what is to be attached? Name files, or give --note or --sources")
    rows = [Attachment(name=path.name, type="file", data=path.read_bytes()) for path in files]
    with Tape(tape) as recording:
        here = recording.path if output is None else output
        count = sum(recording.read_attachment(c).type == NOTE for c in recording.attachment_chunks)
        rows += [
            Attachment(name=f"note {number}", type=NOTE, data=os.fsencode(text))
            for number, text in enumerate(notes, count + 1)
        ]
        if sources:
            rows += guest_sources(recording.image())
        # Beside the target, so that it appears there whole or not at all.
        descriptor, fresh = tempfile.mkstemp(prefix=f".{here.name}-", dir=here.parent)
        os.close(descriptor)
        try:
            size_bytes = attach_to(recording, fresh, rows)
            Path(fresh).chmod(recording.path.stat().st_mode & 0o777)
            os.replace(fresh, here)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise
    if as_json:
        emit({"tape": str(here), "size_bytes": size_bytes, "attached": [row.name for row in rows]})
    else:
        what = f"{len(rows)} files" if len(rows) > 3 else ", ".join(row.name for row in rows)
        click.echo(f"{here}: {what} attached, {size_bytes:,} bytes")
    finish(recording, 0)


@tape.command(
    epilog=epilog(
        "racetape tape extract bug.tape 'note 1'",
        "racetape tape extract bug.tape mm/compaction.c -o compaction.c",
        "racetape tape extract bug.tape --image -o vmlinux",
    )
)
@tape_argument
@click.argument("name", required=False)
@click.option("--image", is_flag=True, help="The guest's ELF file.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: standard output.")
def extract(tape: Path, name: str | None, image: bool, output: Path | None) -> None:
    """Write what is attached to TAPE by that NAME, or its guest image."""
    from traces import Tape

    if (name is None) != image:
        raise UsageError("name one thing: an attachment (`racetape tape info` lists them) or --image")
    with Tape(tape) as recording:
        if image:
            data = recording.image()
        else:
            found = [recording.read_attachment(c) for c in recording.attachment_chunks]
            named = [row for row in found if row.name == name]
            if not named:
                raise UsageError(f"nothing named '{name}' is attached to {tape} (`racetape tape info` lists what is)")
            data = named[-1].data
    if output is not None:
        if output.exists() and output.samefile(recording.path):
            raise UsageError(f"that would overwrite {recording.path}; give another name")
        output.write_bytes(data)
    else:
        click.echo(data, nl=False)
