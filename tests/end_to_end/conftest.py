"""Tapes that several tests look at, recorded once a session through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from racetape.cli import main

NAMES = [
    (scenario, variant, configuration)
    for scenario in ("wrong-zone", "wrong-zone-small")
    for variant in ("buggy", "fix-7454f4ba40b4", "seed-wmb")
    for configuration in ("up-2level", "smp2-2level", "smp4-2level")
]


@pytest.fixture(scope="session")
def tapes(made_once: Callable[..., Path]) -> dict[tuple[str, str, str], Path]:
    """(scenario, variant, configuration) -> tape, recorded by the default schedule."""

    def record(folder: Path) -> None:
        for scenario, variant, configuration in NAMES:
            path = folder / f"{scenario}-{variant}-{configuration}.tape"
            status = main(["record", scenario, "--variant", variant, "--config", configuration, "-o", str(path)])
            assert status == 0, path

    folder = made_once("tapes", record)
    return {name: folder / f"{'-'.join(name)}.tape" for name in NAMES}
