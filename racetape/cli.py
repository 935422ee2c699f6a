"""The command line: parses, calls the engine, prints. Decides nothing.

Exit status: 0 done or nothing found, 1 a failure was found or a comparison differs, 2 bad usage or bad input. Errors
are one line on standard error, never a traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from machine.errors import RacetapeError
from racetape.commands import (
    archiving,
    comparing,
    exporting,
    gallery,
    linux,
    querying,
    replaying,
    running,
    setting_up,
    sql,
    taping,
)
from racetape.commands.common import EXIT_BAD, EXIT_INTERRUPTED, epilog, fail


class Commands(click.Group):
    """Lists commands in the order in which one uses them, not alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=epilog(
        "racetape demo                                   the June 2011 bug, recorded, replayed and explained",
        "racetape record wrong-zone -o bug.tape          record a scenario",
        "racetape first-divergence bug.tape --counter NR_ISOLATED_FILE",
        "racetape debug bug.tape                         travel in time",
    ),
)
@click.version_option(package_name="racetape", prog_name="racetape")
def racetape() -> None:
    """Deterministic record/replay race debugger for x86 kernel code."""


COMMANDS: Final = (
    setting_up.demo,
    running.scenarios,
    gallery.gallery,
    running.record,
    linux.linux,
    running.hunt,
    running.matrix,
    replaying.minimise,
    replaying.replay,
    replaying.verify,
    replaying.first_divergence,
    comparing.diff,
    replaying.debug,
    querying.query,
    sql.sql,
    taping.tape,
    exporting.export,
    archiving.archive,
    running.litmus,
    setting_up.doctor,
)
"""In the order in which one uses them, which is that of the help."""

for command in COMMANDS:
    racetape.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    try:
        status = racetape.main(args=arguments, prog_name="racetape", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return EXIT_BAD
    except click.UsageError as error:
        hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
        return fail(error.format_message() + hint)
    except click.ClickException as error:
        return fail(error.format_message())
    except RacetapeError as error:
        return fail(str(error))
    except (click.Abort, KeyboardInterrupt):
        print("racetape: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        return fail("not enough memory: a machine needs address space for all of its guest's RAM (wrong-zone: 1 GiB)")
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is wrong, but nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return fail(f"{error.filename or 'input/output'}: {error.strerror or error}")


if __name__ == "__main__":
    sys.exit(main())
