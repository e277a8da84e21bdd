"""Compose a system from `conf/`, run it beside dense attention, print and record the comparison."""

import sys
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from harness.cli import main

if __name__ == "__main__":
    sys.exit(main())
