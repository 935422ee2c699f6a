"""A hunt in a file, to go on from: what was asked for, how many schedules are done, what they came to.

Two lines of text. The first names the format and has the SHA-256 of the second, which is JSON. A file is replaced as a
whole (written beside it, synchronised, renamed), so that whoever dies leaves the one before.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from machine.errors import RacetapeError, UsageError
from recorder.hunt.checks import Failure
from recorder.hunt.identity import difference
from recorder.hunt.search import Found, Tally

if TYPE_CHECKING:
    from recorder.hunt.verdict import Verdict

_MAGIC: Final = b"racetape hunt 1 "
_INTERVAL_S: Final = 1.0
_SHARE: Final = 50
"""Writing takes no more than one part in so many of the time: hashes of final states add up."""


class Journal:
    """The file of one hunt.

    Args:
        path: if it exists, the hunt goes on from there: `verdict` takes over what it says. Else it is written.
        asked: the hunt's identity.
    Raises UsageError if the file is of another hunt, damaged, or of a hunt that has done more than `verdict.hunt` asks
    for; RacetapeError if it cannot be written.
    """

    def __init__(self, path: Path, asked: dict[str, Any], verdict: Verdict) -> None:
        self.path = path.resolve()
        self._name = path
        self._asked = asked
        self._next = 0.0
        self.levels: dict[str, Any] | None = None
        """Of a systematic hunt: what `Systematic.levels` said last."""
        if self.path.exists():
            self._take_over(verdict)
        self.save(verdict)  # a file that cannot be written is no news for the end of the hunt

    def note(self, verdict: Verdict) -> None:
        """Called after each block: write the file if it is time."""
        if time.monotonic() >= self._next:
            self.save(verdict)

    def save(self, verdict: Verdict) -> None:
        """Write the file. Raises RacetapeError."""
        started = time.monotonic()
        body = json.dumps({"hunt": self._asked, **_written(verdict), "levels": self.levels}).encode()
        data = _MAGIC + sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            try:
                with open(beside, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(self.path)
                _synchronise(self.path.parent)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            raise RacetapeError(f"cannot write {self._name}: {error.strerror}") from error
        now = time.monotonic()
        self._next = now + max(_INTERVAL_S, _SHARE * (now - started))

    def _take_over(self, verdict: Verdict) -> None:
        body = self._read()
        try:
            differs = difference(body["hunt"], self._asked)
            tally = _tally(body)
            seconds, first = float(body["seconds"]), body["first_failure_seconds"]
            self.levels = body.get("levels")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{self._name} is damaged: it holds no hunt ({error!r})") from error
        if differs is not None:
            name, held, asked = differs
            if name == "first_schedule":
                raise UsageError(
                    f"{self._name} is of another build of racetape: there the first schedule ended otherwise"
                )
            raise UsageError(f"{self._name} is of another hunt: there {name} is {held!r}, here {asked!r}")
        if tally.schedules > verdict.hunt.schedules:
            raise UsageError(
                f"{self._name} holds {tally.schedules:,} schedules already, more than the budget of "
                f"{verdict.hunt.schedules:,}"
            )
        verdict.tally, verdict.resumed = tally, tally.schedules
        verdict.seconds, verdict.first_failure_seconds = seconds, first

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise UsageError(f"{self._name} is no file")
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {self._name}: {error.strerror}") from error
        if not data.startswith(_MAGIC):
            raise UsageError(f"{self._name} is no state of a hunt" + ("" if data else ": it is empty"))
        digest, _, body = data[len(_MAGIC) :].partition(b"\n")
        if digest != sha256(body.removesuffix(b"\n")).hexdigest().encode():
            raise UsageError(f"{self._name} is damaged: its checksum is wrong")
        decoded = json.loads(body)
        assert isinstance(decoded, dict)
        return decoded


def _written(verdict: Verdict) -> dict[str, Any]:
    tally = verdict.tally
    states = np.sort(np.fromiter(tally.states, np.dtype("<u8"), len(tally.states)))
    classes = np.array(sorted(tally.classes.items()), np.dtype("<u8"))
    return {
        "schedules": tally.schedules,
        "steps": tally.steps,
        "stops": dict(tally.stops),
        "found": [
            {
                "number": row.number,
                "seed": row.seed,
                "cause": row.failure.cause,
                "text": row.failure.text,
                "steps": row.steps,
            }
            for row in verdict.found
        ],
        "seconds": verdict.seconds,
        "first_failure_seconds": verdict.first_failure_seconds,
        "states": b64encode(states.tobytes()).decode(),
        "classes": b64encode(classes.tobytes()).decode(),
        "pairs": hex(tally.pairs),
        "kinds": [[*kind, count] for kind, count in sorted(tally.kinds.items())],
    }


def _tally(body: dict[str, Any]) -> Tally:
    found = [
        Found(row["number"], row["seed"], Failure(row["cause"], row["text"]), row["steps"]) for row in body["found"]
    ]
    return Tally(
        schedules=body["schedules"],
        steps=body["steps"],
        stops=Counter(body["stops"]),
        found={row.failure.cause: row for row in found},
        states=set(np.frombuffer(b64decode(body["states"]), "<u8").tolist()),
        classes=dict(np.frombuffer(b64decode(body["classes"]), "<u8").reshape(-1, 2).tolist()),
        pairs=int(body["pairs"], 16),
        kinds=Counter({(name, depth, tasks, eager): count for name, depth, tasks, eager, count in body["kinds"]}),
    )


def _synchronise(folder: Path) -> None:
    """So that the new name is there after a power failure, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
