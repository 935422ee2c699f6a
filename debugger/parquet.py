"""`racetape export --parquet`: the events of a tape as one table for other programs (docs/export.md)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow.compute as pc
import pyarrow.parquet as pq

from debugger.sql.rows import Context
from debugger.sql.scan import Reader, Scan
from debugger.sql.source import Source
from debugger.sql.views import VIEWS
from machine.errors import TapeError, UsageError
from replayer import Timeline
from traces import Tape
from traces.schema import FORMAT_VERSION

_VIEW = next(view for view in VIEWS if view.name == "events")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: steps `first_step` to `end_step` - 1, their events, the file's length."""

    first_step: int
    end_step: int
    events: int
    size_bytes: int


def export(
    tape: Tape,
    path: str | os.PathLike[str],
    *,
    first: str = "ready",
    end: str = "end",
    progress: Callable[[int, int], None] = lambda position, total: None,
) -> Exported:
    """Write the events of steps `first` to before `end` of `tape` to `path` as a Parquet file.

    Both are positions as people write them; `end` is relative to `first` if it is relative. The columns are those of
    the view `events` (docs/sql.md); a row group is a chunk of the tape, and memory is bounded by a few. Events that are
    not on the tape are made again. An export that fails leaves no file.

    Raises UsageError for positions that are none or in the wrong order, TapeError if the file cannot be written or the
    tape not be read, ReplayError.
    """
    if Path(path).exists() and Path(path).samefile(tape.path):
        raise TapeError(f"{path} is the tape itself: give another name for the table")
    first_step, end_step = _steps(tape, first, end)
    source = Source(tape, min(first_step, tape.header.events_first))
    reader = Reader(Context(tape, source), source)
    try:
        with open(path, "wb") as stream:
            try:
                events = _write(tape, reader, stream, first_step, end_step, progress)
            except BaseException as error:
                # Half a table would be taken for a whole one. Ctrl-C comes here, too.
                if Path(path).is_file():
                    Path(path).unlink()
                raise (reader.failure if reader.failure is not None else error) from None
    except OSError as error:
        raise TapeError(f"cannot write {path}: {error.strerror}") from None
    finally:
        reader.close()
    return Exported(first_step, end_step, events, Path(path).stat().st_size)


def _write(
    tape: Tape,
    reader: Reader,
    stream: IO[bytes],
    first_step: int,
    end_step: int,
    progress: Callable[[int, int], None],
) -> int:
    """Number of events written."""
    where = (pc.field("step") >= first_step) & (pc.field("step") < end_step)
    schema = _VIEW.schema.with_metadata(_metadata(tape, first_step, end_step))
    count = 0
    with pq.ParquetWriter(stream, schema, compression="zstd") as out:
        for batch in Scan(_VIEW, reader, _VIEW.schema.names, where).to_reader():
            out.write_batch(batch.replace_schema_metadata(schema.metadata))
            count += len(batch)
            progress(reader.position, tape.end_step)
    return count


def _steps(tape: Tape, first: str, end: str) -> tuple[int, int]:
    timeline = Timeline(tape)
    first_step = timeline.position(first)
    timeline.seek(first_step)
    end_step = timeline.position(end)
    if end_step <= first_step:
        raise UsageError(f"nothing lies between the positions {first} and {end}")
    return first_step, end_step


def _metadata(tape: Tape, first_step: int, end_step: int) -> dict[str, str]:
    """What the file says of the run that the events are of."""
    header = tape.header
    found = {
        "format": str(FORMAT_VERSION),
        "scenario": header.scenario,
        "variant": header.variant,
        "configuration": header.configuration,
        "strategy": header.strategy,
        "seed": str(header.seed),
        "cpus": str(header.cpus),
        "image_sha256": header.image_sha256.hex(),
        "ready_step": str(header.ready_step),
        "first_step": str(first_step),
        "end_step": str(end_step),
        # Covers every chunk before it: of a whole tape this stands for the tape.
        "last_chunk_hash": tape.chunks[-1].hash.hex(),
        "unfinished": str(tape.unfinished).lower(),
    }
    if tape.footer is not None:
        found |= {"stop": tape.footer.stop, "state_hash": f"{tape.footer.state_hash:016x}"}
        found["memory_hash"] = f"{tape.footer.memory_hash:016x}"
    return {f"racetape.{name}": value for name, value in found.items()}
