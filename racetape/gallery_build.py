"""Makes the gallery's tapes: `python -m racetape.gallery_build` (or `make gallery`).

A tape's image is the installed one with less debug information (machine/slim.py), so the runs are those of the
installed image. What is made depends on gallery.toml, the guest's sources, gcc and zstd, and on nothing else.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from debugger.checks import scenario_counters
from machine import images
from machine.errors import RacetapeError
from machine.slim import slim
from recorder import prepare
from recorder.hunt.checks import Failure
from recorder.hunt.trial import Trial
from recorder.places import guest_symbols
from recorder.strategies.script import Script, parse_choices
from traces import Tape, TapeWriter, chunks
from traces.gallery import CATALOGUE, SIZE_BYTES_MAX, Entry, entries, entry
from traces.records import IMAGE_PIECE_BYTES

IMAGE_LEVEL: Final = 19
"""Of zstd. Takes a second, once; 22 saves nothing more."""


def build(what: Entry, path: str | os.PathLike[str]) -> Failure | None:
    """Record a gallery tape to `path`; how its run fails.

    Raises RacetapeError: the image is not built, or no longer has a place that the script names.
    """
    prepared = prepare(what.scenario, what.variant, what.configuration)
    symbols = guest_symbols(prepared.machine, prepared.image)
    # Places are looked up in the full image: the slim one has fewer lines.
    script = Script(parse_choices(what.script, prepared.machine.cpus), symbols)
    failure = Trial(prepared, scenario_counters(prepared)).run(script, 0).failure
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch, "plain.tape")
        replace(prepared, image=_slim(prepared.image)).record(plain, strategy=script, layer_b=what.layer_b)
        with Tape(plain) as tape:
            _pack(tape, path)
    return failure


_slim = cache(slim)


def _pack(tape: Tape, path: str | os.PathLike[str]) -> None:
    """The same tape with its image compressed as well as zstd can."""
    image = tape.image()
    pieces = [image[at : at + IMAGE_PIECE_BYTES] for at in range(0, len(image), IMAGE_PIECE_BYTES)]
    with TapeWriter(path) as writer:
        for chunk in tape.chunks:
            payload = tape.payload(chunk)
            if chunk.kind == chunks.IMAGE:
                payload = chunks.zstd_pack(pieces.pop(0), IMAGE_LEVEL)
            writer.raw(chunk.kind, payload, chunk.first_step, chunk.end_step)
        writer.end()


def _note_compiler() -> None:
    text = CATALOGUE.read_text()
    CATALOGUE.write_text(re.sub(r'^compiler = ".*"$', f'compiler = "{images.compiler()}"', text, flags=re.M))


def main(names: Sequence[str]) -> int:
    """Make the named tapes, by default all, and note in gallery.toml with which gcc."""
    try:
        for row in [entry(name) for name in names] or entries():
            failure = build(row, row.path)
            size_bytes = row.path.stat().st_size
            print(f"{row.path}: {size_bytes:,} bytes; {failure.cause if failure else 'nothing fails'}")
            if failure is None or failure.cause != row.cause:
                print(f"{row.name}: gallery.toml says that it fails with: {row.cause}", file=sys.stderr)
                return 1
            if size_bytes > SIZE_BYTES_MAX:
                print(f"{row.name}: larger than {SIZE_BYTES_MAX:,} bytes", file=sys.stderr)
                return 1
        _note_compiler()
    except RacetapeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
