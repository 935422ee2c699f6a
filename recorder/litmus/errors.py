"""What can be wrong with a litmus test, always with the place."""

from __future__ import annotations

from machine.errors import UsageError


class LitmusError(UsageError):
    """A litmus test cannot be read, assembled or run: one line, `file:line: what is wrong`.

    Attributes:
        path: the file, as the user named it.
        line: line number from 1 on, 0 where no line is to blame.
    """

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}" if line else f"{path}: {message}")
        self.path = path
        self.line = line
