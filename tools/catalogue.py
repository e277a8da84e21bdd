"""Keeps the table of algorithms in the README equal to `conf/algo` and the classes.

python -m tools.catalogue          rewrite the table
python -m tools.catalogue --check  exit 1 if it is out of date
"""

import sys
from pathlib import Path

from harness.catalogue import markdown

README = Path(__file__).resolve().parent.parent / "README.md"
START, STOP = "<!-- catalogue -->\n", "<!-- /catalogue -->"


def main() -> int:
    """Rewrite the README, or compare with it."""
    text = README.read_text()
    before, _, rest = text.partition(START)
    after = rest.partition(STOP)[2]
    wanted = before + START + markdown() + STOP + after
    if "--check" in sys.argv:
        return int(text != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
