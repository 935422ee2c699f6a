"""`python -m racetape`."""

import sys

from racetape.cli import main

sys.exit(main())
