"""Makes the small guest of the recorder's tests available here, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "recorder"))
