"""`import racetape`: the list, the names and where they come from stay in step."""

from __future__ import annotations

import subprocess
import sys

import pytest

import racetape


def test_every_public_name_exists() -> None:
    assert sorted(racetape.__all__) == racetape.__all__ == dir(racetape)
    for name in racetape.__all__:
        assert getattr(racetape, name) is not None, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such"):
        _ = racetape.no_such


def test_help_does_not_load_the_engine() -> None:
    """Neither waiting for numpy and drgn, nor a traceback when interrupted in there."""
    code = (
        "import sys, racetape.cli; racetape.cli.main(['--help']); print('numpy' in sys.modules, 'drgn' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False False"
