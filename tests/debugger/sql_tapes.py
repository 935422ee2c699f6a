"""Tapes for tests of SQL: the events of a real one, cut into many small chunks."""

from __future__ import annotations

from pathlib import Path

from traces import Events, Tape, TapeWriter


def in_small_chunks(path: Path, output: Path, events_per_chunk: int = 400, *, index: bool = True) -> Path:
    """A copy of the tape at `path` with about so many events in each of its events chunks."""
    with Tape(path) as tape, TapeWriter(output, index=index) as out:
        events = all_events(tape)
        out.begin(tape.header, tape.image())
        for choices, chunk in zip(tape.choices(), tape.choices_chunks, strict=True):
            out.choices(choices.records, chunk.end_step, choices.state_hash)
        at = 0
        while at < len(events):
            end = min(at + events_per_chunk, len(events))
            while end < len(events) and events.step[end] == events.step[end - 1]:
                end += 1  # all events of a step are in one chunk
            last = end == len(events)
            out.events(events[at:end], tape.end_step if last else int(events.step[end - 1]) + 1, 0)
            at = end
        assert tape.footer is not None
        out.finish(tape.footer)
    return output


def all_events(tape: Tape) -> Events:
    """Every event of a tape."""
    return Events.concatenate([tape.read_events(chunk)[1] for chunk in tape.events_chunks])
