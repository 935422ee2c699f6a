"""The tapes that come with racetape: the bundled bugs, each minimised, some 90 kB each.

Wherever a tape is expected, `gallery:wrong-zone` means one of them. gallery.toml says what they are, and
`python -m racetape.gallery_build` makes them.

Exports:
    Entry, entries, entry: the tapes there are.
    compiler: what their images were built with.
    resolve: the file that a tape's name means.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from machine.errors import TapeError

PREFIX: Final = "gallery:"
SIZE_BYTES_MAX: Final = 100_000
"""Of one of these tapes."""

_HERE: Final = Path(__file__).parent
CATALOGUE: Final = _HERE / "gallery.toml"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tape of gallery.toml; the fields are explained there."""

    name: str
    scenario: str
    variant: str
    configuration: str
    script: str
    layer_b: bool
    cause: str
    shows: str
    commands: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return _HERE / f"{self.name}.tape"


@cache
def entries() -> tuple[Entry, ...]:
    """All tapes, in the order of gallery.toml."""
    rows = tomllib.loads(CATALOGUE.read_text())["tape"]
    return tuple(Entry(**{**row, "commands": tuple(row["commands"])}) for row in rows)


def compiler() -> str:
    """With which gcc the tapes' images were built, as `machine.images.compiler` says it."""
    return str(tomllib.loads(CATALOGUE.read_text())["compiler"])


def entry(name: str) -> Entry:
    """The tape of that name, with or without `gallery:`. Raises TapeError, with close matches, if there is none."""
    short = name.removeprefix(PREFIX)
    by_name = {row.name: row for row in entries()}
    if short not in by_name:
        close = difflib.get_close_matches(short, by_name, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(by_name)}"
        raise TapeError(f"no such tape in the gallery: {short!r}; {hint}")
    return by_name[short]


def resolve(path: str | os.PathLike[str]) -> Path:
    """The file that a tape's name means: of `gallery:NAME` that of the gallery, of all others what they say.

    Raises TapeError for a name that the gallery does not have.
    """
    text = os.fspath(path)
    return entry(text).path if text.startswith(PREFIX) else Path(path)
