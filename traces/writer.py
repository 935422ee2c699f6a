"""Writing a tape, chunk by chunk, in place."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from machine.errors import TapeError
from traces import _codec, chunks, records
from traces.background import Background, Job, Prepare
from traces.chunks import HASH_BYTES, HEADER_BYTES, MAGIC, FormatError
from traces.columns import EVENTS_MAX, Events, Tap, code_tap, pack_events, tap_of
from traces.index import code_with_index
from traces.records import PAGE_BYTES, PAGES_MAX, Attachment, Checkpoint, TapeFooter, TapeHeader
from traces.schema import FORMAT_VERSION, RecordArray

Pages = tuple[bytes, bytes, bytes]
"""What `Machine.pages_take` gives: page frames that are not zero, those whose contents are given, the contents."""


class TapeWriter:
    """Writes one tape to `path`, replacing what is there.

    It writes straight to the final name and hands every chunk to the system at once: whatever happens to this process,
    the file opens as an unfinished tape with all chunks written so far. When the disk is full or the write fails
    otherwise, the torn chunk is cut off again and this and every later call raises TapeError.

    With `background`, other threads code, compress, hash and write, a few chunks behind: then an error comes with one
    of the next calls, at the latest with `finish`. The tape is the same, byte for byte.

    With `index` every chunk of events is followed by what it touches, for quick answers.

    Raises TapeError if `path` cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, background: bool = False, index: bool = True) -> None:
        self.path = Path(path)
        # What starts with `_file_` belongs to the one whose turn it is to write: another thread, if there are any.
        self._file_previous = bytes(HASH_BYTES)
        self._file_offset = 0
        self._file_failure: str | None = None
        self._file_choices_end = 0
        self._file_page_count = 0
        self._file_page_of = np.empty(0, np.int64)
        self._file_format = FORMAT_VERSION
        self._file_headers: list[bytes] = []
        self._choices_end = 0
        self._events_end: int | None = None
        self._index = index
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise TapeError(f"cannot write {self.path}: {error.strerror}") from None
        self._open = True
        self._background = Background() if background else None

    def __enter__(self) -> TapeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what was given and close the file. Without `finish` before, it stays an unfinished tape."""
        if self._background is not None:
            self._background.stop()
        if self._open:
            self._open = False
            os.close(self._fd)

    @property
    def bytes_written(self) -> int:
        """Length of the tape so far; of what other threads have written, if there are any."""
        return self._file_offset

    @property
    def choices_end(self) -> int:
        """Position up to which the choices are written."""
        return self._choices_end

    def begin(self, header: TapeHeader, image: bytes) -> None:
        """The header and the guest image. Once, before anything else. Raises TapeError."""
        assert self._events_end is None, "begin comes once and first"
        if len(image) != header.image_bytes or sha256(image).digest() != header.image_sha256:
            raise TapeError("the image is not the one that the tape's header describes")
        payload = records.encode_header(header)

        def write() -> None:
            # Number of the page that each frame had in the latest checkpoint, -1 if it was zero in all.
            self._file_page_of = np.full(header.ram_bytes // PAGE_BYTES, -1, np.int64)
            self._write(MAGIC)
            self._chunk(chunks.HEADER, payload, 0, 0)
            for at in range(0, len(image), records.IMAGE_PIECE_BYTES):
                self._chunk(chunks.IMAGE, chunks.zstd_pack(image[at : at + records.IMAGE_PIECE_BYTES]), 0, 0)

        self._do(write)
        self._events_end = header.events_first
        self._cpus = header.cpus

    def attach(self, attachment: Attachment) -> None:
        """A file to go with the tape, after `begin`. Raises TapeError."""
        payload = records.encode_attachment(attachment)
        at = self._choices_end
        self.raw(chunks.ATTACHMENT, payload, at, at)

    def choices(self, choices: RecordArray, end_step: int, state_hash: int) -> None:
        """The choices from the last such call's end up to position `end_step`, whose state hash is given.

        Raises TapeError.
        """
        first = self._choices_end
        records.check_records(choices, first, end_step, self._cpus)

        def write() -> None:
            self._chunk(chunks.CHOICES, records.encode_choices(choices, state_hash), first, end_step)
            self._file_choices_end = end_step

        self._do(write)
        self._choices_end = end_step

    def events(self, events: Events, end_step: int, state_hash: int) -> None:
        """All events from the last such call's end up to position `end_step`, at most `EVENTS_MAX`.

        The choices of these steps must have been written. Raises TapeError.
        """
        if len(events):
            assert bool((np.diff(events.step.astype(np.int64)) >= 0).all()), "steps ascend"
            self._check_events(len(events), int(events.step[0]), int(events.step[-1]), end_step)
        self._events(lambda: tap_of(events), end_step, state_hash)

    def tap(self, tap: Tap, end_step: int, state_hash: int) -> None:
        """The same for what `Machine.events_take` gave, without a copy. Raises TapeError."""
        count, steps = tap[0], tap[1]
        if count:
            self._check_events(count, int(steps[0]), int(steps[-1]), end_step)
        self._events(lambda: tap, end_step, state_hash)

    def _check_events(self, count: int, first_step: int, last_step: int, end_step: int) -> None:
        assert self._events_end is not None, "begin comes first"
        assert count <= EVENTS_MAX
        assert self._events_end <= first_step <= last_step < end_step

    def _events(self, get: Callable[[], Tap], end_step: int, state_hash: int) -> None:
        first = self._events_end
        assert first is not None, "begin comes first"
        assert first <= end_step <= self._choices_end

        def code() -> Job:
            tap = get()
            coded, index = code_with_index(tap) if self._index and tap[0] else (code_tap(tap), None)
            payload = pack_events(coded, state_hash)

            def write() -> None:
                self._chunk(chunks.EVENTS, payload, first, end_step)
                if index is not None:
                    self._chunk(chunks.INDEX, index, first, end_step)

            return write

        self._prepare(code)
        self._events_end = end_step

    def checkpoint(self, step: int, state: bytes, state_version: int, state_hash: int, pages: Pages) -> None:
        """The whole machine at position `step`: everything but RAM, and `pages` as `Machine.pages_take` gives them.

        Each tape's first checkpoint must have taken all pages, the others those that were written since. Raises
        TapeError.
        """
        assert step == self._choices_end, "a checkpoint stands at the end of the choices"
        self._do(lambda: self._checkpoint(step, state, state_version, state_hash, pages))

    def _checkpoint(self, step: int, state: bytes, state_version: int, state_hash: int, pages: Pages) -> None:
        frames, taken = (np.frombuffer(numbers, "<u4") for numbers in pages[:2])
        first_page = self._file_page_count
        unique, numbers = _unique(pages[2])
        assert len(numbers) == len(taken)
        self._file_page_of[taken] = first_page + numbers
        self._file_page_count += len(unique) // PAGE_BYTES
        for at in range(0, len(unique), PAGES_MAX * PAGE_BYTES):
            payload = records.encode_pages(first_page + at // PAGE_BYTES, unique[at : at + PAGES_MAX * PAGE_BYTES])
            self._chunk(chunks.PAGES, payload, step, step)
        of_frames = self._file_page_of[frames]
        assert bool((of_frames >= 0).all()), "every page was taken once"
        table = Checkpoint(step, state_version, state_hash, state, frames, of_frames.astype(np.uint32))
        self._chunk(chunks.CHECKPOINT, records.encode_checkpoint(table), step, step)

    def finish(self, footer: TapeFooter) -> None:
        """The footer; the tape is finished, safe on disk, and closed. Raises TapeError."""
        assert footer.steps == self._choices_end
        self._do(lambda: self._chunk(chunks.FOOTER, records.encode_footer(footer), footer.steps, footer.steps))
        self.end()

    def raw(self, kind: int, payload: bytes, first_step: int, end_step: int) -> None:
        """A ready-made payload, unchecked: for copying chunks from tape to tape. Raises TapeError.

        Contents are of the file they stand in: they are not copied but made anew.
        """

        def write() -> None:
            if self._file_offset == 0:
                self._write(MAGIC)
            if kind == chunks.HEADER:
                with contextlib.suppress(FormatError):  # It is copied as it is.
                    self._file_format = records.decode_header(payload).format
            if kind != chunks.CONTENTS:
                self._chunk(kind, payload, first_step, end_step)

        self._do(write)

    def end(self) -> None:
        """What closes the file behind the footer; it is safe on disk then. Raises TapeError."""

        def write() -> None:
            self._write((self._file_offsets if self._file_format >= chunks.OFFSETS_FORMAT else b"") + MAGIC)
            try:
                os.fsync(self._fd)
            except OSError as error:
                if error.errno != errno.EINVAL:  # A device or pipe cannot be synced, and need not be.
                    self._fail(error)

        self._do(write)
        if self._background is not None:
            self._background.wait()
        self.close()

    def _do(self, job: Job) -> None:
        """Now, or in another thread after all that came before."""
        self._prepare(lambda: job)

    def _prepare(self, prepare: Prepare) -> None:
        """The same for a job of which a part need not wait for those before."""
        if self._background is None:
            prepare()()
        else:
            self._background.give(prepare)

    def _chunk(self, kind: int, payload: bytes, first_step: int, end_step: int) -> None:
        if len(payload) > chunks.CHUNK_BYTES_MAX:
            raise TapeError(f"{self.path}: a {chunks.KIND_NAMES[kind]} chunk of {len(payload)} bytes is too long")
        if kind == chunks.FOOTER:
            self._contents(end_step)
        header = chunks.pack_header(
            kind, payload, first_step=first_step, end_step=end_step, previous=self._file_previous
        )
        assert len(header) == HEADER_BYTES
        self._write(header + payload)
        self._file_previous = header[-HASH_BYTES:]
        self._file_headers.append(header)

    def _contents(self, step: int) -> None:
        """The table of all chunks so far, before the footer, and what will be said of both behind it."""
        if self._file_format < chunks.OFFSETS_FORMAT:
            return
        at = 0
        if len(self._file_headers) <= records.CONTENTS_MAX:
            at = self._file_offset
            self._chunk(chunks.CONTENTS, b"".join(self._file_headers), step, step)
        self._file_offsets = chunks.pack_offsets(at, self._file_offset)

    def _write(self, data: bytes) -> None:
        if self._file_failure is not None:
            raise TapeError(self._file_failure)
        assert self._open, "the tape is closed"
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            self._fail(error)
        self._file_offset += len(data)

    def _fail(self, error: OSError) -> None:
        self._file_failure = (
            f"cannot write {self.path}: {error.strerror}; it holds the run up to step {self._file_choices_end} as an "
            "unfinished tape"
        )
        with contextlib.suppress(OSError):  # If the torn chunk stays, readers take it for a cut.
            os.ftruncate(self._fd, self._file_offset)
        raise TapeError(self._file_failure) from None


def _unique(pages: bytes) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """The different ones of `pages`, in order, and for each page its number among them."""
    first = np.frombuffer(_codec.same_pages(pages), np.uint32)
    fresh = first == np.arange(len(first), dtype=np.uint32)
    numbers: npt.NDArray[np.int64] = (np.cumsum(fresh) - 1)[first]
    if fresh.all():
        return memoryview(pages), numbers
    return memoryview(np.frombuffer(pages, np.uint8).reshape(-1, PAGE_BYTES)[fresh].tobytes()), numbers
