"""The prompt: a terminal session with history and completion, plain lines from a pipe, and `-ex` scripts.

As in gdb, `-ex` commands run first, in order, and then the prompt opens unless `--batch` is given. A command that
fails prints one line on standard error. Interactively the next one runs all the same; with `--batch` the run ends
there with status 2, because whatever follows was written for a state that was not reached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from debugger.endings import ending_of
from debugger.freed import use_of_freed_page
from debugger.registry import REGISTRY
from debugger.session import Session, describe
from machine.errors import RacetapeError
from traces import Tape

EXIT_OK = 0
EXIT_BAD = 2


class RegistryCompleter(Completer):
    """Completes command names and their arguments from the registry."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Completions of the last word before the cursor."""
        text = document.text_before_cursor
        word = text[len(text.rstrip()) :] if text != text.rstrip() else text.split()[-1] if text else ""
        for found in REGISTRY.completions(self._session, text):
            yield Completion(found, start_position=-len(word.strip()))


def history(name: str = "debug_history") -> History:
    """Lines typed before, kept under `name` in the user's state directory where that can be written."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        folder = (Path(base).expanduser() / "racetape").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.touch(mode=0o600)
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return FileHistory(path)


def perform(session: Session, line: str) -> bool:
    """Run one line, print its output or its error. Returns whether it succeeded."""
    try:
        output = session.execute(line)
    except RacetapeError as error:
        print(describe(error), file=sys.stderr, flush=True)
        return False
    except KeyboardInterrupt:
        print(f"Interrupted; still at @{session.timeline.step}.", file=sys.stderr, flush=True)
        return False
    if output:
        print(output, flush=True)
    return True


def terminal_lines(session: Session, prompts: PromptSession[str]) -> Iterator[str]:
    """Lines typed at the prompt until end of file. Ctrl-C drops the line."""
    while True:
        try:
            yield prompts.prompt(session.prompt())
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def piped_lines() -> Iterator[str]:
    """Lines of standard input."""
    for line in sys.stdin:
        yield line.rstrip("\n")


def interact(session: Session, lines: Iterable[str]) -> None:
    """Run lines until they end or a command leaves the debugger."""
    for line in lines:
        perform(session, line)
        if session.finished:
            return


def open_prompt(session: Session) -> PromptSession[str]:
    """The terminal prompt of a session."""
    return PromptSession(history=history(), completer=RegistryCompleter(session), complete_while_typing=False)


def run(tape_path: str | os.PathLike[str], commands: Sequence[str] = (), batch: bool = False) -> int:
    """Debug a tape: `commands` first, then, unless `batch`, lines from the terminal or from standard input.

    Returns the exit status: 0, or 2 under `batch` if a command failed or the tape is cut or damaged: what the commands
    said holds for the part there is. Raises RacetapeError if the tape cannot be opened or replayed.
    """
    with Tape(tape_path) as tape:
        session = Session(tape)
        ending = ending_of(tape, every_byte=True)
        if ending.broken:
            text = f"racetape: {tape_path}: {ending.why}; everything up to @{ending.step} is there"
            print(text, file=sys.stderr, flush=True)
        if not batch:
            print(f"{tape_path}: {session.stop_line()}  ('help' lists the commands)", flush=True)
            if freed := use_of_freed_page(tape):
                print(f"the run ends at {freed}", flush=True)
        for line in commands:
            if not perform(session, line) and batch:
                return EXIT_BAD
            if session.finished:
                break
        if batch:
            return EXIT_BAD if ending.broken else EXIT_OK
        if session.finished:
            return EXIT_OK
        interact(session, terminal_lines(session, open_prompt(session)) if sys.stdin.isatty() else piped_lines())
    return EXIT_OK
