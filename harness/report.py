"""Write a report of stored runs: one HTML file, Markdown, CSV and pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

RUNS, OUT, BASELINES = Path("results/runs"), Path("results/report"), Path("results/baselines")
USAGE_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Write the report and name it; the exit code."""
    chosen = parser().parse_args(arguments)
    missing = [path for path in chosen.sources if not path.exists()]
    if missing:
        print(f"kvloom: {missing[0]} is not there: name a store or a record", file=sys.stderr)
        return USAGE_ERROR
    # torch comes with the records, and --help does not wait for it.
    from harness.reporting.write import write_report

    try:
        path = write_report(
            chosen.sources or [RUNS], chosen.out, chosen.baselines, chosen.static_dir
        )
    except OSError as error:
        print(f"kvloom: the report cannot be written: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(path)
    return 0


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    parser = argparse.ArgumentParser(prog="harness/report.py", description=__doc__)
    add = parser.add_argument
    add("sources", nargs="*", type=Path, metavar="STORE_OR_RECORD", help=f"default: {RUNS}")
    add("--out", type=Path, default=OUT, help=f"folder of the report, default: {OUT}")
    add("--static-dir", type=Path, help="also write a site here, for GitHub Pages")
    add("--baselines", type=Path, default=BASELINES, help=f"accepted values, default: {BASELINES}")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
