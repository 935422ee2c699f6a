"""The enumerator of the machine's own tests judges these tests too; RACETAPE_CORE chooses the core as it does there."""

import runpy
import sys
from pathlib import Path

MACHINE_TESTS = Path(__file__).resolve().parent.parent / "machine"

sys.path.insert(0, str(MACHINE_TESTS))
runpy.run_path(str(MACHINE_TESTS / "conftest.py"))
