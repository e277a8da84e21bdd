"""Compose a system from `conf/`, run it beside dense attention, print and record the comparison."""

import sys
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from harness import listing, threads

threads.wait_without_spinning()
# A look at what can be chosen does not wait for Hydra.
if listing.FLAG not in sys.argv:
    from harness.cli import main

if __name__ == "__main__":
    sys.exit(listing.main(sys.argv[1:]) if listing.FLAG in sys.argv else main())
