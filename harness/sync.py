"""Send trials of the store to a logger that has not got them: it was down, slow or not chosen."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)


def options() -> Namespace:
    """What the command line says."""
    parser = ArgumentParser(prog="python harness/sync.py", description=__doc__)
    parser.add_argument("store", nargs="?", type=Path, default=Path("results/runs"))
    parser.add_argument(
        "--logger",
        metavar="NAME",
        help="send every trial that NAME of conf/logger has not got, not only the pending ones",
    )
    parser.add_argument("--again", action="store_true", help="with --logger: also those it has")
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a setting of the logger, such as target.mode=online or timeout_s=300",
    )
    return parser.parse_args()


if __name__ == "__main__":
    chosen = options()
    # After the options: --help does not wait for torch.
    from harness.loggers.replay import replay

    sys.exit(replay(chosen.store, chosen.logger, again=chosen.again, changes=chosen.changes))
