"""The litmus tests that come with racetape, and finding tests by what the user calls them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from recorder.litmus.errors import LitmusError

FOLDER: Final = Path(__file__).with_name("tests")
"""The bundled tests: one folder for each group."""


def groups() -> list[str]:
    """Names of the groups of bundled tests."""
    return sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def in_group(group: str) -> list[Path]:
    """The tests of a group, by name."""
    return sorted((FOLDER / group).glob("*.litmus"), key=lambda path: path.stem)


def find(what: str) -> list[Path]:
    """Files for the name of a file, a folder, a bundled test (`sb`) or a group of them (`classic`).

    Raises LitmusError.
    """
    path = Path(what)
    if path.is_dir():
        files = sorted(path.rglob("*.litmus"))
        if not files:
            raise LitmusError(what, 0, "no *.litmus file in this folder")
        return files
    if path.exists():
        return [path]
    if what in groups():
        return in_group(what)
    files = sorted(FOLDER.glob(f"*/{what}.litmus")) if what.replace("-", "").isalnum() else []
    if not files:
        raise LitmusError(what, 0, "no such file, folder, bundled test or group (see `racetape litmus --list`)")
    return files


def find_all(names: Iterable[str]) -> list[Path]:
    """Files for several names, each file once."""
    return list(dict.fromkeys(path for name in names for path in find(name)))
