"""The registry: every command explains itself, and names, abbreviations and completion agree."""

from __future__ import annotations

import pytest

import debugger.commands  # noqa: F401  (fills the registry)
from debugger.registry import REGISTRY, Command
from machine.errors import UsageError

COMMANDS = list(REGISTRY)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda row: row.name)
def test_every_command_has_help_and_examples_that_find_it(command: Command) -> None:
    assert command.summary.endswith(".")
    assert len(command.summary) < 100
    assert command.examples
    assert command.usage in command.help()
    for line in command.examples:
        assert REGISTRY.find(line)[0] is command
    for name in (command.name, command.shortest, *command.aliases):
        assert REGISTRY.find(name)[0] is command


@pytest.mark.parametrize("command", COMMANDS, ids=lambda row: row.name)
def test_every_abbreviation_down_to_the_shortest_is_clear(command: Command) -> None:
    words = list(zip(command.name.split(), command.shortest.split(), strict=True))
    for cut in range(max(len(name) - len(least) for name, least in words) + 1):
        line = " ".join(name[: max(len(least), len(name) - cut)] for name, least in words)
        assert REGISTRY.find(line)[0] is command


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("si 3", "stepi", "3"),
        ("rsi", "reverse-stepi", ""),
        ("rc", "reverse-continue", ""),
        ("reverse-cont 2", "reverse-continue", "2"),
        ("c", "continue", ""),
        ("p 1 + 2", "print", "1 + 2"),
        ("p/x 1", "print", "/x 1"),
        ("x/8xw $esp", "x", "/8xw $esp"),
        ("print a / b", "print", "a / b"),
        ("i r eip", "info registers", "eip"),
        ("  info   cpus ", "info cpus", ""),
        ("l mm/compaction.c:5", "list", "mm/compaction.c:5"),
        ("thread 1", "cpu", "1"),
        ("q", "quit", ""),
    ],
)
def test_find(line: str, name: str, arguments: str) -> None:
    command, rest = REGISTRY.find(line)
    assert (command.name, rest) == (name, arguments)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate", "no command 'frobnicate'"),
        ("reverse", "no command 'reverse'"),
        ("info", "'info' needs a second word: info cpus"),
        ("info frob", "no command 'info frob' (there are info cpus"),
        ("s", "no command 's'; did you mean seek"),
        ("/", "no command '/'"),
        ("é", "no command"),
    ],
)
def test_unknown_commands(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        REGISTRY.find(line)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_topics_list_every_command_once() -> None:
    listed = [row for rows in REGISTRY.topics().values() for row in rows]
    assert sorted(row.name for row in listed) == [row.name for row in COMMANDS]
