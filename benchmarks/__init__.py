"""Benchmarks: `make bench`. Every figure is a ratio against a peer in the same run (docs/benchmarks.md).

With RACETAPE_CORE set to the path of a build of the core, that build is measured instead of the installed one.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ExtensionFileLoader


def _use_core(path: str) -> None:
    """Have every later `import machine._core` mean the extension at `path`."""
    loader = ExtensionFileLoader("machine._core", path)
    spec = importlib.util.spec_from_file_location("machine._core", path, loader=loader)
    assert spec is not None
    core = importlib.util.module_from_spec(spec)
    sys.modules["machine._core"] = core
    loader.exec_module(core)


if _path := os.environ.get("RACETAPE_CORE"):
    _use_core(_path)
