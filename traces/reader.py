"""Reading a tape: opening checks every chunk's header, reading a chunk checks its payload."""

from __future__ import annotations

import contextlib
import os
import stat
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from machine.errors import TapeDamagedError, TapeError
from traces import chunks, records
from traces.chunks import HASH_BYTES, HEADER_BYTES, MAGIC, OFFSETS_BYTES, Chunk, FormatError
from traces.columns import Event, Events, decode_events, decode_row, events_in, tap_of
from traces.index import ChunkIndex, decode_index, index_tap
from traces.names import resolve
from traces.records import PAGE_BYTES, Attachment, Checkpoint, Choices, TapeFooter
from traces.schema import KIND_NAMES

Progress = Callable[[int, int], None]
"""Called now and then with (done, total)."""

_CACHED_CHUNKS: Final = 4
_KNOWN_KIND: Final = np.isin(np.arange(256), list(KIND_NAMES))
_T = TypeVar("_T")


class TapeFile:
    """A tape, open for reading. A context manager; several may be open on one file, also while it is being written.

    Only the chunk headers stay in memory. What is damaged raises TapeDamagedError when it is read; the rest stays
    readable.

    Args:
        path: the tape file, `gallery:NAME` or `archive:ID`.
    Attributes:
        path: the file.
        header: what was run.
        footer: how it ended; None if the tape is unfinished or the footer is damaged.
        chunks: headers of all whole chunks, in order.
        unfinished: the file was cut, or is still being written.
        damage: the first damage that opening found, or None; `check` finds the rest.
        end_step: last position that the choices on the tape lead to.
        looked_at: where the chunk begins whose events were asked for last: how far a long question has come.
    Raises:
        TapeError: there is no such file, or it is no tape, or one of a newer format, or cut before its header.
        TapeDamagedError: its header is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = resolve(path)
        self._fd = _open(self.path)
        self._close = weakref.finalize(self, os.close, self._fd)
        try:
            self._size_bytes = os.fstat(self._fd).st_size
            self._check_start()
            self.footer: TapeFooter | None = None
            self.unfinished = False
            self.damage: TapeDamagedError | None = None
            self.end_step = 0
            self.chunks = self._read_chunks()
        except BaseException:
            self.close()
            raise
        self.choices_chunks = tuple(c for c in self.chunks if c.kind == chunks.CHOICES)
        self.events_chunks = tuple(c for c in self.chunks if c.kind == chunks.EVENTS)
        self.checkpoint_chunks = tuple(c for c in self.chunks if c.kind == chunks.CHECKPOINT)
        self.attachment_chunks = tuple(c for c in self.chunks if c.kind == chunks.ATTACHMENT)
        self._events_to = {c.end_offset: c for c in self.events_chunks}
        self._index_of = {self._events_to[c.offset].offset: c for c in self.chunks if c.kind == chunks.INDEX}
        self._pages_chunks: tuple[tuple[Chunk, int, int], ...] | None = None
        self._cache: OrderedDict[int, tuple[int, Events]] = OrderedDict()
        self.looked_at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading afterwards is an error of the caller."""
        self._close()

    # -- content --

    @property
    def events_range(self) -> tuple[int, int]:
        """(first step, end step) whose events are on the tape; both equal if layer B is not there."""
        if not self.events_chunks:
            return self.header.events_first, self.header.events_first
        return self.events_chunks[0].first_step, self.events_chunks[-1].end_step

    def image(self, *, lenient: bool = False) -> bytes:
        """The guest's ELF file. `lenient` gives what can be had of a damaged one.

        Raises TapeError if the tape is cut in it, TapeDamagedError.
        """
        pieces = [c for c in self.chunks if c.kind == chunks.IMAGE]
        data = b"".join(self._decode(c, chunks.zstd_unpack, self.payload(c, lenient=lenient)) for c in pieces)
        if len(data) < self.header.image_bytes and self.chunks[-1].kind <= chunks.IMAGE and self.damage is None:
            raise TapeError(f"{self.path}: the tape is cut before the end of its guest image; nothing can be replayed")
        if not lenient and sha256(data).digest() != self.header.image_sha256:
            at = pieces[0].offset if pieces else self.chunks[0].end_offset
            raise TapeDamagedError(
                f"{self.path}: damaged at byte {at}: the guest image is not the one of the header", offset=at, step=0
            )
        return data

    def choices(self, first_step: int = 0) -> Iterator[Choices]:
        """The choices from the chunk that holds `first_step` on, a chunk at a time. Raises TapeDamagedError."""
        for chunk in self.choices_chunks:
            if chunk.end_step > first_step:
                yield self.read_choices(chunk)
        if self.damage is not None and self.footer is None:
            raise self.damage

    def read_choices(self, chunk: Chunk, *, lenient: bool = False) -> Choices:
        """The content of one of `choices_chunks`; `lenient` also of a damaged one, if it decodes. TapeDamagedError."""
        return self.decode_choices(chunk, self.payload(chunk, lenient=lenient), lenient=lenient)

    def decode_choices(self, chunk: Chunk, payload: bytes, *, lenient: bool = False) -> Choices:
        """The choices in `payload`, taken for that of `chunk`. Raises TapeDamagedError."""
        return self._decode(
            chunk,
            lambda data: records.decode_choices(
                data, chunk.first_step, chunk.end_step, self.header.cpus, lenient=lenient
            ),
            payload,
        )

    def read_events(self, chunk: Chunk) -> tuple[int, Events]:
        """(state hash at the chunk's end, its events) of one of `events_chunks`. Raises TapeDamagedError."""
        self.looked_at = chunk.first_step
        if chunk.offset in self._cache:
            self._cache.move_to_end(chunk.offset)
            return self._cache[chunk.offset]
        found = self._decode(chunk, decode_events, self.payload(chunk))
        self._check_events(chunk, found[1])
        self._cache[chunk.offset] = found
        while len(self._cache) > _CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return found

    def decode_events(self, chunk: Chunk, into: Events) -> Events:
        """The events of one of `events_chunks`, put into a buffer of `EVENTS_MAX` rows where that can be.

        Unlike `read_events` it keeps nothing, and several threads may call it. Raises TapeDamagedError.
        """
        _, events = self._decode(chunk, lambda data: decode_events(data, into), self.payload(chunk))
        self._check_events(chunk, events)
        return events

    def events_in_chunks(self, first_step: int, last_step: int) -> Iterator[Events]:
        """What the tape has of the events of steps `first_step` to `last_step`, both included, a chunk at a time."""
        for chunk in self.events_chunks:
            if chunk.end_step > first_step and chunk.first_step <= last_step:
                yield self.read_events(chunk)[1].between(first_step, last_step)

    def event_count(self) -> int | None:
        """Number of events on the tape; None if layer B is not there, or damaged. Raises TapeError."""
        if not self.events_chunks:
            return None
        try:
            return sum(map(self.events_in, self.events_chunks))
        except TapeDamagedError:
            return None

    def events_in(self, chunk: Chunk) -> int:
        """Number of events in one of `events_chunks`. Raises TapeDamagedError."""
        return self._decode(chunk, events_in, self.payload(chunk))

    def read_attachment(self, chunk: Chunk) -> Attachment:
        """The content of one of `attachment_chunks`. Raises TapeDamagedError."""
        return self._decode(chunk, records.decode_attachment, self.payload(chunk))

    def read_row(self, chunk: Chunk, row: int) -> Event:
        """Event `row` of one of `events_chunks`, without decoding those behind it. Raises TapeDamagedError."""
        if chunk.offset in self._cache:
            return self.read_events(chunk)[1].row(row)
        return self._decode(chunk, lambda data: decode_row(data, row), self.payload(chunk))

    def index_of(self, chunk: Chunk) -> ChunkIndex | None:
        """The index of one of `events_chunks`; None if it has none or a damaged one."""
        found = self._index_of.get(chunk.offset)
        if found is None:
            return None
        with contextlib.suppress(TapeDamagedError):
            return self._decode(found, decode_index, self.payload(found))
        return None

    def read_checkpoint(self, chunk: Chunk) -> Checkpoint:
        """The content of one of `checkpoint_chunks`. Raises TapeDamagedError."""
        frame_count = self.header.ram_bytes // PAGE_BYTES
        return self._decode(
            chunk, lambda data: records.decode_checkpoint(data, chunk.first_step, frame_count), self.payload(chunk)
        )

    def checkpoint_pages(self, checkpoint: Checkpoint) -> Iterator[tuple[int, bytes]]:
        """(page frame, its 4096 bytes) of a checkpoint, in the order of the tape; frames left out are all zero.

        Raises TapeDamagedError.
        """
        order = np.argsort(checkpoint.pages, kind="stable")
        wanted = checkpoint.pages[order]
        for chunk, first, low, high in self._places(checkpoint.step, wanted):
            _, data = self._decode(chunk, records.decode_pages, self.payload(chunk))
            for i in range(low, high):
                at = (int(wanted[i]) - first) * PAGE_BYTES
                yield int(checkpoint.frames[order[i]]), data[at : at + PAGE_BYTES]

    def check(self, progress: Progress | None = None) -> None:
        """Read and decode every byte. Raises TapeDamagedError for the first damage; being cut is none."""
        for chunk in self.chunks:
            self.check_chunk(chunk)
            if progress is not None:
                progress(chunk.end_offset, self._size_bytes)
        if self.damage is not None:
            raise self.damage
        if len(self.chunks) > 1 and not (self.unfinished and self.chunks[-1].kind == chunks.IMAGE):
            self.image()

    def check_chunk(self, chunk: Chunk) -> None:
        """Read and decode one chunk. Raises TapeDamagedError."""
        if chunk.kind == chunks.CHOICES:
            self.read_choices(chunk)
        elif chunk.kind == chunks.EVENTS:
            self.read_events(chunk)
        elif chunk.kind == chunks.PAGES:
            self._decode(chunk, records.decode_pages, self.payload(chunk))
        elif chunk.kind == chunks.CHECKPOINT:
            checkpoint = self.read_checkpoint(chunk)
            self._places(checkpoint.step, np.sort(checkpoint.pages))
        elif chunk.kind == chunks.INDEX:
            self._check_index(chunk)
        elif chunk.kind == chunks.ATTACHMENT:
            self.read_attachment(chunk)
        elif chunk.kind == chunks.CONTENTS:
            self._check_contents(chunk)
        else:
            self.payload(chunk)

    def payload(self, chunk: Chunk, *, lenient: bool = False) -> bytes:
        """The payload of a chunk, as stored. `lenient` does not look at its checksum.

        Raises TapeDamagedError if it or its header is not what it was, TapeError if the file cannot be read.
        """
        if lenient:
            return self._payload(chunk)
        # Chunks are known by the contents: what stands before the payload may be damaged all the same.
        data = self._read(chunk.offset, HEADER_BYTES + chunk.payload_bytes)
        header, payload = data[:HEADER_BYTES], data[HEADER_BYTES:]
        if not chunk.matches(payload) or header != chunk.covered() + chunk.hash:
            raise self._damaged(chunk, "wrong checksum")
        if not chunk.chained:
            raise self._damaged(chunk, "it does not follow the chunk before")
        return payload

    def _payload(self, chunk: Chunk) -> bytes:
        return self._read(chunk.offset + HEADER_BYTES, chunk.payload_bytes)

    # -- opening --

    def _check_start(self) -> None:
        start = self._read(0, min(self._size_bytes, len(MAGIC)))
        if not start:
            raise TapeError(f"{self.path} is empty, no tape")
        if not MAGIC.startswith(start):
            raise TapeError(f"{self.path} is no tape")

    def _read_chunks(self) -> tuple[Chunk, ...]:
        """The headers of all chunks: from the contents, if they are there and in order, else one by one."""
        listed = self._read_contents()
        if listed is not None:
            with contextlib.suppress(TapeDamagedError):
                found = self._read_headers(listed)
                if self.damage is None:
                    return found
        self.footer = None
        self.unfinished = False
        self.damage = None
        self.end_step = 0
        return self._read_headers(None)

    def _read_contents(self) -> bytes | None:
        """The headers that the contents list, and those of contents and footer; None if they cannot be had."""
        tail = OFFSETS_BYTES + len(MAGIC)
        if self._size_bytes < len(MAGIC) + 3 * HEADER_BYTES + tail:
            return None
        end = self._read(self._size_bytes - tail, tail)
        try:
            at, footer_at = chunks.unpack_offsets(end[:OFFSETS_BYTES])
            if (
                not len(MAGIC) < at < footer_at <= self._size_bytes - tail - HEADER_BYTES
                or at + HEADER_BYTES > footer_at
            ):
                return None
            header = self._read(at, HEADER_BYTES)
            chunk = chunks.unpack_header(header, at, None)
            if chunk.kind != chunks.CONTENTS or chunk.end_offset != footer_at:
                return None
            listed = self._read(at + HEADER_BYTES, chunk.payload_bytes)
            if chunk.payload_bytes % HEADER_BYTES or not chunk.matches(listed):
                return None
            return listed + header + self._read(footer_at, HEADER_BYTES)
        except FormatError:
            return None

    def _read_headers(self, listed: bytes | None) -> tuple[Chunk, ...]:
        """Headers in order, from the file or from what is listed. What is wrong with them goes to `damage`."""
        found: list[Chunk] = []
        at = len(MAGIC)
        events_end = 0
        previous = bytes(HASH_BYTES)
        while self._size_bytes - at >= HEADER_BYTES:
            if found and found[-1].kind == chunks.FOOTER:
                break
            try:
                if listed is None:
                    header = self._read(at, HEADER_BYTES)
                else:
                    header = listed[len(found) * HEADER_BYTES : (len(found) + 1) * HEADER_BYTES]
                    if not header:
                        raise FormatError("the contents end before the tape does")
                chunk = chunks.unpack_header(header, at, previous)
                if chunk.end_offset > self._size_bytes:
                    break
                if not found:
                    self._read_header(chunk)
                    events_end = self.header.events_first
                else:
                    events_end = self._check_order(chunk, found[-1], events_end)
            except FormatError as error:
                self._set_damage(at, self.end_step, str(error))
                break
            if not chunk.chained and self.damage is None:
                # Either this chunk is out of place or the hash that the one before states is itself damaged.
                wrong = chunk if found[-1].matches(self._payload(found[-1])) else found[-1]
                self._set_damage(wrong.offset, wrong.first_step, "wrong checksum or out of place")
            found.append(chunk)
            previous = chunk.hash
            at = chunk.end_offset
        if not found:
            if self.damage is not None:
                raise self.damage
            raise TapeError(f"{self.path}: the tape is cut before the end of its header")
        if found[-1].kind == chunks.FOOTER:
            self._read_end(found)
        else:
            self.unfinished = self.damage is None
        return tuple(found)

    def _read_header(self, chunk: Chunk) -> None:
        payload = self.payload(chunk) if chunk.kind == chunks.HEADER else b""
        if chunk.kind != chunks.HEADER:
            raise FormatError("the first chunk is no header")
        try:
            self.header = records.decode_header(payload)
        except FormatError as error:
            raise TapeError(f"{self.path}: {error}") from None

    def _check_order(self, chunk: Chunk, before: Chunk, events_end: int) -> int:
        """Raise FormatError unless `chunk` may follow; the position up to which events are there then."""
        kind = chunk.kind
        if kind not in chunks.KIND_NAMES:
            if chunk.layer_a:
                raise TapeError(f"{self.path}: made by a newer racetape (chunk kind {kind}); use a newer one")
            return events_end
        if kind == chunks.IMAGE:
            fits = before.kind in (chunks.HEADER, chunks.IMAGE) and chunk.end_step == 0
        elif before.kind == chunks.HEADER or kind == chunks.HEADER:
            fits = False
        elif kind == chunks.CHOICES:
            fits = chunk.first_step == self.end_step < chunk.end_step
            self.end_step = max(chunk.end_step, self.end_step) if fits else self.end_step
        elif kind == chunks.EVENTS:
            fits = chunk.first_step == events_end <= chunk.end_step <= self.end_step
            events_end = chunk.end_step
        elif kind == chunks.INDEX:
            steps = (chunk.first_step, chunk.end_step)
            fits = before.kind == chunks.EVENTS and steps == (before.first_step, before.end_step)
        elif before.kind == chunks.CONTENTS and kind != chunks.FOOTER:
            fits = False
        else:
            fits = chunk.first_step == chunk.end_step == self.end_step
        if not fits:
            raise FormatError(f"{chunk.name} chunk out of place")
        return events_end

    def _read_end(self, found_chunks: list[Chunk]) -> None:
        footer, before = found_chunks[-1], found_chunks[-2]
        at = footer.end_offset
        tail = MAGIC
        if self.header.format >= chunks.OFFSETS_FORMAT:
            contents_at = before.offset if before.kind == chunks.CONTENTS else 0
            tail = chunks.pack_offsets(contents_at, footer.offset) + MAGIC
        rest = self._read(at, min(self._size_bytes - at, len(tail) + 1))
        if rest != tail:
            if tail.startswith(rest):
                self.unfinished = True
            else:
                self._set_damage(at, None, "it does not end as a tape does")
        try:
            found = self._decode(footer, records.decode_footer, self.payload(footer))
            if found.steps != self.end_step:
                raise self._damaged(footer, "the footer is of another run")
            self.footer = found
        except TapeDamagedError as error:
            if self.damage is None or self.damage.offset > error.offset:
                self.damage = error

    # -- helpers --

    def _check_index(self, chunk: Chunk) -> None:
        """Raise TapeDamagedError unless an index chunk says what its events do."""
        events = self.read_events(self._events_to[chunk.offset])[1]
        index = self._decode(chunk, decode_index, self.payload(chunk))
        rebuilt = index_tap(tap_of(events))
        if rebuilt is None or decode_index(rebuilt).body != index.body:
            raise self._damaged(chunk, "it is not the index of its events")

    def _check_contents(self, chunk: Chunk) -> None:
        """Raise TapeDamagedError unless a contents chunk lists the chunks before it."""
        before = self.chunks[: self.chunks.index(chunk)]
        if self.payload(chunk) != b"".join(c.covered() + c.hash for c in before):
            raise self._damaged(chunk, "it does not list the chunks of the tape")

    def _check_events(self, chunk: Chunk, events: Events) -> None:
        step = events.step
        if not len(step):
            return
        if not chunk.first_step <= int(step[0]) <= int(step[-1]) < chunk.end_step or bool((step[1:] < step[:-1]).any()):
            raise self._damaged(chunk, "events stand in the wrong chunk or order")
        if int(events.cpu.max()) >= self.header.cpus or not _KNOWN_KIND[events.kind].all():
            raise self._damaged(chunk, "an event of a CPU or kind that there is not")

    def _pages(self) -> tuple[tuple[Chunk, int, int], ...]:
        """(pages chunk, number of its first page, count) in order."""
        if self._pages_chunks is None:
            self._pages_chunks = tuple(
                (c, *self._decode(c, records.pages_range, self._read(c.offset + HEADER_BYTES, min(c.payload_bytes, 8))))
                for c in self.chunks
                if c.kind == chunks.PAGES
            )
        return self._pages_chunks

    def _places(self, step: int, wanted: npt.NDArray[np.uint32]) -> list[tuple[Chunk, int, int, int]]:
        """Where the pages of the checkpoint at `step` are: (pages chunk, number of its first page, low, high).

        `wanted` are the pages' numbers, ascending; low to high - 1 are the indices into it of those in that chunk.
        Raises TapeDamagedError unless each page is there once.
        """
        found = []
        for chunk, first, count in self._pages():
            low, high = (int(i) for i in np.searchsorted(wanted, np.array((first, first + count), np.uint64)))
            if low != high:
                found.append((chunk, first, low, high))
        if sum(high - low for *_, low, high in found) != len(wanted):
            at = next(c for c in self.checkpoint_chunks if c.first_step == step)
            raise self._damaged(at, "pages of it are missing")
        return found

    def _read(self, offset: int, size_bytes: int) -> bytes:
        assert size_bytes <= HEADER_BYTES + chunks.CHUNK_BYTES_MAX
        try:
            data = os.pread(self._fd, size_bytes, offset)
        except OSError as error:
            raise TapeError(f"cannot read {self.path}: {error.strerror}") from None
        if len(data) != size_bytes:
            raise TapeError(f"{self.path}: the file became shorter while it was read")
        return data

    def _decode(self, chunk: Chunk, decode: Callable[[bytes], _T], payload: bytes) -> _T:
        try:
            return decode(payload)
        except TapeDamagedError:
            raise
        except FormatError as error:
            raise self._damaged(chunk, str(error)) from None

    def _damaged(self, chunk: Chunk, why: str) -> TapeDamagedError:
        step = chunk.first_step
        return TapeDamagedError(
            f"{self.path}: damaged at byte {chunk.offset} ({chunk.name}, step {step} on): {why}",
            offset=chunk.offset,
            step=step,
        )

    def _set_damage(self, offset: int, step: int | None, why: str) -> None:
        if self.damage is None:
            where = f" (step {step} on)" if step is not None else ""
            self.damage = TapeDamagedError(
                f"{self.path}: damaged at byte {offset}{where}: {why}", offset=offset, step=step
            )


def _open(path: Path) -> int:
    """A file descriptor of a regular file. Raises TapeError."""
    try:
        # Non-blocking, or opening a pipe would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TapeError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise TapeError(f"cannot read {str(path)!r}: {error}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise TapeError(f"{path} is no file, so no tape")
    return fd
