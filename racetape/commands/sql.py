"""`racetape sql`: questions to a tape in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machine.errors import UsageError
from racetape.commands.common import TapePath, epilog, finish

if TYPE_CHECKING:
    from debugger.sql.database import Answer


@click.command(
    epilog=epilog(
        'racetape sql bug.tape "SELECT kind, count(*) FROM events GROUP BY kind"',
        'racetape sql bug.tape "SELECT step, cpu, function, signed FROM stores',
        "    WHERE symbol = 'contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]' AND signed < 0 LIMIT 1\"",
        "racetape sql bug.tape \"SELECT * FROM loads WHERE inside(addr, 'contig_page_data') AND step < 90000\" --csv",
        "racetape sql --views                            the views with their columns",
        "racetape sql bug.tape                           a prompt",
    )
)
@click.argument("tape", type=TapePath(), required=False)
@click.argument("query", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values instead of a table.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Print N rows at most.")
@click.option("--memory", default="1GB", show_default=True, metavar="SIZE", help="What a query may use: 500MB, 8GB.")
@click.option("--views", is_flag=True, help="Print the views and their columns.")
def sql(
    tape: Path | None,
    query: str | None,
    as_json: bool,
    as_csv: bool,
    limit: int | None,
    memory: str,
    views: bool,
) -> None:
    """Ask TAPE in SQL (DuckDB's); without QUERY at a prompt.

    The views are events, loads, stores, drains, walks, tlb, faults, switches, locks, calls and ghosts.
    `inside(addr, 'PLACE')`, `address_of('PLACE')` and `size_of('PLACE')` take C expressions.

    A query sees the tape and nothing else: no files, no network. Chunks of the tape that cannot hold a wanted row are
    not read, so say which steps, addresses or symbols you mean.
    """
    if as_json and as_csv:
        raise UsageError("--json or --csv, not both")
    if not views and tape is None:
        raise UsageError("which tape? (or --views)")
    from debugger.sql import require

    require()
    from debugger.sql.database import Database
    from debugger.sql.views import VIEWS
    from racetape.sql_prompt import describe_views, run_prompt
    from traces import Tape

    if views:
        click.echo(describe_views(VIEWS))
        return
    assert tape is not None
    with Tape(tape) as recording, Database(recording, memory=memory) as database:
        if query is None:
            run_prompt(database, lambda answer, most: show(answer, most, as_json, as_csv), limit)
        else:
            show(database.query(query), limit, as_json, as_csv)
    finish(recording, 0)


def show(answer: Answer, limit: int | None, as_json: bool, as_csv: bool) -> int:
    """Print the rows of an answer, `limit` at most; how many there were."""
    from debugger.sql.views import ADDRESSES, POSITIONS
    from racetape.rows import print_csv, print_json, print_table

    rows: Iterable[Sequence[Any]] = answer if limit is None else islice(answer, limit)
    if as_json:
        return print_json(answer.columns, rows)
    if as_csv:
        return print_csv(answer.columns, rows)
    return print_table(answer.columns, rows, positions=POSITIONS, addresses=ADDRESSES)
