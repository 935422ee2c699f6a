"""The command registry: one row per command, read by help, usage errors, abbreviation and completion alike.

A command's name is one or two words (`stepi`, `info registers`). Each word may be shortened down to the matching word
of `shortest`; further names are aliases. `/` ends a word, so that `x/8xw $esp` finds `x` and `p/x foo` finds `p`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from machine.errors import UsageError

if TYPE_CHECKING:
    from debugger.session import Session

Handler = Callable[["Session", str], str]
"""Runs a command with the text after its name and returns what to print (without a newline at its end)."""
Completer = Callable[["Session", str], Iterable[str]]
"""Full words that may stand where the given beginning of the last word stands."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        name: one or two words.
        shortest: the shortest accepted form of each word.
        aliases: other complete names.
        arguments: argument form for usage lines, e.g. `[COUNT]`.
        summary: one sentence.
        details: more help, "" if there is nothing to add.
        examples: lines to type.
        topic: heading in the list of commands.
        repeats: whether an empty line runs it again.
        complete: completes the last word of the arguments.
        run: the handler.
    """

    name: str
    shortest: str
    aliases: tuple[str, ...]
    arguments: str
    summary: str
    details: str
    examples: tuple[str, ...]
    topic: str
    repeats: bool
    complete: Completer | None
    run: Handler

    @property
    def usage(self) -> str:
        """`stepi [COUNT]`."""
        return f"{self.name} {self.arguments}".rstrip()

    def accepts(self, words: list[str]) -> bool:
        """Whether `words` are this command's name, shortened or not."""
        names, shortest = self.name.split(), self.shortest.split()
        return len(words) == len(names) and all(
            name.startswith(word) and len(word) >= len(least)
            for word, name, least in zip(words, names, shortest, strict=True)
        )

    def help(self) -> str:
        """Everything there is to say about this command."""
        lines = [f"{self.usage}", f"  {self.summary}"]
        if self.details:
            lines += [f"  {row}".rstrip() for row in self.details.splitlines()]
        short = [row for row in (self.shortest, *self.aliases) if row != self.name]
        if short:
            lines.append(f"  Short: {', '.join(short)}")
        lines.append("  Examples:")
        lines += [f"    {row}" for row in self.examples]
        return "\n".join(lines)


class Registry:
    """All commands, by name."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}

    def command(
        self,
        name: str,
        *,
        arguments: str = "",
        shortest: str = "",
        aliases: tuple[str, ...] = (),
        examples: tuple[str, ...],
        topic: str,
        repeats: bool = False,
        complete: Completer | None = None,
    ) -> Callable[[Handler], Handler]:
        """Decorator: register a handler. Its docstring is the help: a first sentence, then details."""

        def register(run: Handler) -> Handler:
            summary, _, details = (run.__doc__ or "").strip().partition("\n")
            rows = [row.strip() for row in details.strip().splitlines()]
            row = Command(
                name, shortest or name, aliases, arguments, summary.strip(), "\n".join(rows), examples, topic,
                repeats, complete, run,
            )  # fmt: skip
            assert name not in self._commands
            assert row.accepts(row.shortest.split())
            self._commands[name] = row
            return run

        return register

    def __iter__(self) -> Iterator[Command]:
        return iter(sorted(self._commands.values(), key=lambda row: row.name))

    def topics(self) -> dict[str, list[Command]]:
        """Commands by topic, topics in the order in which they were first registered."""
        found: dict[str, list[Command]] = {}
        for row in self._commands.values():
            found.setdefault(row.topic, []).append(row)
        return found

    def find(self, line: str) -> tuple[Command, str]:
        """(command, its arguments) of one input line. Raises UsageError if no command, or more than one, fits."""
        words = _words(line)
        for count in (2, 1):
            name = " ".join(words[:count])
            matches = [row for row in self if row.name == name or name in row.aliases]
            if not matches and len(words) >= count:
                matches = [row for row in self if row.accepts(words[:count])]
            if len(matches) == 1:
                return matches[0], _after(line, count)
            if matches:
                raise UsageError(f"'{name}' is ambiguous: {', '.join(row.name for row in matches)}")
        raise UsageError(self._unknown(words))

    def _unknown(self, words: list[str]) -> str:
        family = [row.name for row in self if " " in row.name and row.name.split()[0].startswith(words[0])]
        if family and len(words) == 1:
            return f"'{words[0]}' needs a second word: {', '.join(family)}"
        if family:
            return f"no command '{' '.join(words[:2])}' (there are {', '.join(family)})"
        close = [row.name for row in self if row.name.startswith(words[0][:1])]
        hint = f"did you mean {' or '.join(close[:3])}? " if words[0] and close else ""
        return f"no command '{words[0]}'; {hint}'help' lists them"

    def completions(self, session: Session, text: str) -> list[str]:
        """Words that may replace the last word of `text`, sorted."""
        words = text.split()
        last = "" if not text or text[-1].isspace() else words.pop()
        before = " ".join(words)
        names = {
            row.name.split()[len(words)]
            for row in self
            if len(row.name.split()) > len(words)
            and all(name.startswith(word) for name, word in zip(row.name.split()[: len(words)], words, strict=True))
        }
        found = {name for name in names if name.startswith(last)}
        try:
            command, _ = self.find(before) if before else (None, "")
        except UsageError:
            command = None
        if command is not None and command.complete is not None:
            found |= {word for word in command.complete(session, last) if word.startswith(last)}
        return sorted(found)


def _words(line: str) -> list[str]:
    """At most the first two words; a slash starts a word of its own."""
    return line.replace("/", " /", 1).split(maxsplit=2)[:2] if line.strip() else [""]


def _after(line: str, count: int) -> str:
    """What follows the first `count` words of `line`."""
    rest = line.strip()
    for _ in range(count):
        end = next((i for i, char in enumerate(rest) if char.isspace() or (char == "/" and i)), len(rest))
        rest = rest[end:].lstrip()
    return rest


REGISTRY: Final = Registry()
"""The one registry; importing `debugger.commands` fills it."""
