"""With RACETAPE_CORE set, the tests run on that build of the core instead of the installed one."""

import importlib.machinery
import importlib.util
import os
import sys

if path := os.environ.get("RACETAPE_CORE"):
    loader = importlib.machinery.ExtensionFileLoader("machine._core", path)
    spec = importlib.util.spec_from_file_location("machine._core", path, loader=loader)
    assert spec is not None
    core = importlib.util.module_from_spec(spec)
    sys.modules["machine._core"] = core
    loader.exec_module(core)
    import machine

    machine._core = core
