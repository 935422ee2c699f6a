"""Tokens of the parts of a litmus file that are not code: initial state, locations, filter, condition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from recorder.litmus.errors import LitmusError

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>-?0[xX][0-9a-fA-F]{1,40}|-?\d{1,40})
    |(?P<name>%?[A-Za-z_.$](?:[\w.$]|-(?=\w)|/(?=\w))*)
    |(?P<mark>/\\|\\/|=>|==|!=|<>|[=~()\[\]{};:,*&])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A number, a name, a mark, or the end (""), with its place in the text and its line in the file."""

    kind: str
    text: str
    line: int
    offset: int


class Tokens:
    """The tokens of `text`, whose first line is line `line` of the file; read from the front."""

    def __init__(self, path: str, text: str, line: int) -> None:
        self.path = path
        self.text = text
        self._tokens: list[Token] = []
        self._at = 0
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise LitmusError(path, line, f"unexpected character {text[position]!r}")
            assert match.lastgroup is not None
            if match.lastgroup != "space":
                self._tokens.append(Token(match.lastgroup, match[0], line, position))
            line += match[0].count("\n")
            position = match.end()
        last_line = self._tokens[-1].line if self._tokens else line
        self._tokens.append(Token("end", "", last_line, position))

    @property
    def next(self) -> Token:
        """The token in front."""
        return self._tokens[self._at]

    def ahead(self, distance: int) -> Token:
        """The token `distance` behind the one in front."""
        return self._tokens[min(self._at + distance, len(self._tokens) - 1)]

    def take(self) -> Token:
        """The token in front, which is then gone. The end stays."""
        token = self.next
        if token.kind != "end":
            self._at += 1
        return token

    def take_if(self, *texts: str) -> bool:
        """Take the token in front if it is one of these."""
        found = self.next.text in texts and self.next.kind != "end"
        if found:
            self.take()
        return found

    def expect(self, text: str) -> Token:
        """Take this token. Raises LitmusError if another stands there."""
        if self.next.text != text:
            raise self.error(f"expected {text!r}")
        return self.take()

    def name(self) -> str:
        """Take a name."""
        if self.next.kind != "name":
            raise self.error("expected a name")
        return self.take().text

    def number(self) -> int:
        """Take a number."""
        if self.next.kind != "number":
            raise self.error("expected a number")
        return integer(self.take().text)

    def error(self, message: str) -> LitmusError:
        """An error at the token in front."""
        found = f"found {self.next.text!r}" if self.next.text else "found the end"
        return LitmusError(self.path, self.next.line, f"{message}, {found}")


def integer(text: str) -> int:
    """A number as C writes it, except that a leading 0 does not make it octal."""
    return int(text, 16) if "x" in text.lower() else int(text)
