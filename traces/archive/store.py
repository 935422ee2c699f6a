"""Where an archive's objects lie: a few flat folders of write-once objects, in a directory or elsewhere."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from machine.errors import ArchiveError

BLOBS: Final = "blobs"
TAPES: Final = "tapes"
INTENTS: Final = "intents"
MARKS: Final = "marks"
FOLDERS: Final = (BLOBS, TAPES, INTENTS, MARKS)
LASTING: Final = frozenset(("", BLOBS, TAPES))
"""Folders whose objects must survive the machine; the others are about processes that do not."""
TEMPORARY: Final = "tmp"
"""Where objects are written before they get their name; not every store needs it."""


class MissingError(ArchiveError):
    """There is no such object."""


@dataclass(frozen=True, slots=True)
class Stat:
    """An object in a listing: its length in bytes, and when it was written, in seconds by the store's own clock."""

    size_bytes: int
    time: float


class Store(Protocol):
    """Objects by (folder, name). An object appears whole or not at all."""

    @property
    def location(self) -> str:
        """As a person writes it."""
        ...

    def create(self) -> None:
        """Make the folders. Raises ArchiveError."""
        ...

    def empty(self) -> bool:
        """Whether there is nothing at all at the location, or nothing with such a name. Raises ArchiveError."""
        ...

    def list(self, folder: str) -> dict[str, Stat]:
        """All objects of a folder, by name. Raises ArchiveError."""
        ...

    def size(self, folder: str, name: str) -> int | None:
        """An object's length in bytes; None if it is not there. Raises ArchiveError."""
        ...

    def read(self, folder: str, name: str) -> bytes:
        """An object's bytes. Raises MissingError, ArchiveError."""
        ...

    def read_many(self, folder: str, names: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of those of the objects that are there. Raises ArchiveError."""
        ...

    def put(self, folder: str, name: str, data: bytes) -> None:
        """Write an object, atomically, over what may be there. Raises ArchiveError."""
        ...

    def settle(self, folder: str) -> None:
        """From now on all objects that this process has seen in a folder survive the machine's end, too, whoever wrote
        them. For the folders of LASTING. Raises ArchiveError."""
        ...

    def delete(self, folder: str, name: str) -> None:
        """Delete an object that may be gone already. Raises ArchiveError."""
        ...

    def delete_temporary(self, age_s: float) -> int:
        """Delete what writers that were killed more than `age_s` seconds ago left; how many. Raises ArchiveError."""
        ...


class DirectoryStore:
    """A directory. Objects are written under a temporary name, synced to disk and renamed; `settle` syncs the names."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def location(self) -> str:
        return str(self.path)

    def create(self) -> None:
        with self._errors("make"):
            for folder in ("", *FOLDERS, TEMPORARY):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            for folder in (*FOLDERS, TEMPORARY, ""):
                _sync_folder(self.path / folder)
            _sync_folder(self.path.absolute().parent)

    def empty(self) -> bool:
        with self._errors("read"):
            return not self.path.exists() or not any(self.path.iterdir())

    def list(self, folder: str) -> dict[str, Stat]:
        found = {}
        with self._errors("list"), os.scandir(self.path / folder) as rows:
            for row in rows:
                with contextlib.suppress(FileNotFoundError):  # Deleted since.
                    stat = row.stat()
                    found[row.name] = Stat(stat.st_size, stat.st_mtime)
        return found

    def size(self, folder: str, name: str) -> int | None:
        with self._errors("read"):
            try:
                return (self.path / folder / name).stat().st_size
            except FileNotFoundError:
                return None

    def read(self, folder: str, name: str) -> bytes:
        with self._errors("read"):
            try:
                return (self.path / folder / name).read_bytes()
            except FileNotFoundError:
                raise MissingError(f"{self.location}: {folder}/{name} is missing") from None

    def read_many(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for name in names:
            with contextlib.suppress(MissingError):
                found[name] = self.read(folder, name)
        return found

    def put(self, folder: str, name: str, data: bytes) -> None:
        temporary = self.path / TEMPORARY / uuid.uuid4().hex
        with self._errors("write"):
            try:
                with open(temporary, "xb") as file:
                    file.write(data)
                    file.flush()
                    if folder in LASTING:
                        os.fsync(file.fileno())
                os.replace(temporary, self.path / folder / name)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def settle(self, folder: str) -> None:
        with self._errors("write"):
            _sync_folder(self.path / folder)

    def delete(self, folder: str, name: str) -> None:
        with self._errors("delete from"):
            (self.path / folder / name).unlink(missing_ok=True)
            if folder == TAPES:
                _sync_folder(self.path / folder)

    def delete_temporary(self, age_s: float) -> int:
        rows = self.list(TEMPORARY)
        with self._errors("delete from"):
            # What the file system holds for the present, whatever clock this process has.
            probe = self.path / TEMPORARY / uuid.uuid4().hex
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
        old = [name for name, row in rows.items() if now - row.time >= age_s]
        for name in old:
            self.delete(TEMPORARY, name)
        return len(old)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArchiveError(f"cannot {what} {error.filename or self.location}: {error.strerror}") from None


def _sync_folder(path: Path) -> None:
    """Make renames within a folder lasting."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
