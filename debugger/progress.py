"""A progress line on a terminal for whatever takes more than a second."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

DELAY_S: Final = 1.0
INTERVAL_S: Final = 0.25


@contextmanager
def progress(
    label: str,
    position: Callable[[], int],
    total: int | Callable[[], int],
    *,
    mark: str = "@",
    more: Callable[[], str] = str,
) -> Iterator[None]:
    """While the body runs longer than DELAY_S, show `label @position of total` on standard error.

    mark: what stands before the position; `@` is for steps. more: what else there is to say at the moment.
    Silent if standard error is no terminal. The line is wiped at the end.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        if done.wait(DELAY_S):
            return
        while True:
            most = total if isinstance(total, int) else total()
            sys.stderr.write(f"\r{label} {mark}{position():,} of {most:,}{more()} (Ctrl-C stops)\033[K")
            sys.stderr.flush()
            if done.wait(INTERVAL_S):
                break
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
