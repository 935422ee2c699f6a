"""A hunt's blocks on a Dask cluster: workers come, go and die, the scheduler may be started anew, nothing is lost.

Dask gives a block to another worker when one dies. When the scheduler goes, so does all that was given out; it is given
out again as soon as there is a scheduler at the same address.
"""

from __future__ import annotations

import logging
import pickle
import socket
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from threading import local
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from machine.errors import RacetapeError, UsageError
from recorder.hunt.crew import BLOCKS_AHEAD, Result, TimeIsUp
from recorder.hunt.identity import difference, identity
from recorder.hunt.search import Search, Tally
from recorder.record import tool

if TYPE_CHECKING:
    from distributed import Client, Future

    from recorder.hunt.verdict import Hunt

CONNECT_S: Final = 10
"""A scheduler that does not answer for so long is not there."""
PATIENCE_S: Final = 60.0
"""How long a hunt that is under way waits for a scheduler, and any hunt for a worker."""
_LOOK_S: Final = 2.0
"""While a result is waited for, the cluster is looked at so often."""


class Cluster:
    """A crew of all workers of a Dask cluster.

    Args:
        address: of its scheduler, as `host:port` or `tcp://host:port`.
        asked: the hunt's identity, which every worker compares with its own.
        deadline: of time.monotonic(): after it, what is waited for is given up.
    Raises UsageError if Dask is not installed or nobody answers at `address`.
    """

    def __init__(self, address: str, what: Hunt, asked: dict[str, Any], deadline: float | None) -> None:
        self._address, self._deadline = address, deadline
        try:
            self._order = pickle.dumps((what, asked))
        except Exception as error:
            raise UsageError(f"this hunt cannot be sent to the workers of a cluster: {_line(error)}") from error
        self._open: dict[int, tuple[int, Future[Tally]]] = {}
        self._stack = ExitStack()
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise UsageError("--cluster needs Dask, which is not installed: pip install 'racetape[cluster]'") from None
        self._stack.enter_context(_quiet())
        try:
            _check(address)
            self._client = self._connect()
        except (OSError, ValueError) as error:
            self._stack.close()
            raise UsageError(f"no Dask scheduler answers at {address} ({_line(error)})") from None
        self._lonely_since: float | None = None
        self._looked = float("-inf")
        self._threads = 1

    @property
    def blocks_max(self) -> int:
        """See Crew. Workers may have come or gone."""
        if time.monotonic() >= self._looked + _LOOK_S:
            with self._reconnecting():
                self._look()
        return BLOCKS_AHEAD * max(self._threads, 1)

    def submit(self, first: int, count: int) -> Result:
        """See Crew."""
        with self._reconnecting():
            self._open[first] = count, self._give(first, count)
        return lambda: self._result(first, count)

    def close(self) -> None:
        """See Crew. The scheduler forgets what this client has asked for."""
        self._open.clear()
        self._drop(self._client)
        self._stack.close()

    def _result(self, first: int, count: int) -> Tally:
        """Wait for one block."""
        while True:
            left = _LOOK_S
            if self._deadline is not None:
                left = min(left, self._deadline - time.monotonic())
                if left <= 0:
                    raise TimeIsUp
            with self._reconnecting():
                if first not in self._open:
                    self._open[first] = count, self._give(first, count)
                _, future = self._open[first]
                try:
                    tally: Tally = future.result(timeout=left)
                except TimeoutError:
                    self._look()
                    continue
                del self._open[first]
                return tally

    def _give(self, first: int, count: int) -> Future[Tally]:
        call = pickle.dumps(_Call(tool(), self._order, first, count))
        # The earlier a block, the sooner it is needed. A block that is given out again is another task.
        return self._client.submit(pickle.loads, call, key=f"racetape-{first}-{uuid4().hex}", priority=-first)

    def _look(self) -> None:
        """Count the workers' threads. Raises RacetapeError if there has been no worker for long."""
        self._threads = sum(self._client.nthreads().values())
        self._looked = time.monotonic()
        if self._threads:
            self._lonely_since = None
            return
        if self._lonely_since is None:
            self._lonely_since = self._looked
        if self._looked - self._lonely_since >= PATIENCE_S:
            raise RacetapeError(f"the Dask cluster at {self._address} has had no worker for {PATIENCE_S:.0f} s")

    @contextmanager
    def _reconnecting(self) -> Iterator[None]:
        """If the scheduler is lost in the body, find it again and give out anew what was given out.

        The body is not repeated. What else goes wrong in it becomes a RacetapeError, one line.
        """
        from distributed.scheduler import KilledWorker

        try:
            yield
        except (RacetapeError, TimeIsUp):
            raise
        except KilledWorker as error:
            raise RacetapeError(f"worker after worker of the Dask cluster died on one block: {_line(error)}") from error
        except Exception as error:
            # What a worker raises has become a RacetapeError there, unless it is none of ours.
            if self._client.status == "running" and not isinstance(error, CancelledError | OSError):
                raise RacetapeError(
                    f"a worker of the Dask cluster cannot run this hunt; has it {tool()}? "
                    f"({type(error).__name__}: {_line(error)})"
                ) from error
            self._again()

    def _again(self) -> None:
        """A new connection, and everything that is open given out again."""
        self._drop(self._client)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise TimeIsUp
            try:
                self._client = self._connect()
                self._open = {
                    first: (count, self._give(first, count)) for first, (count, _) in sorted(self._open.items())
                }
                return
            except Exception as error:
                if time.monotonic() >= deadline:
                    raise RacetapeError(
                        f"the Dask scheduler at {self._address} is gone and has not come back in {PATIENCE_S:.0f} s "
                        "(with --resume FILE a hunt can go on later)"
                    ) from error
                time.sleep(0.2)

    def _connect(self) -> Client:
        from distributed import Client

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions of Python and Dask: what matters fails the first block
            return Client(self._address, timeout=CONNECT_S, set_as_default=False)

    @staticmethod
    def _drop(client: Client) -> None:
        with _ignoring_all():
            client.close(timeout=2)


def _check(address: str) -> None:
    """Raises ValueError if it is none; a Client that finds out for itself does not go away."""
    from distributed.comm.addressing import get_address_host_port, normalize_address

    get_address_host_port(normalize_address(address), strict=True)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _ignoring_all() -> Iterator[None]:
    """For taking leave of a scheduler that may be gone."""
    try:
        yield
    except Exception as error:
        logging.getLogger(__name__).debug("while closing: %r", error)


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs about lost connections is said by us, if it matters."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Call:
    """Becomes, where it is unpickled, what `_block` returns there.

    Dask has a task's function unpickled by the scheduler and by the worker's loop, and neither survives a module that
    is not there. So the function is `pickle.loads`, which is everywhere, and a missing module shows in the task.
    """

    def __init__(self, *arguments: str | bytes | int) -> None:
        self._arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return _block, self._arguments


# In the workers: each thread has a search of its own, for the hunt it last worked for.
_own = local()


def _block(asked_tool: str, order: bytes, first: int, count: int) -> Tally:
    """Carry out one block. Raises RacetapeError if this worker would not come to what the client would come to."""
    if asked_tool != tool():  # first of all: another version need not be able to read the order
        raise RacetapeError(f"the Dask worker on {socket.gethostname()} has {tool()}, the hunt is of {asked_tool}")
    try:
        what, asked = pickle.loads(order)
        if getattr(_own, "order", None) != order:
            _own.order = None
            _own.search = _search(what, asked)
            _own.order = order
        search: Search = _own.search
        return search.block(first, count, every=what.every)
    except RacetapeError:
        raise
    except Exception as error:
        raise RacetapeError(
            f"on the Dask worker on {socket.gethostname()}: {type(error).__name__}: {_line(error)}"
        ) from error


def _search(what: Hunt, asked: dict[str, Any]) -> Search:
    prepared = what.prepare()
    search = what.search(prepared)
    differs = difference(asked, identity(what, prepared, search))
    if differs is not None:
        name, ours, theirs = differs
        raise RacetapeError(
            f"the Dask worker on {socket.gethostname()} has another build of racetape: its {name} is {theirs!r}, "
            f"here it is {ours!r}"
        )
    return search
