"""`racetape archive`: tapes kept together, and found again."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from machine.errors import ArchiveError, RacetapeError, UsageError
from racetape.commands.common import EXIT_BAD, describe_stop, emit, epilog, fail, json_option, output_option

if TYPE_CHECKING:
    from traces import Tape
    from traces.archive import Added, Archive, Diagnosis, Row

_DIGITS: Final = 12
"""Of a tape's SHA-256, as shown."""
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

archive_option = click.option(
    "--archive",
    "location",
    envvar="RACETAPE_ARCHIVE",
    metavar="LOCATION",
    help="Directory, sftp://host/path or s3://bucket/path "
    "(default: $RACETAPE_ARCHIVE, or ~/.local/share/racetape/archive).",
)
tag_option = click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag to find it by; may be repeated.")
note_option = click.option("--note", default="", help="A line about it.")
quick_option = click.option(
    "--quick", is_flag=True, help="Do not replay: the tape has no failure signature until it is added without this."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def archive() -> None:
    """Keep tapes together, each part stored once, and find them again by what they show."""


def _open(location: str | None) -> Archive:
    from traces.archive import home, open_archive

    return open_archive(location or home())


@archive.command(epilog=epilog("racetape archive init", "racetape archive init sftp://me@lab/srv/tapes"))
@click.argument("location", required=False, envvar="RACETAPE_ARCHIVE")
@json_option
def init(location: str | None, as_json: bool) -> None:
    """Make an archive at LOCATION: a directory that is empty or not there, sftp://host/path or s3://bucket/path."""
    from traces.archive import create_archive, home

    made = create_archive(location or home())
    if as_json:
        emit({"archive": made.store.location})
    else:
        click.echo(f"{made.store.location}: an archive, with nothing in it yet")


@archive.command(
    epilog=epilog(
        "racetape archive add bug.tape --tag nightly --note 'first seen after the rebase'",
        "racetape archive add hunts/*.tape --archive s3://lab/tapes",
    )
)
@click.argument("tapes", nargs=-1, required=True, type=click.Path(path_type=Path))
@archive_option
@tag_option
@note_option
@click.option("--damaged", is_flag=True, help="Archive damaged tapes, too.")
@quick_option
@json_option
def add(
    tapes: tuple[Path, ...],
    location: str | None,
    tags: tuple[str, ...],
    note: str,
    damaged: bool,
    quick: bool,
    as_json: bool,
) -> None:
    """Archive TAPES. One that is there already gets the tags and the note besides its own.

    An unfinished tape is archived as it is. Exit status 2 if any tape could not be archived; the others are.
    """
    kept = _open(location)
    done, problems = _add_all(kept, tapes, tags=tags, note=note, damaged=damaged, quick=quick, quiet=as_json)
    if as_json:
        emit({"archive": kept.store.location, "tapes": [_added(*row) for row in done], "problems": problems})
    sys.exit(EXIT_BAD if problems else 0)


def _add_all(
    kept: Archive,
    tapes: tuple[Path, ...],
    *,
    tags: tuple[str, ...],
    note: str,
    damaged: bool,
    quick: bool,
    quiet: bool,
) -> tuple[list[tuple[Path, Added]], list[str]]:
    """Add each; those that were, and what is wrong with the others, which is printed at once."""
    done, problems = [], []
    for path in tapes:
        try:
            added = kept.add(path, tags=tags, note=note, damaged=damaged, diagnose=None if quick else _diagnose)
        except RacetapeError as error:
            problems.append(str(error))
            fail(str(error))
            continue
        done.append((path, added))
        if not quiet:
            what = added.diagnosis.signature or added.diagnosis.note or "did not fail"
            there = "" if added.new else " (was there)"
            click.echo(f"{added.tape[:_DIGITS]}  {path}: {what}; {_bytes(added.written_bytes)} written{there}")
    return done, problems


def _diagnose(tape: Tape) -> Diagnosis:
    from debugger.diagnosis import diagnose
    from racetape.progress import ticking

    with ticking(f"{tape.path}: replaying", tape.end_step) as tick:
        return diagnose(tape, tick)


def _added(path: Path, added: Added) -> dict[str, Any]:
    return {
        "file": str(path),
        "tape": added.tape,
        "new": added.new,
        "signature": added.diagnosis.signature,
        "diagnosis_note": added.diagnosis.note,
        "size_bytes": added.size_bytes,
        "written_bytes": added.written_bytes,
    }


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A time as seconds since 1970: `7d`, `12h`, or a date, with a time of day or not."""
    if value is None:
        return None
    if match := _AGO.fullmatch(value):
        try:
            return time.time() - timedelta(**{_UNITS[match[2]]: float(match[1])}).total_seconds()
        except OverflowError:
            raise click.BadParameter(f"'{value}' is longer ago than there is time") from None
    try:
        return datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"'{value}' is no time; write 90m, 12h, 7d, 2w or 2026-11-23") from None


@archive.command(
    "list",
    epilog=epilog(
        "racetape archive list --scenario wrong-zone --failed --since 7d",
        "racetape archive list --function acct_isolated --tag nightly",
        "racetape archive list --same-as bug.tape",
        "racetape archive list --signature 'mm/vmscan.c:*' --json",
    ),
)
@archive_option
@click.option("--scenario", help="Scenario; here and below, * and ? stand for any text or character.")
@click.option("--variant", help="Variant of the guest.")
@click.option("--config", "configuration", help="CPUs and paging.")
@click.option("--image", help="First digits of the guest image's SHA-256.")
@click.option("--strategy", help="Who made the schedule.")
@click.option("--seed", type=int, help="The strategy's seed.")
@click.option("--stop", help="Why the run ended: exit, idle, shutdown, livelock, freed, steps, interrupted.")
@click.option("--exit-status", type=int, help="What the guest said at its exit.")
@click.option("--signature", help="Failure signature.")
@click.option("--failed/--passed", default=None, help="Only tapes with a failure signature, or only those without.")
@click.option("--function", help="Where a counter first went wrong.")
@click.option("--counter", help="A counter that went wrong.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag; may be repeated: all of them.")
@click.option("--text", help="Occurs in a note, the failure or the file's name.")
@click.option("--since", callback=_moment, help="Archived since: 90m, 12h, 7d, 2w ago, or a date.")
@click.option("--until", callback=_moment, help="Archived before.")
@click.option("--unfinished/--finished", default=None, help="Only tapes that are cut, or only whole ones.")
@click.option("--same-as", metavar="TAPE|ID", help="Tapes of the same scenario that fail with the same signature.")
@click.option("--limit", type=click.IntRange(1), help="Show the last so many.")
@json_option
def list_tapes(location: str | None, same_as: str | None, limit: int | None, as_json: bool, **wanted: Any) -> None:
    """List tapes, those archived last first: all, or those for which everything asked for holds."""
    from traces.archive import Search

    kept = _open(location)
    with _catalogue(kept) as (search, damaged):
        same = _same_as(search, kept, same_as) if same_as is not None else None
        rows = search(Search(**wanted))
    if same is not None:
        rows = [row for row in rows if (row.facts.scenario, row.signature) == same]
    rows = rows[:limit]
    if as_json:
        emit({"archive": kept.store.location, "tapes": [_row(row) for row in rows]})
    else:
        _table(rows)
    sys.exit(_complete(kept, damaged))


Find = Callable[..., "list[Row]"]


@contextmanager
def _catalogue(kept: Archive) -> Iterator[tuple[Find, list[tuple[str, str]]]]:
    """The catalogue's search, and what is wrong with manifests that it had to leave out."""
    from racetape.progress import ticking

    with ticking("reading manifests") as tick, kept.catalogue(tick) as catalogue:
        yield catalogue.search, catalogue.damaged()


def _complete(kept: Archive, damaged: list[tuple[str, str]]) -> int:
    """The exit status of an answer from the catalogue: 2 if there are tapes of which it knows nothing."""
    if not damaged:
        return 0
    return fail(
        f"{kept.store.location}: the answer is not complete, {len(damaged)} of the manifests cannot be read: "
        f"{damaged[0][1]} (racetape archive verify says more)"
    )


def _same_as(search: Find, kept: Archive, name: str) -> tuple[str, str]:
    """(scenario, signature) of a tape in a file or in the archive. Raises UsageError if it has not failed."""
    from traces import Tape
    from traces.archive import Search

    if Path(name).is_file():
        with Tape(name) as tape:
            diagnosis, scenario = _diagnose(tape), tape.header.scenario
        signature, note = diagnosis.signature, diagnosis.note
    else:
        found = search(Search(tape=kept.find(name)))
        if not found:
            raise ArchiveError(f"the manifests of {name} are damaged")
        signature, note, scenario = found[0].signature, found[0].diagnosis_note, found[0].facts.scenario
    if signature is None:
        raise UsageError(f"{name} has no failure signature: {note or 'it did not fail'}")
    return scenario, signature


def _table(rows: list[Row]) -> None:
    for row in rows:
        facts = row.facts
        state = " (damaged)" if facts.damaged else " (cut)" if facts.unfinished else ""
        tags = f"  [{' '.join(row.tags)}]" if row.tags else ""
        _echo(
            f"{row.tape[:_DIGITS]}  {_date(row.time)[:16]}  {facts.scenario} ({facts.variant}, {facts.configuration})"
            f"{state}  {facts.steps:,} steps  {row.signature or row.diagnosis_note or 'did not fail'}{tags}"
        )


def _echo(line: str) -> None:
    """Print what strangers may have written: nothing that a terminal would take for a command."""
    click.echo("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")


def _row(row: Row) -> dict[str, Any]:
    return {
        "tape": row.tape,
        "added": datetime.fromtimestamp(row.time, UTC).isoformat(),
        "size_bytes": row.size_bytes,
        **asdict(row.facts),
        "signature": row.signature,
        "failure": row.failure,
        "diagnosis_note": row.diagnosis_note,
        "divergences": [asdict(divergence) for divergence in row.divergences],
        "files": list(row.files),
        "tags": list(row.tags),
        "notes": list(row.notes),
    }


@archive.command(epilog=epilog("racetape archive show 8418735feae0"))
@click.argument("tape")
@archive_option
@json_option
def show(tape: str, location: str | None, as_json: bool) -> None:
    """Everything about one tape. TAPE: the first digits of its SHA-256, 4 or more, as list shows them."""
    from traces.archive import Search

    kept = _open(location)
    found = kept.find(tape)
    with kept.catalogue() as catalogue:
        rows, blobs = catalogue.search(Search(tape=found)), catalogue.blobs_of(found)
        damaged = [row for row in catalogue.damaged() if row[0].startswith(found)]
    if not rows:
        raise ArchiveError(f"{kept.store.location}: {damaged[0][1] if damaged else f'{tape} was just removed'}")
    row = rows[0]
    parts = [{"blob": name, "size_bytes": size, "other_tapes": others} for name, size, others in blobs]
    if as_json:
        emit({"archive": kept.store.location, **_row(row), "blobs": parts})
    else:
        _describe(row, parts)
    sys.exit(_complete(kept, damaged))


def _describe(row: Row, parts: list[dict[str, Any]]) -> None:
    facts, name = row.facts, row.tape[:_DIGITS]
    state = ", damaged" if facts.damaged else ""
    lines = [
        ("tape", row.tape),
        ("added", f"{_date(row.time)} as {', '.join(row.files)}"),
        ("run", f"{facts.scenario}, variant {facts.variant}, {facts.configuration}; {facts.cpus} CPUs"),
        ("schedule", f"{facts.strategy}, seed {facts.seed}"),
        ("end", f"@{facts.steps}: {describe_stop(facts.stop, facts.exit_status)}{state}"),
        ("failure", row.failure or row.diagnosis_note or "none"),
        *((("signature", row.signature),) if row.signature else ()),
        *((d.counter, f"first wrong at @{d.step} in {d.function} ({d.file}:{d.line})") for d in row.divergences),
        ("image", facts.image_sha256),
        ("tags", " ".join(row.tags) or "none"),
        *(("note", note) for note in row.notes),
        ("size", f"{row.size_bytes:,} bytes, of which shared with other tapes: {_shared(parts):,}"),
        ("have it", f"racetape archive export {name} -o {name}.tape"),
    ]
    for key, value in lines:
        _echo(f"{key + ':':<18} {value}")


def _shared(parts: list[dict[str, Any]]) -> int:
    return sum(part["size_bytes"] for part in parts if part["other_tapes"])


@archive.command(epilog=epilog("racetape archive verify", "racetape archive verify --archive s3://lab/tapes --json"))
@archive_option
@json_option
def verify(location: str | None, as_json: bool) -> None:
    """Read everything again and compare it with its checksums. Exit status 2 if anything is damaged or missing."""
    from racetape.progress import ticking

    kept = _open(location)
    with ticking("verifying: byte") as tick:
        found = kept.verify(tick)
    if as_json:
        emit({"archive": kept.store.location, "ok": not found.problems, **asdict(found)})
    else:
        for problem in found.problems:
            names = ", ".join(tape[:_DIGITS] for tape in problem.tapes)
            click.echo(f"{problem.what}; needed by {names}" if names else problem.what)
        if not found.problems:
            click.echo(
                f"{kept.store.location}: {found.tapes} tapes, {found.blobs} blobs, {_bytes(found.size_bytes)}: all as "
                "they were"
            )
    if found.problems:
        hit = {tape for problem in found.problems for tape in problem.tapes}
        fail(
            f"{kept.store.location}: {len(found.problems)} damaged or missing, {len(hit)} of {found.tapes} tapes hit; "
            "a tape of which there is a copy elsewhere is made whole by adding that"
        )
        sys.exit(EXIT_BAD)


@archive.command(epilog=epilog("racetape archive rm 8418735feae0"))
@click.argument("tapes", nargs=-1, required=True)
@archive_option
@json_option
def rm(tapes: tuple[str, ...], location: str | None, as_json: bool) -> None:
    """Remove TAPES from the archive; the space is free after the next gc."""
    kept = _open(location)
    found = [kept.find(tape) for tape in tapes]
    for tape in found:
        kept.remove(tape)
    if as_json:
        emit({"archive": kept.store.location, "removed": found})
    else:
        for tape in found:
            click.echo(f"{tape[:_DIGITS]}: removed")


@archive.command(
    epilog=epilog(
        "racetape archive gc",
        "racetape archive gc --keep-days 30 --keep-per-signature 3 --keep-tag keep --dry-run",
    )
)
@archive_option
@click.option("--keep-days", type=click.FloatRange(0), help="Keep tapes archived in the last so many days.")
@click.option(
    "--keep-per-signature", type=click.IntRange(0), help="Keep the so many shortest tapes of each failure signature."
)
@click.option(
    "--keep-tag", "keep_tags", multiple=True, metavar="TAG", help="Keep tapes with this tag; may be repeated."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def gc(
    location: str | None,
    keep_days: float | None,
    keep_per_signature: int | None,
    keep_tags: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete what no tape needs any more. With --keep-..., first remove the tapes that none of these rules keeps.

    Of tapes that did not fail, --keep-per-signature keeps so many for each scenario, variant and configuration.
    """
    from racetape.progress import ticking
    from traces.archive import Rules, to_remove

    kept = _open(location)
    rules = Rules(days=keep_days, per_signature=keep_per_signature, tags=keep_tags)
    gone: list[Row] = []
    if rules.any:
        with _catalogue(kept) as (search, damaged):
            if damaged:
                raise ArchiveError(f"{damaged[0][1]}; nothing was removed (racetape archive verify says more)")
            gone = to_remove(search(), rules, time.time())
    names = [name for row in gone for name in row.manifests]
    if not dry_run:
        kept.remove_manifests(names)
    with ticking("deleting: blob") as tick:
        collected = kept.collect(without=names if dry_run else (), dry_run=dry_run, progress=tick)
    if as_json:
        emit(
            {
                "archive": kept.store.location,
                "dry_run": dry_run,
                "removed": [row.tape for row in gone],
                **asdict(collected),
            }
        )
        return
    _table(gone)
    would = "would be " if dry_run else ""
    blobs = f"{collected.blobs} blobs ({_bytes(collected.size_bytes)})"
    click.echo(f"{kept.store.location}: {len(gone)} tapes {would}removed, {blobs} {would}deleted")


@archive.command(epilog=epilog("racetape archive export 8418735feae0 -o bug.tape"))
@click.argument("tape")
@output_option
@archive_option
@json_option
def export(tape: str, output: Path, location: str | None, as_json: bool) -> None:
    """Write a tape to a file, byte for byte as it was archived."""
    from racetape.progress import ticking

    kept = _open(location)
    found = kept.find(tape)
    with ticking("exporting: byte") as tick:
        size_bytes = kept.export(found, output, tick)
    if as_json:
        emit({"archive": kept.store.location, "tape": found, "file": str(output), "size_bytes": size_bytes})
    else:
        click.echo(f"{output}: {size_bytes:,} bytes, SHA-256 {found}")


@archive.command(
    "import",
    epilog=epilog(
        "racetape archive import hunts/ --tag hunts", "racetape archive import sftp://lab/srv/tapes --archive ./tapes"
    ),
)
@click.argument("source")
@archive_option
@tag_option
@note_option
@quick_option
@json_option
def import_tapes(
    source: str, location: str | None, tags: tuple[str, ...], note: str, quick: bool, as_json: bool
) -> None:
    """Take over all tapes of SOURCE: another archive, with its tags, notes and times, or a folder of *.tape files.

    Exit status 2 if any could not be had; the others are taken over.
    """
    from racetape.progress import ticking
    from traces.archive import is_archive

    kept = _open(location)
    if "://" in source or is_archive(source):
        if tags or note or quick:
            raise UsageError("tags, notes and diagnoses come from the other archive; these options are for folders")
        with ticking("importing: manifest") as tick:
            new, there, problems = kept.take_over(_open(source), tick)
        for problem in problems:
            fail(problem)
    else:
        paths = tuple(sorted(path for path in Path(source).rglob("*.tape") if path.is_file()))
        if not paths:
            raise UsageError(f"{source} is no archive and no folder with tapes (*.tape)")
        done, problems = _add_all(kept, paths, tags=tags, note=note, damaged=False, quick=quick, quiet=True)
        new = sum(row.new for _, row in done)
        there = len(done) - new
    if as_json:
        emit({"archive": kept.store.location, "new": new, "there": there, "problems": problems})
    else:
        click.echo(f"{kept.store.location}: {new} new tapes, {there} were there, {len(problems)} could not be had")
    sys.exit(EXIT_BAD if problems else 0)


def _bytes(count: int) -> str:
    """A number of bytes for people."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
