"""Tapes that several tests look at, recorded once a session through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from racetape.cli import main


@pytest.fixture(scope="session")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Path]:
    """(scenario, variant, configuration) -> tape, recorded by the default schedule."""
    folder = tmp_path_factory.mktemp("tapes")
    recorded: dict[tuple[str, str, str], Path] = {}
    for scenario in ("wrong-zone", "wrong-zone-small"):
        for variant in ("buggy", "fix-7454f4ba40b4", "seed-wmb"):
            for configuration in ("up-2level", "smp2-2level", "smp4-2level"):
                path = folder / f"{scenario}-{variant}-{configuration}.tape"
                status = main(["record", scenario, "--variant", variant, "--config", configuration, "-o", str(path)])
                assert status == 0, path
                recorded[scenario, variant, configuration] = path
    return recorded
