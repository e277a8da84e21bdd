"""The store of trials: check it, index it, remove what is left over."""

import sys
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from harness.stored.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
