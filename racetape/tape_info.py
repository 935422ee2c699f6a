"""What `racetape tape info` says of a tape."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from machine.errors import TapeDamagedError
from traces import Tape
from traces.chunks import FormatError
from traces.schema import KIND_NAMES


def tape_info(tape: Tape) -> dict[str, Any]:
    """The answer as JSON has it."""
    header, footer = tape.header, tape.footer
    room: Counter[str] = Counter()
    for chunk in tape.chunks:
        room[chunk.name] += chunk.payload_bytes
    kinds = _kinds(tape)
    first, end = tape.events_range
    return {
        "tape": str(tape.path),
        "format": header.format,
        "size_bytes": tape.path.stat().st_size,
        "tool": header.tool,
        "scenario": header.scenario,
        "variant": header.variant,
        "configuration": header.configuration,
        "command_line": header.command_line,
        "cpus": header.cpus,
        "ram_bytes": header.ram_bytes,
        "image_sha256": header.image_sha256.hex(),
        "strategy": header.strategy,
        "seed": header.seed,
        "ready_step": header.ready_step,
        "steps": tape.end_step,
        "stop": footer.stop if footer else None,
        "exit_status": footer.exit_status if footer else None,
        "state_hash": f"{footer.state_hash:016x}" if footer else None,
        "memory_hash": f"{footer.memory_hash:016x}" if footer else None,
        "unfinished": tape.unfinished,
        "damage": str(tape.damage) if tape.damage else None,
        "events": tape.event_count(),
        "events_first": first,
        "events_end": end,
        "kinds": {KIND_NAMES.get(k, f"kind {k}"): n for k, n in sorted(kinds.items())} if kinds else None,
        "checkpoints": len(tape.checkpoint_chunks),
        "bytes": dict(sorted(room.items())),
        "attachments": _attachments(tape),
    }


def _kinds(tape: Tape) -> Counter[int] | None:
    """How many events there are of each kind; None if not every chunk has an index that says it."""
    kinds: Counter[int] = Counter()
    for chunk in tape.events_chunks:
        try:
            index = tape.index_of(chunk)
            if index is not None:
                kinds.update(index.kinds)
        except FormatError:
            index = None
        if index is None and tape.events_in(chunk):
            return None
    return kinds


def _attachments(tape: Tape) -> list[dict[str, Any]]:
    rows = []
    for chunk in tape.attachment_chunks:
        try:
            row = tape.read_attachment(chunk)
        except TapeDamagedError:
            continue
        rows.append({"name": row.name, "type": row.type, "size_bytes": len(row.data)})
    return rows


def print_info(answer: dict[str, Any]) -> None:
    """The answer for people."""
    a = answer
    click.echo(f"{a['tape']}: {a['size_bytes']:,} bytes, format {a['format']}, by {a['tool']}")
    click.echo(f"  run          {a['scenario']} ({a['variant']}, {a['configuration']}), {a['cpus']} CPUs,", nl=False)
    click.echo(f" {a['ram_bytes'] >> 20} MB; strategy {a['strategy']}, seed {a['seed']}")
    click.echo(f"  image        sha256 {a['image_sha256'][:16]}...; boot line '{a['command_line']}'")
    end = f"{a['stop']}, final state {a['state_hash']}"
    if a["stop"] is None:
        end = "cut: the end of the run is not there" if a["unfinished"] else "damaged: the end of the run is not there"
    click.echo(f"  steps        {a['steps']:,}, set-up over at @{a['ready_step']}; {end}")
    if a["events_first"] == a["events_end"]:
        click.echo("  events       none (`racetape tape rebuild` makes them)")
    elif a["events"] is None:
        click.echo("  events       damaged (`racetape tape rebuild` makes them again)")
    else:
        each = a["bytes"]["events"] / a["events"] if a["events"] else 0
        click.echo(
            f"  events       {a['events']:,} from @{a['events_first']} to @{a['events_end']}, {each:.2f} bytes each"
        )
    if a["kinds"]:
        common = sorted(a["kinds"].items(), key=lambda row: -row[1])
        click.echo("               " + ", ".join(f"{name} {count:,}" for name, count in common[:8]))
    click.echo("  bytes        " + ", ".join(f"{name} {count:,}" for name, count in a["bytes"].items()))
    sources = [row for row in a["attachments"] if row["type"] == "source"]
    for row in a["attachments"]:
        if row["type"] != "source":
            name, what = (text if text.isprintable() else repr(text) for text in (row["name"], row["type"]))
            click.echo(f"  attached     {name} ({what}, {row['size_bytes']:,} bytes)")
    if sources:
        click.echo(f"  attached     {len(sources)} source files, {sum(r['size_bytes'] for r in sources):,} bytes")
