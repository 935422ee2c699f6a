"""`racetape export`: a tape for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click

from machine.errors import UsageError
from racetape.commands.common import emit, epilog, finish, json_option, opened, tape_argument


@click.command(
    epilog=epilog(
        "racetape export bug.tape --perfetto bug.pftrace                      for ui.perfetto.dev",
        "racetape export bug.tape --perfetto bug.pftrace --from @81,000 --to +2000",
        "racetape export bug.tape --parquet bug.parquet                       the events as a table",
    )
)
@tape_argument
@click.option("--perfetto", type=click.Path(dir_okay=False, path_type=Path), help="Perfetto trace to write.")
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Table of all events to write.")
@click.option("--from", "first", default="ready", show_default=True, help="First position: @81204, 50%, cpu1#350, ...")
@click.option("--to", "end", default="end", show_default=True, help="Position behind the last step; +N: N steps on.")
@json_option
def export(tape: Path, perfetto: Path | None, parquet: Path | None, first: str, end: str, as_json: bool) -> None:
    """Write TAPE, or some steps of it, in a format of other programs.

    A Perfetto trace has a track for each CPU and each store buffer, arrows from held stores to their drains and first
    readers, and the scenario's counters; 1 ns is 1 step. A Parquet file has a row for each event, with functions, lines
    and symbols.
    """
    if (perfetto is None) == (parquet is None):
        raise UsageError("say what to write: --perfetto FILE or --parquet FILE")
    if parquet is not None:
        export_table(tape, parquet, first, end, as_json)
    assert perfetto is not None
    from debugger.perfetto import export as write_trace
    from racetape.progress import ticking

    with opened(tape) as recording, ticking("exporting", recording.end_step) as tick:
        done = write_trace(recording, perfetto, first=first, end=end, progress=tick)
    if as_json:
        emit({"tape": str(tape), "perfetto": str(perfetto), **asdict(done)})
    else:
        click.echo(
            f"{perfetto}: steps {done.first_step:,} to {done.end_step:,}, {done.slices:,} slices, {done.instants:,} "
            f"instants, {done.held_stores:,} held stores ({done.read:,} seen by another CPU), "
            f"{done.counter_values:,} counter values, {done.size_bytes:,} bytes"
        )
    finish(recording, 0)


def export_table(tape: Path, parquet: Path, first: str, end: str, as_json: bool) -> NoReturn:
    """`--parquet`."""
    from debugger.sql import require

    require()
    from debugger.parquet import export as write_table
    from racetape.progress import ticking

    with opened(tape) as recording, ticking("exporting", recording.end_step) as tick:
        done = write_table(recording, parquet, first=first, end=end, progress=tick)
    if as_json:
        emit({"tape": str(tape), "parquet": str(parquet), **asdict(done)})
    else:
        click.echo(
            f"{parquet}: steps {done.first_step:,} to {done.end_step:,}, {done.events:,} events, "
            f"{done.size_bytes:,} bytes"
        )
    finish(recording, 0)
