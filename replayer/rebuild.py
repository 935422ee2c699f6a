"""Making layer B of a tape again."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from machine.errors import DivergenceError, TapeError, UsageError
from recorder.session import Session, Stretch
from replayer.cursor import boot
from traces import Tape, TapeWriter
from traces.chunks import ATTACHMENT, CHOICES
from traces.reader import Progress
from traces.schema import FORMAT_VERSION
from traces.strip import stays


@dataclass(frozen=True)
class Rebuilt:
    """What `rebuild` wrote: events, and the tape's length in bytes."""

    events: int
    size_bytes: int


def rebuild(
    tape: Tape,
    path: str | os.PathLike[str],
    *,
    whole: bool = False,
    index: bool = True,
    progress: Progress | None = None,
) -> Rebuilt:
    """Write the tape to `path` as it would be recorded today: the same run with events, checkpoints and indexes.

    A stripped tape becomes what it was before, byte for byte (if this racetape is of the same format). An unfinished
    one gives an unfinished one.

    Args:
        whole: with the events from reset on, whatever the tape has.
        index: with an index of every chunk of events.
        progress: called now and then with (step, last step).
    Raises:
        DivergenceError: it does not replay as it was recorded; `path` then holds the part before.
        TapeDamagedError: layer A is damaged.
        TapeError: `path` cannot be written, or is the tape itself.
    """
    if Path(path).exists() and Path(path).samefile(tape.path):
        raise UsageError(f"cannot rebuild {tape.path} onto itself; give another name")
    if tape.damage is not None:
        raise tape.damage
    # Looked at before the target is touched: damage must not cost what was there.
    for chunk in tape.chunks:
        if stays(chunk):
            tape.check_chunk(chunk)
    image = tape.image()
    header = replace(tape.header, format=FORMAT_VERSION)
    if whole:
        header = replace(header, events_first=0)
    if (
        header.events_first not in {0, *(c.end_step for c in tape.choices_chunks)}
        and tape.end_step > header.events_first
    ):
        raise TapeError(f"{tape.path}: no choices chunk ends where its events begin, at step {header.events_first}")
    machine = boot(tape, image)
    machine.choices_enabled = True
    with TapeWriter(path, background=True, index=index) as writer:
        writer.begin(header, image)
        # Without events up to where they begin, with them from there on.
        before = Session(machine, None, step_max=tape.end_step, tap=False, keep=False)
        session = before if header.events_first else Session(machine, writer, step_max=tape.end_step, tap=True)
        for chunk in tape.chunks:
            if chunk.kind == ATTACHMENT:
                writer.attach(tape.read_attachment(chunk))
            elif chunk.kind == CHOICES:
                choices = tape.read_choices(chunk)
                session.replay(Stretch(choices.records, choices.end_step, choices.state_hash))
                if session is before:
                    writer.choices(choices.records, choices.end_step, choices.state_hash)
                    if machine.step >= header.events_first:
                        session = Session(machine, writer, step_max=tape.end_step, tap=True)
                        session.console = before.console
                if progress is not None:
                    progress(machine.step, tape.end_step)
        if tape.footer is not None:
            footer = session.footer(tape.footer.stop, bytes(session.console))
            # A tape that was recorded without events counts none.
            if replace(footer, events=0) != replace(tape.footer, events=0):
                raise _other_end(machine.step)
            writer.finish(footer)
    return Rebuilt(session.event_count, Path(path).stat().st_size)


def _other_end(step: int) -> DivergenceError:
    return DivergenceError(
        f"the replay ends at step {step} otherwise than the recording did",
        step=step,
        cpu=-1,
        expected="the end that the footer states",
        got="another one",
    )
