"""help, quit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from debugger.commands.arguments import nothing
from debugger.registry import REGISTRY

if TYPE_CHECKING:
    from debugger.session import Session

TOPIC = "General"


def _names(_session: Session, _word: str) -> Iterable[str]:
    return (row.name for row in REGISTRY)


@REGISTRY.command(
    "help", arguments="[COMMAND]", shortest="h", aliases=("?",), topic=TOPIC, complete=_names,
    examples=("help", "help reverse-continue"),
)  # fmt: skip
def help_(_session: Session, arguments: str) -> str:
    """List the commands, or explain one of them."""
    if arguments.strip():
        return REGISTRY.find(arguments)[0].help()
    lines: list[str] = []
    width = max(len(row.usage) for row in REGISTRY)
    for topic, rows in REGISTRY.topics().items():
        lines.append(f"{topic}:")
        lines += [f"  {row.usage:<{width}} {row.summary}" for row in rows]
    lines += [
        "Positions: @81204, 81,204, 50%, cpu1#350 (that CPU's instruction count), +30, -30, start, ready, end.",
        "Commands may be shortened while that is clear; an empty line repeats a stepping command.",
    ]
    return "\n".join(lines)


@REGISTRY.command("quit", shortest="q", aliases=("exit",), topic=TOPIC, examples=("quit",))
def quit_(session: Session, arguments: str) -> str:
    """Leave the debugger."""
    nothing(arguments, "quit")
    session.finished = True
    return ""
