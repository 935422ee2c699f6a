"""What can be written where a tape is expected: a file, `gallery:NAME`, `archive:ID`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from traces import gallery

ARCHIVE: Final = "archive:"


def resolve(path: str | os.PathLike[str]) -> Path:
    """The file that a tape's name means.

    Of `gallery:NAME` it is that of the gallery; of `archive:ID` a copy of the tape of that ID in the archive that is
    meant where none is named (docs/archive.md); of all others what they say.

    Raises TapeError: the gallery has no such tape; UsageError, ArchiveError: the archive has none, or cannot be read.
    """
    text = os.fspath(path)
    if not text.startswith(ARCHIVE):
        return gallery.resolve(path)
    # Imported where it is needed: an archive opens tapes, too.
    from traces.archive.copies import copy_of

    return copy_of(text.removeprefix(ARCHIVE))
