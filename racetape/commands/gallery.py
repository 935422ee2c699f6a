"""`racetape gallery`: the tapes that come with racetape."""

from __future__ import annotations

import click

from racetape.commands.common import emit, epilog, json_option


@click.command(epilog=epilog("racetape gallery", "racetape debug gallery:wrong-zone"))
@json_option
def gallery(as_json: bool) -> None:
    """List the tapes that come with racetape: the bundled bugs, ready to be travelled in.

    A name like gallery:wrong-zone can be given wherever a tape is expected.
    """
    from traces.gallery import PREFIX, entries

    if as_json:
        emit(
            [
                {
                    "tape": f"{PREFIX}{row.name}",
                    "shows": row.shows,
                    "scenario": row.scenario,
                    "variant": row.variant,
                    "configuration": row.configuration,
                    "cause": row.cause,
                    "commands": list(row.commands),
                    "path": str(row.path),
                    "size_bytes": row.path.stat().st_size,
                }
                for row in entries()
            ]
        )
        return
    for row in entries():
        click.echo(f"{PREFIX}{row.name}")
        click.echo(f"    {row.shows}")
        click.echo(f"    ({row.scenario}, {row.variant}, {row.configuration}: {row.cause})")
        for command in row.commands:
            click.echo(f"    {command}")
