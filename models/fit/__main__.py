"""The command: see `models.fit.command`."""

import sys

from models.fit.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
