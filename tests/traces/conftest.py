"""With RACETAPE_CODEC set, the tests run on that build of the codec instead of the installed one."""

import importlib.machinery
import importlib.util
import os
import sys

if path := os.environ.get("RACETAPE_CODEC"):
    if hasattr(os, "RTLD_DEEPBIND"):
        os.RTLD_DEEPBIND = 0  # ASan aborts where capstone is loaded with it.
    loader = importlib.machinery.ExtensionFileLoader("traces._codec", path)
    spec = importlib.util.spec_from_file_location("traces._codec", path, loader=loader)
    assert spec is not None
    codec = importlib.util.module_from_spec(spec)
    sys.modules["traces._codec"] = codec
    loader.exec_module(codec)
