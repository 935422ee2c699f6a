"""From what a person writes for an archive to where it lies."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from traces.archive.archive import CATALOGUE, MARKER, Archive
from traces.archive.store import DirectoryStore, Store


def home() -> str:
    """The archive that is meant where none is named: $RACETAPE_ARCHIVE, or a directory of this user's."""
    if named := os.environ.get("RACETAPE_ARCHIVE"):
        return named
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(data) / "racetape" / "archive")


def cache(kind: str) -> Path:
    """Folder of what can be had again at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "racetape" / kind


def open_archive(location: str) -> Archive:
    """The archive at a directory or URL (`sftp://host/path`, `s3://bucket/path`). Raises ArchiveError."""
    return Archive(*_places(location))


def create_archive(location: str) -> Archive:
    """Make one there. Raises ArchiveError, UsageError."""
    return Archive.create(*_places(location))


def is_archive(location: str) -> bool:
    """Whether a directory holds an archive."""
    return (Path(location) / MARKER).is_file()


def _places(location: str) -> tuple[Store, Path]:
    """The store, and where its catalogue is: in a directory beside the rest, of all others a copy is kept here."""
    if location.startswith("file://"):
        location = location.removeprefix("file://")
    if "://" not in location:
        return DirectoryStore(location), Path(location) / CATALOGUE
    from traces.archive.remote import RemoteStore

    return RemoteStore(location), cache("archives") / f"{sha256(location.encode()).hexdigest()[:16]}.sqlite"
