"""The pytest plugin: tests that fail if a schedule fails, with the shortest such schedule in the report.

Loaded by pytest wherever racetape is installed, so it imports nothing of racetape until a test asks for a hunt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import pytest

if TYPE_CHECKING:
    from recorder.hunt import Hunt

MARK: Final = "racetape"
FOLDER: Final = ".pytest_racetape"
SCHEDULES: Final = 100
RUNS: Final = 2_000
"""Most runs that minimising a failing schedule takes, unless `minimise` says otherwise."""

_NAME_LENGTH_MAX: Final = 100


class ScheduleFailed(pytest.fail.Exception):  # type: ignore[name-defined,misc]  # to mypy it is a value
    """A schedule failed (or none came to an end). The message is the report.

    Attributes:
        answer: what `racetape hunt --json` says.
        tape: the minimal failing run, None if no schedule failed.
    """

    def __init__(self, message: str, answer: dict[str, Any], tape: Path | None) -> None:
        super().__init__(message, pytrace=False)
        self.answer, self.tape = answer, tape


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a mark or a call of `hunt` may say; as the options of `racetape hunt` of the same names."""

    scenario: str
    variant: str | None = None
    config: str | None = None
    strategy: str = "portfolio"
    budget: int = SCHEDULES
    seconds: int | float | None = None
    seed: int = 0
    jobs: int = 1
    cluster: str | None = None
    endings_only: bool = False
    minimise: int = RUNS


_KINDS: Final = get_type_hints(Options)
_LEAST: Final[dict[str, int]] = {"budget": 1, "seed": 0, "jobs": 1, "minimise": 0, "seconds": 0}
_SEED_MAX: Final = 2**64 - 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """See pytest."""
    group = parser.getgroup("racetape", "racetape")
    group.addoption(
        "--racetape-artifacts",
        metavar="DIR",
        default=None,
        help=f"Where tapes of failing schedules go (default: {FOLDER} in the root folder).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """See pytest."""
    names = ", ".join(f"{name}=" for name in _KINDS)
    config.addinivalue_line(
        "markers", f"{MARK}({names}): fail if a schedule of this scenario fails (docs/hunt.md of racetape)"
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say what is wrong with marks before any test runs."""
    for item in session.items:
        try:
            marked = _marked(item)
            if marked is not None:
                _check(marked)
        except ValueError as error:
            raise pytest.UsageError(f"{item.nodeid}: racetape: {error}") from None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """A marked test hunts before its own body, which may be empty."""
    marked = _marked(item)
    if marked is not None:
        _Hunter(item)(marked)


@pytest.fixture
def hunt(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Hunts when it is called: `hunt("wrong-zone-small", config="smp2", budget=500)`. Takes what the mark takes.

    Returns what `racetape hunt --json` says, or fails the test with ScheduleFailed.
    """
    hunter = _Hunter(request.node)

    def call(scenario: str, **options: Any) -> dict[str, Any]:
        try:
            chosen = _options({"scenario": scenario, **options})
            _check(chosen)
        except ValueError as error:
            pytest.fail(f"racetape: {error}", pytrace=False)
        return hunter(chosen)

    return call


# -- what was asked for --


def _marked(item: pytest.Item) -> Options | None:
    """What the marks of a test say: those of the function add to and replace those of its class and module.

    Raises ValueError for what does not fit.
    """
    said: dict[str, tuple[object, Any]] = {}
    marked = False
    for node, mark in item.iter_markers_with_node(MARK):  # the nearest first
        marked = True
        if mark.args:
            raise ValueError(f"the mark takes keyword arguments only, not {mark.args[0]!r}")
        for name, value in mark.kwargs.items():
            whose, other = said.setdefault(name, (node, value))
            if whose is node and other != value:
                raise ValueError(f"{name} is given twice: {value!r} and {other!r}")
    return _options({name: value for name, (_, value) in said.items()}) if marked else None


def _options(said: dict[str, Any]) -> Options:
    """Raises ValueError for what does not fit."""
    for name, value in said.items():
        if name not in _KINDS:
            raise ValueError(f"no such argument: {name!r}; there are {', '.join(_KINDS)}")
        kind = _KINDS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} is {value!r}, and must be {getattr(kind, '__name__', kind)}")
        if name in _LEAST and value is not None and value < _LEAST[name]:
            raise ValueError(f"{name} is {value}; the least is {_LEAST[name]}")
    if int(said.get("seed", 0)) > _SEED_MAX:
        raise ValueError("seed is more than 2^64 - 1")
    if "scenario" not in said:
        raise ValueError("which scenario? (scenario=..., one of `racetape scenarios`)")
    return Options(**said)


def _check(options: Options) -> None:
    """Raises ValueError for what does not exist. Runs nothing."""
    from machine import images
    from machine.errors import RacetapeError
    from recorder.strategies import strategy

    try:
        row = images.scenario(options.scenario)
        row.image(row.configuration(options.config or "").name, options.variant or "")
        strategy(options.strategy)
    except RacetapeError as error:
        raise ValueError(str(error)) from error
    if options.strategy == "default":
        raise ValueError("the default strategy makes no random choice: a hunt takes another")


def _hunt_of(options: Options) -> Hunt:
    from debugger.checks import scenario_counters
    from recorder.hunt import Hunt, endings_only

    return Hunt(
        options.scenario,
        options.variant,
        options.config,
        strategy=options.strategy,
        seed=options.seed,
        schedules=options.budget,
        seconds=options.seconds,
        jobs=options.jobs,
        cluster=options.cluster,
        checks=endings_only if options.endings_only else scenario_counters,
    )


# -- hunting --


class _Hunter:
    """Hunts for one test, and leaves what it finds with it."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, options: Options) -> dict[str, Any]:
        from machine.errors import RacetapeError

        try:
            return self._hunt(options)
        except (RacetapeError, OSError) as error:
            pytest.fail(f"racetape: {error}", pytrace=False)

    def _hunt(self, options: Options) -> dict[str, Any]:
        from racetape.hunt import run_hunt

        what = _hunt_of(options)
        with TemporaryDirectory() as scratch:
            found = Path(scratch, "found.tape")
            verdict, answer = run_hunt(what, found)
            self._property("schedules", answer["schedules"])
            if verdict.interrupted:
                raise KeyboardInterrupt
            if answer["failures"]:
                self._failed(options, answer, found)
        if answer["inconclusive"] == answer["schedules"]:
            raise ScheduleFailed(
                f"{_where(answer)}: not one of {answer['schedules']:,} schedules came to an end", answer, None
            )
        return answer

    def _failed(self, options: Options, answer: dict[str, Any], found: Path) -> None:
        """Minimise, leave the tape, raise ScheduleFailed."""
        from racetape.minimise import run_minimise
        from traces import Tape

        tape = self._path()
        failure = answer["failures"][0]
        lines = [f"{_where(answer)}: failed in schedule {failure['schedule'] + 1:,} of {options.budget:,}"]
        lines.append(f"    {failure['text']}")
        if options.minimise:
            script = tape.with_suffix(".txt")
            with Tape(found) as recording:
                minimal = run_minimise(recording, tape, script, options.minimise)
            lines.append(
                f"needed of its {minimal['choices_before']:,} choices, with the default schedule behind them"
                + (":" if minimal["complete"] else f" (at most: the {options.minimise:,} runs were spent):")
            )
            lines += [f"    {line}" for line in minimal["script"].splitlines()] or ["    none"]
            self._property("script", script)
        else:
            tape.write_bytes(found.read_bytes())
        failure["tape"] = str(tape)
        for name in ("cause", "seed", "tape"):
            self._property(name, failure[name])
        lines.append("go on with:")
        lines.append(f"    racetape debug {quote(str(tape))}")
        raise ScheduleFailed("\n".join(lines), answer, tape)

    def _property(self, name: str, value: object) -> None:
        """For the JUnit report and others."""
        self._item.user_properties.append((f"racetape_{name}", str(value)))

    def _path(self) -> Path:
        """A path for a tape of this test, that no other test has and none of its other hunts."""
        folder = _folder(self._item.config)
        nodeid = self._item.nodeid
        name = re.sub(r"[^\w.-]+", "-", nodeid).strip("-.")
        if name != nodeid:
            digest = blake2b(nodeid.encode(), digest_size=4).hexdigest()
            name = f"{name[-_NAME_LENGTH_MAX:]}-{digest}"
        number = self._item.stash.get(_TAPES, 0) + 1
        self._item.stash[_TAPES] = number
        return folder / (f"{name}.tape" if number == 1 else f"{name}-{number}.tape")


_TAPES: Final = pytest.StashKey[int]()


def _folder(config: pytest.Config) -> Path:
    said = config.getoption("--racetape-artifacts")
    folder = config.rootpath / FOLDER if said is None else config.invocation_params.dir / said
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if said is None:
            (folder / ".gitignore").write_text("*\n")
    return folder


def _where(answer: dict[str, Any]) -> str:
    return f"{answer['scenario']} ({answer['variant']}, {answer['configuration']})"
