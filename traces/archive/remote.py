"""An archive elsewhere: anything that fsspec reaches, by its URL."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, Final

from machine.errors import ArchiveError
from traces.archive.store import FOLDERS, LASTING, TEMPORARY, MissingError, Stat

_OBJECT_STORES: Final = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"))
"""Protocols whose objects appear whole or not at all, and that have no folders to be made."""
_EXTRAS: Final = {"sftp": ("sftp", "sshfs"), "ssh": ("sftp", "sshfs"), "s3": ("s3", "s3fs"), "s3a": ("s3", "s3fs")}
"""Which extra of racetape brings a protocol, and the module that speaks it."""
_PASSWORD: Final = re.compile(r"(?<=[^/]):[^/@]*@")
"""In a URL; never shown."""
_TIMES: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What the file systems call the time at which something was written."""


class RemoteStore:
    """Objects at a URL, below which nothing else should be.

    Where a write can stop in the middle, objects are written under a temporary name, synced if the server can do that,
    and renamed. On object stores `put` is one request, which happens or does not.

    Raises ArchiveError: the URL is not understood, what it needs is not installed, or nobody answers.
    """

    def __init__(self, location: str) -> None:
        self._location = location.rstrip("/")
        protocol = location.partition("://")[0]
        extra, module = _EXTRAS.get(protocol, ("sftp", "fsspec"))
        try:
            fsspec = import_module("fsspec")
            speaks = import_module(module)
        except ImportError:
            raise ArchiveError(f"{_PASSWORD.sub('@', location)}: this needs pip install 'racetape[{extra}]'") from None
        self._objects = protocol in _OBJECT_STORES
        with self._errors("reach"):
            try:
                # Of an object store, what others have written since must be seen; of others, no connection is shared,
                # because one that broke would stay so.
                options: dict[str, Any] = (
                    {"use_listings_cache": False} if self._objects else {"skip_instance_cache": True}
                )
                if module == "sshfs":
                    # Not fsspec's own, which cannot sync.
                    fsspec.register_implementation(protocol, speaks.SSHFileSystem, clobber=True)
                    if "known_hosts" not in fsspec.config.conf.get(protocol, {}):
                        options["known_hosts"] = ()  # those of OpenSSH; the library's own default is to trust anybody
                self._files, root = fsspec.core.url_to_fs(self._location, **options)
            except ImportError:
                raise ArchiveError(
                    f"{self.location}: nothing is installed that reaches {protocol}:// (a file system for fsspec)"
                ) from None
        self._root = str(root).rstrip("/")

    @property
    def location(self) -> str:
        return _PASSWORD.sub("@", self._location)

    def create(self) -> None:
        if not self._objects:
            with self._errors("make"):
                for folder in (*FOLDERS, TEMPORARY):
                    self._files.makedirs(f"{self._root}/{folder}", exist_ok=True)

    def empty(self) -> bool:
        with self._errors("read"):
            try:
                return not self._files.ls(self._root, detail=False)
            except FileNotFoundError:
                return True

    def list(self, folder: str) -> dict[str, Stat]:
        with self._errors("list"):
            self._files.invalidate_cache()
            try:
                rows = self._files.ls(f"{self._root}/{folder}", detail=True)
            except FileNotFoundError:
                return {}  # An object store has no folder before it has something in it.
        found = {}
        for row in rows:
            name = str(row["name"]).rstrip("/").rpartition("/")[2]
            if row.get("type") == "file" and name:
                found[name] = Stat(int(row["size"]), _time(row))
        return found

    def size(self, folder: str, name: str) -> int | None:
        with self._errors("read"):
            self._files.invalidate_cache()
            try:
                return int(self._files.info(self._path(folder, name))["size"])
            except FileNotFoundError:
                return None

    def read(self, folder: str, name: str) -> bytes:
        with self._errors("read"):
            try:
                return bytes(self._files.cat_file(self._path(folder, name)))
            except FileNotFoundError:
                raise MissingError(f"{self.location}: {folder}/{name} is missing") from None

    def read_many(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        if not names:
            return {}
        paths = {self._path(folder, name): name for name in names}
        found: dict[str, bytes] = {}
        with self._errors("read"):
            for path, data in self._files.cat(list(paths), on_error="return").items():
                if isinstance(data, FileNotFoundError):
                    continue
                if isinstance(data, BaseException):
                    raise data
                found[paths[path]] = bytes(data)
        return found

    def put(self, folder: str, name: str, data: bytes) -> None:
        path = self._path(folder, name)
        with self._errors("write to"):
            if self._objects:
                self._files.pipe_file(path, data)
                return
            temporary = self._path(TEMPORARY, uuid.uuid4().hex)
            try:
                with self._files.open(temporary, "wb") as file:
                    file.write(data)
                    if folder in LASTING and hasattr(file, "fsync"):
                        with contextlib.suppress(NotImplementedError, OSError, *_unsupported()):
                            file.fsync()
                self._files.mv(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._files.rm_file(temporary)
                raise

    def settle(self, folder: str) -> None:
        """Nothing: names are the server's to keep."""

    def delete(self, folder: str, name: str) -> None:
        with self._errors("delete from"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(folder, name))

    def delete_temporary(self, age_s: float) -> int:
        if self._objects:
            return 0
        # By the server's clock: when it has just written something itself.
        probe = uuid.uuid4().hex
        with self._errors("write to"):
            self._files.pipe_file(self._path(TEMPORARY, probe), b"")
        rows = self.list(TEMPORARY)
        self.delete(TEMPORARY, probe)
        now = rows.pop(probe).time if probe in rows else 0.0
        old = [name for name, row in rows.items() if now - row.time >= age_s]
        for name in old:
            self.delete(TEMPORARY, name)
        return len(old)

    def _path(self, folder: str, name: str) -> str:
        return "/".join(part for part in (self._root, folder, name) if part)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """What the libraries raise is of many kinds; for whoever uses racetape it is one: it did not work, and why."""
        try:
            yield
        except ArchiveError:
            raise
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise ArchiveError(f"cannot {what} {self.location}: {why}") from None


def _time(row: dict[str, Any]) -> float:
    """When an object was written, in seconds since 1970; 0 if nobody says, which makes it old."""
    for key in _TIMES:
        value = row.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def _unsupported() -> tuple[type[Exception], ...]:
    """What a server raises that cannot sync."""
    try:
        from asyncssh.sftp import SFTPOpUnsupported
    except ImportError:
        return ()
    return (SFTPOpUnsupported,)
