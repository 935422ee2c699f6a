"""An archive of tapes: add, export, import, remove, verify, collect what nothing needs any more (docs/archive.md).

Two rules make it safe without a lock. A manifest is written after all its blobs, so what is listed is whole. And an
*intent*, which names the blobs that an `add` is going to rely on, is written before it looks which of them are there,
as a *mark*, which names those that `collect` is going to delete, is written before that looks who needs them: of an
add and a collection at the same time, at least one sees the other, and gives way.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgpack

from machine.errors import ArchiveError, TapeDamagedError, TapeError, UsageError
from traces import Tape
from traces.archive.catalogue import Catalogue, Row, Search
from traces.archive.layout import Blob, Layout, Put, Splitter, file_size, rebuild
from traces.archive.manifest import (
    ARCHIVE_VERSION,
    Diagnose,
    Diagnosis,
    Facts,
    Label,
    Manifest,
    decode_manifest,
    tape_of,
)
from traces.archive.owner import is_dead, this_process
from traces.archive.store import BLOBS, INTENTS, MARKS, TAPES, MissingError, Store
from traces.names import resolve
from traces.reader import Progress

MARKER: Final = "racetape-archive.json"
"""The object that makes a location an archive."""
CATALOGUE: Final = "catalogue.sqlite"
DIGITS_MIN: Final = 4
"""Of a tape's SHA-256, to call it by."""
MARK_AGE_S: Final = 3600.0
"""A collection that has not ended after this time was killed. Each mark stands for BATCH blobs at most."""
INTENT_AGE_S: Final = 24 * 3600.0
"""So long may one `add` take."""
BATCH: Final = 500
_WAIT_S: Final = 120.0
_POLL_S: Final = 0.2

Supply = Callable[[Put], None]
"""Calls its argument with blobs, those needed among them."""


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` has done.

    Attributes:
        tape: the tape's SHA-256 in hexadecimal.
        new: the tape was not there before.
        size_bytes: its length.
        blobs: number of blobs written.
        written_bytes: bytes that the archive grew by.
        diagnosis: what was found out about it, now or earlier.
        facts: of the tape.
    """

    tape: str
    new: bool
    size_bytes: int
    blobs: int
    written_bytes: int
    diagnosis: Diagnosis
    facts: Facts


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `verify` found.

    Attributes:
        object: folder and name of what is damaged or missing.
        what: one line.
        tapes: the tapes that cannot be exported because of it.
    """

    object: str
    what: str
    tapes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` read: tapes, manifests, blobs and their bytes; `garbage` blobs are needed by none."""

    tapes: int
    manifests: int
    blobs: int
    size_bytes: int
    garbage: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """What `collect` deleted, or would have: blobs, their bytes, and what killed writers left."""

    blobs: int
    size_bytes: int
    leftovers: int


class Archive:
    """An archive that exists.

    Args:
        store: where it lies.
        catalogue: file of the catalogue.

    Any number of processes may use one archive at once; one `Archive` is for one thread.

    Raises ArchiveError: there is no archive, it is of a newer format, or it cannot be read.
    """

    def __init__(self, store: Store, catalogue: Path | None) -> None:
        self.store = store
        self._catalogue = catalogue
        self._compared: set[str] = set()
        try:
            marker = json.loads(store.read("", MARKER))
            version = int(marker["archive"])
        except MissingError:
            raise ArchiveError(
                f"{store.location} is no archive (racetape archive init {store.location} makes one)"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise ArchiveError(f"{store.location}: {MARKER} is damaged") from None
        if version > ARCHIVE_VERSION:
            raise ArchiveError(f"{store.location} was made by a newer racetape (archive format {version})")

    @classmethod
    def create(cls, store: Store, catalogue: Path | None) -> Archive:
        """Make an archive where there is nothing yet. Raises UsageError, ArchiveError."""
        if store.size("", MARKER) is not None:
            raise UsageError(f"{store.location} is an archive already")
        if not store.empty():
            raise UsageError(f"{store.location} is not empty")
        store.create()
        store.put("", MARKER, json.dumps({"archive": ARCHIVE_VERSION, "of": "racetape"}).encode())
        store.settle("")
        return cls(store, catalogue)

    # -- taking in --

    def add(
        self,
        path: str | os.PathLike[str],
        *,
        tags: Iterable[str] = (),
        note: str = "",
        damaged: bool = False,
        diagnose: Diagnose | None = None,
    ) -> Added:
        """Archive a tape; an unfinished one as it is.

        When this returns, the tape is safe: all of it has been handed to the disk, or to the server. What the archive
        already has of it is compared, not trusted. A tape that is there gets the new tags and note besides its own.

        Args:
            damaged: archive the tape even if it is damaged.
            diagnose: says what the tape shows; not asked for tapes that are damaged or were diagnosed before.
        Raises:
            TapeError: the tape cannot be read, or is being written.
            TapeDamagedError: it is damaged, and `damaged` is False.
            ArchiveError: the archive cannot be written.
        """
        path = resolve(path)
        size_bytes = file_size(path)
        with Tape(path) as tape:
            splitter = Splitter(path, size_bytes)
            layout = splitter.split(lambda _hash, _data: None)
            if tape.damage is not None and not damaged:
                raise tape.damage
            if splitter.damaged and not damaged:
                for chunk in tape.chunks:
                    tape.payload(chunk)
                raise TapeDamagedError(f"{path} is damaged", offset=tape.chunks[-1].end_offset)
            is_damaged = splitter.damaged or tape.damage is not None
            earlier = self._manifests_of(layout.sha256.hex())
            diagnosis = next((row.diagnosis for row in earlier if not row.diagnosis.note), None)
            if diagnosis is None:
                diagnosis = _diagnosis(tape, is_damaged, diagnose)
            facts = Facts.of(tape, damaged=is_damaged)
        label = Label(time=time.time(), file=path.name, tags=tuple(sorted(set(tags))), note=note)
        manifest = Manifest(layout=layout, facts=facts, diagnosis=diagnosis, label=label)

        def supply(put: Put) -> None:
            if file_size(path) != size_bytes or Splitter(path, size_bytes).split(put) != layout:
                raise TapeError(f"{path} changed while it was archived: is it being written? Try again when it is done")

        known = any(_says_as_much(row, manifest) for row in earlier)
        blobs, written = self._admit(layout.blobs, supply, None if known else manifest)
        return Added(manifest.tape, not earlier, size_bytes, blobs, written, diagnosis, facts)

    def take_over(self, source: Archive, progress: Progress | None = None) -> tuple[int, int, list[str]]:
        """Everything that another archive has, with its tags, notes and times.

        Returns the numbers of tapes that are new here and that were there, and what could not be had, a line each.
        """
        here, there = set(self.store.list(TAPES)), sorted(source.store.list(TAPES))
        tapes = {tape_of(name) for name in here}
        new, problems = set(), []
        for number, name in enumerate(there):
            tape = tape_of(name)
            if tape is None:
                continue
            try:
                manifest = decode_manifest(name, source.store.read(TAPES, name))
                self._admit(manifest.layout.blobs, source._supply(manifest.layout), None if name in here else manifest)
                if tape not in tapes:
                    new.add(tape)
            except MissingError as error:
                if source.store.size(TAPES, name) is not None:  # else it was removed meanwhile
                    problems.append(f"{tape[:12]}: {error}")
            except ArchiveError as error:
                problems.append(f"{tape[:12]}: {error}")
            if progress is not None:
                progress(number + 1, len(there))
        return len(new), len({tape_of(name) for name in there} & tapes), problems

    def _supply(self, layout: Layout) -> Supply:
        def supply(put: Put) -> None:
            for blob in layout.blobs:
                put(blob.hash, self._read_blob(blob))

        return supply

    def _admit(self, blobs: Sequence[Blob], supply: Supply, manifest: Manifest | None) -> tuple[int, int]:
        """Write the blobs that are not there, then the manifest; how many, and how many bytes in all."""
        count = written = 0
        with self._announced(INTENTS, [blob.name for blob in blobs]) as intent:
            self._wait_for_marks({blob.name for blob in blobs})
            missing = {blob.hash for blob in blobs if not self._has(blob)}

            def put(key: bytes, data: bytes) -> None:
                nonlocal count, written
                if key in missing:
                    missing.remove(key)
                    self.store.put(BLOBS, key.hex(), data)
                    self._compared.add(key.hex())
                    count, written = count + 1, written + len(data)

            if missing:
                supply(put)
            assert not missing, "all blobs of a layout come from its source"
            self.store.settle(BLOBS)
            if manifest is not None:
                name, data = manifest.encode()
                self.store.put(TAPES, name, data)
            self.store.settle(TAPES)
            if manifest is not None:
                written += len(data)
                # A collection deletes the intents that it gives up before it looks for manifests: if this one is still
                # there, every collection sees the manifest.
                if self.store.size(INTENTS, intent) is None:
                    self.store.delete(TAPES, name)
                    raise ArchiveError(
                        f"{self.store.location}: this took so long that a collection (racetape archive gc) gave it up "
                        "for dead; try again"
                    )
        return count, written

    def _has(self, blob: Blob) -> bool:
        """Whether a blob is there and whole. What was read once is only asked for its length again."""
        if self.store.size(BLOBS, blob.name) != blob.size_bytes:
            return False
        if blob.name not in self._compared:
            try:
                self._read_blob(blob)
            except ArchiveError:
                return False
        return True

    def _read_blob(self, blob: Blob) -> bytes:
        """Raises MissingError, ArchiveError if it does not have its hash."""
        data = self.store.read(BLOBS, blob.name)
        if sha256(data).digest() != blob.hash:
            raise ArchiveError(
                f"{self.store.location}: blob {blob.name} is damaged (racetape archive verify says more)"
            )
        self._compared.add(blob.name)
        return data

    # -- giving out --

    def search(
        self, wanted: Search | None = None, *, limit: int | None = None, progress: Progress | None = None
    ) -> list[Row]:
        """The tapes that fit, those archived last first; `damaged_manifests` tells whether some may be missing.

        Raises ArchiveError.
        """
        with self.catalogue(progress) as catalogue:
            return catalogue.search(wanted or Search(), limit)

    def catalogue(self, progress: Progress | None = None) -> Catalogue:
        """The catalogue, up to date; to be closed. Raises ArchiveError."""
        catalogue = Catalogue(self._catalogue)
        try:
            catalogue.sync(self.store, progress)
        except BaseException:
            catalogue.__exit__()
            raise
        return catalogue

    def find(self, digits: str) -> str:
        """The tape whose SHA-256 begins with these digits. Raises UsageError."""
        wanted = digits.lower()
        if len(wanted) < DIGITS_MIN or not all(c in "0123456789abcdef" for c in wanted):
            raise UsageError(
                f"'{digits}' names no tape: give {DIGITS_MIN} or more of the hexadecimal digits that list shows"
            )
        found = sorted({tape for name in self.store.list(TAPES) if (tape := tape_of(name)) and tape.startswith(wanted)})
        if not found:
            raise UsageError(f"{self.store.location} has no tape {digits}")
        if len(found) > 1:
            raise UsageError(f"{digits} may be any of {', '.join(tape[:16] for tape in found[:8])}: give more digits")
        return found[0]

    def export(self, tape: str, path: str | os.PathLike[str], progress: Progress | None = None) -> int:
        """Write a tape (its whole SHA-256) to a file, byte for byte as it was; its length in bytes.

        Nothing is at `path` before all of it is right and on the disk. Raises ArchiveError, TapeError.
        """
        manifests = self._manifests_of(tape)
        if not manifests:
            raise ArchiveError(f"{self.store.location}: the manifests of tape {tape[:12]} are gone or damaged")
        layout, path = manifests[0].layout, Path(path)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        done = 0
        try:
            with open(temporary, "xb") as file:
                for part in rebuild(layout, self._read_blob):
                    file.write(part)
                    done += len(part)
                    if progress is not None:
                        progress(done, layout.size_bytes)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise TapeError(f"cannot write {path}: {error.strerror}") from None
        except ArchiveError as error:
            raise ArchiveError(f"tape {tape[:12]} cannot be exported: {error}") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return layout.size_bytes

    def _manifests_of(self, tape: str) -> list[Manifest]:
        """The readable manifests of a tape."""
        found = []
        for name, data in self.store.read_many(TAPES, self._names_of(tape)).items():
            with contextlib.suppress(ArchiveError):
                found.append(decode_manifest(name, data))
        return found

    def _names_of(self, tape: str) -> list[str]:
        return sorted(name for name in self.store.list(TAPES) if tape_of(name) == tape)

    # -- letting go --

    def remove(self, tape: str) -> None:
        """Remove a tape (its whole SHA-256); its blobs go with the next `collect`. Raises ArchiveError."""
        self.remove_manifests(self._names_of(tape))

    def remove_manifests(self, names: Iterable[str]) -> None:
        """Remove these manifests only: a tape that somebody else is archiving again stays. Raises ArchiveError."""
        for name in names:
            self.store.delete(TAPES, name)

    def collect(
        self, *, without: Iterable[str] = (), dry_run: bool = False, progress: Progress | None = None
    ) -> Collected:
        """Delete what no manifest needs.

        Args:
            without: manifests to be taken for removed, for a `dry_run`.
            dry_run: delete nothing, only say what would be deleted.
        Raises:
            ArchiveError: a manifest is damaged, so that nobody knows what it needs; nothing was deleted then.
        """
        blobs = self.store.list(BLOBS)
        needed = _Needed(self.store)
        needed.update(set(without))
        garbage = sorted(blobs.keys() - needed.blobs)
        leftovers = 0 if dry_run else self._clear_marks() + self.store.delete_temporary(MARK_AGE_S)
        count = size_bytes = 0
        batches = [garbage[at : at + BATCH] for at in range(0, len(garbage), BATCH)] or [[]]
        for batch in batches:
            if dry_run:
                kept = self._intended(None)[0]
                gone = [name for name in batch if name not in kept]
            else:
                gone, cleared = self._delete(batch, needed)
                leftovers += cleared
            count += len(gone)
            size_bytes += sum(blobs[name].size_bytes for name in gone)
            if progress is not None:
                progress(count, len(garbage))
        return Collected(count, size_bytes, leftovers)

    def _delete(self, batch: Sequence[str], needed: _Needed) -> tuple[list[str], int]:
        """Delete those of the blobs that nobody has come to need; which, and how many dead intents, too."""
        gone: list[str] = []
        with self._announced(MARKS, batch) as mark:
            now = self.store.list(MARKS).get(mark)
            # An add writes its manifest before it takes back its intent, so these are looked at in this order.
            kept, dead = self._intended(now.time if now else None)
            for name in dead:
                self.store.delete(INTENTS, name)
            needed.update()
            for name in batch:
                if name in kept or name in needed.blobs:
                    continue
                if len(gone) % 50 == 0 and self.store.size(MARKS, mark) is None:
                    raise ArchiveError(
                        f"{self.store.location}: another collection gave this one up for dead; try again"
                    )
                self.store.delete(BLOBS, name)
                gone.append(name)
        return gone, len(dead)

    def _intended(self, now: float | None) -> tuple[set[str], list[str]]:
        """The blobs that adds in progress rely on, and the intents of adds that were killed."""
        kept: set[str] = set()
        dead = []
        for name, row in self.store.list(INTENTS).items():
            announced = self._announcement(INTENTS, name)
            if announced is None:
                continue
            owner, blobs = announced
            if is_dead(owner) or (now is not None and now - row.time > INTENT_AGE_S):
                dead.append(name)
            else:
                kept |= blobs
        return kept, dead

    def _clear_marks(self) -> int:
        """Delete the marks of collections that were killed; how many."""
        with self._announced(MARKS, ()) as mine:
            rows = self.store.list(MARKS)
            old = [
                name
                for name, row in rows.items()
                if name != mine
                and mine in rows
                and (rows[mine].time - row.time > MARK_AGE_S or self._is_dead(MARKS, name))
            ]
            for name in old:
                self.store.delete(MARKS, name)
        return len(old)

    # -- looking after --

    def verify(self, progress: Progress | None = None) -> Verified:
        """Read every manifest and every blob that one needs, and compare all with their hashes. Raises ArchiveError."""
        problems, users, sizes = [], defaultdict[str, list[str]](list), dict[str, int]()
        names = self.store.list(TAPES)
        for name in sorted(names):
            tape = tape_of(name)
            if tape is None:
                problems.append(Problem(f"{TAPES}/{name}", f"{TAPES}/{name} is no manifest", ()))
                continue
            try:
                manifest = decode_manifest(name, self.store.read(TAPES, name))
            except MissingError:
                continue  # Removed meanwhile.
            except ArchiveError as error:
                problems.append(Problem(f"{TAPES}/{name}", str(error), (tape,)))
                continue
            for blob in manifest.layout.blobs:
                users[blob.name].append(name)
                sizes[blob.name] = blob.size_bytes
        there = self.store.list(BLOBS)
        done, total = 0, sum(sizes.values())
        for key in sorted(users):
            wrong = self._wrong(Blob(bytes.fromhex(key), sizes[key]))
            if wrong is not None:
                hit = [name for name in users[key] if self.store.size(TAPES, name) is not None]
                tapes = tuple(dict.fromkeys(name.partition("-")[0] for name in hit))
                if tapes:
                    problems.append(Problem(f"{BLOBS}/{key}", wrong, tapes))
            done += sizes[key]
            if progress is not None:
                progress(done, total)
        tapes_there = {tape for name in names if (tape := tape_of(name))}
        garbage = len(there.keys() - users.keys())
        return Verified(len(tapes_there), len(names), len(users), total, garbage, tuple(problems))

    def _wrong(self, blob: Blob) -> str | None:
        try:
            data = self.store.read(BLOBS, blob.name)
        except MissingError:
            return f"blob {blob.name} is missing"
        except ArchiveError as error:
            return f"blob {blob.name} cannot be read: {error}"
        if len(data) != blob.size_bytes:
            return f"blob {blob.name} is damaged: {len(data)} bytes where there were {blob.size_bytes}"
        return None if sha256(data).digest() == blob.hash else f"blob {blob.name} is damaged: wrong checksum"

    # -- announcements: intents and marks --

    @contextlib.contextmanager
    def _announced(self, folder: str, blobs: Sequence[str]) -> Iterator[str]:
        """Say before doing something to blobs that it will be done; taken back in the end."""
        name = uuid.uuid4().hex
        body = {"owner": this_process(), "blobs": list(blobs)}
        try:
            self.store.put(folder, name, bytes(msgpack.packb(body)))
            yield name
        finally:
            with contextlib.suppress(ArchiveError):
                self.store.delete(folder, name)

    def _announcement(self, folder: str, name: str) -> tuple[Any, set[str]] | None:
        """(owner, blobs) of an intent or mark; None if it is gone. Raises ArchiveError."""
        try:
            body = msgpack.unpackb(self.store.read(folder, name))
            return body["owner"], {str(blob) for blob in body["blobs"]}
        except MissingError:
            return None
        except ArchiveError:
            raise
        except Exception:
            raise ArchiveError(
                f"{self.store.location}: {folder}/{name} is damaged; delete it if no other process uses the archive"
            ) from None

    def _is_dead(self, folder: str, name: str) -> bool:
        announced = self._announcement(folder, name)
        return announced is not None and is_dead(announced[0])

    def _wait_for_marks(self, blobs: set[str]) -> None:
        """Let every collection end that is about to delete one of the blobs. Raises ArchiveError if one does not."""
        until = time.monotonic() + _WAIT_S
        for name in self.store.list(MARKS):
            while (announced := self._announcement(MARKS, name)) is not None and not announced[1].isdisjoint(blobs):
                if is_dead(announced[0]):
                    self.store.delete(MARKS, name)
                elif time.monotonic() > until:
                    raise ArchiveError(
                        f"{self.store.location}: a collection is deleting what this tape needs, or was killed while it "
                        "did so: try again later, or after racetape archive gc"
                    )
                else:
                    time.sleep(_POLL_S)


class _Needed:
    """The blobs that the manifests need. Read from the manifests themselves: nothing is deleted by what a copy says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: set[str] = set()
        self.blobs: set[str] = set()

    def update(self, without: Set[str] = frozenset()) -> None:
        """Read the manifests that have come. Raises ArchiveError if one cannot be read."""
        new = sorted(name for name in self._store.list(TAPES) if name not in self._read and name not in without)
        for at in range(0, len(new), 64):
            found: Mapping[str, bytes] = self._store.read_many(TAPES, new[at : at + 64])
            for name, data in found.items():
                try:
                    manifest = decode_manifest(name, data)
                except ArchiveError as error:
                    raise ArchiveError(
                        f"{self._store.location}: {error}; nothing was deleted, because nobody knows what it needs: "
                        f"remove it (racetape archive rm {name[:12]}) or put its file back"
                    ) from None
                self.blobs |= {blob.name for blob in manifest.layout.blobs}
                self._read.add(name)


def _diagnosis(tape: Tape, damaged: bool, diagnose: Diagnose | None) -> Diagnosis:
    if damaged:
        return Diagnosis(note="the tape is damaged")
    if diagnose is None:
        return Diagnosis(note="nobody has looked")
    return diagnose(tape)


def _says_as_much(earlier: Manifest, now: Manifest) -> bool:
    """Whether an earlier manifest of the tape says all that the one now would."""
    return (
        set(now.label.tags) <= set(earlier.label.tags)
        and now.label.note in ("", earlier.label.note)
        and now.diagnosis == earlier.diagnosis
    )
