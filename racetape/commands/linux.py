"""`racetape linux`: real kernels on the machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from machine.errors import UsageError
from racetape.commands.common import (
    EXIT_FOUND,
    EXIT_INTERRUPTED,
    describe_stop,
    emit,
    epilog,
    json_option,
    output_option,
)

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Memory(click.ParamType[int]):
    """A size as `64M`."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]+)([KMG]?)", str(value), re.IGNORECASE)
        size_bytes = int(match[1]) * _UNITS[match[2].upper()] if match else 0
        if not 4 << 20 <= size_bytes <= 3 << 30 or size_bytes % 4096:
            self.fail(f"{value!r} is no size of memory from 4M to 3G", param, ctx)
        return size_bytes


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def linux() -> None:
    """Real Linux kernels: tools/linux/build.sh makes one."""


@linux.command(
    epilog=epilog(
        "racetape linux record --kernel vmlinux --initrd initrd.cpio --append console=ttyS0 -o boot.tape",
        "racetape debug boot.tape                       travel in it, with the kernel's own lines",
    )
)
@click.option(
    "--kernel",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="vmlinux (with debug information), or a bzImage (without).",
)
@click.option("--initrd", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The first file system.")
@click.option("--append", default="", metavar="TEXT", help="The kernel's command line.")
@click.option("--memory", default="64M", show_default=True, type=Memory(), help="Size of the machine's memory.")
@click.option("--steps", type=click.IntRange(1), help="Most instructions to run (default: 4,000,000,000).")
@click.option("--no-events", is_flag=True, help="The schedule only: 'racetape tape rebuild' makes the rest.")
@click.option("--console", is_flag=True, help="Print what the kernel wrote to its serial line.")
@output_option
@json_option
def record(
    kernel: Path,
    initrd: Path | None,
    append: str,
    memory: int,
    steps: int | None,
    no_events: bool,
    console: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Boot KERNEL on a PC and record it from its first instruction on, until it restarts or waits for ever.

    Exit status 1 if it does not end by a restart (reboot=k lets it use the keyboard controller).
    """
    from racetape.progress import ticking
    from recorder.linux import STEP_MAX, prepare_linux

    if as_json and console:
        raise UsageError("--json has the console anyway")
    step_max = steps or STEP_MAX
    prepared = prepare_linux(
        kernel.read_bytes(),
        initrd.read_bytes() if initrd else b"",
        append,
        ram_bytes=memory,
        step_max=step_max,
    )
    with ticking("recording", step_max) as tick:
        summary = prepared.record(output, layer_b=not no_events, progress=tick)
    if as_json:
        emit(
            {
                "tape": str(summary.path),
                "outcome": summary.outcome,
                "stop": summary.stop,
                "steps": summary.steps,
                "events": summary.events,
                "state_hash": f"{summary.state_hash:016x}",
                "memory_hash": f"{summary.memory_hash:016x}",
                "size_bytes": summary.size_bytes,
                "console": summary.console,
            }
        )
    else:
        if console:
            click.echo(summary.console.replace("\r\n", "\n"))
        click.echo(f"{summary.path}: {summary.steps:,} steps, {summary.events:,} events, {summary.size_bytes:,} bytes")
        click.echo(f"{summary.outcome}: {describe_stop(summary.stop, summary.exit_status)}")
    if summary.stop == "interrupted":
        sys.exit(EXIT_INTERRUPTED)
    if summary.outcome != "ended":
        sys.exit(EXIT_FOUND)
