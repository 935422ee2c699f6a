"""What can be wrong with a litmus test, always with the place."""

from __future__ import annotations

from typing import Final

from machine.errors import UsageError

MESSAGE_CHARACTERS_MAX: Final = 300
"""Longest message: it may quote the file."""


class LitmusError(UsageError):
    """A litmus test cannot be read, assembled or run: one line, `file:line: what is wrong`.

    Attributes:
        path: the file, as the user named it.
        line: line number from 1 on, 0 where no line is to blame.
    """

    def __init__(self, path: str, line: int, message: str) -> None:
        if len(message) > MESSAGE_CHARACTERS_MAX:
            half = MESSAGE_CHARACTERS_MAX // 2
            message = f"{message[:half]} ... {message[-half:]}"
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path = path
        self.line = line
