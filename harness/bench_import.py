"""Take results of `vllm bench serve --save-result` into the store, under our metric names."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

ROOT = Path("results/runs")
OK, USAGE = 0, 2


def main(arguments: Sequence[str]) -> int:
    """Store each file and name its trial; the exit code."""
    options = parser().parse_args(arguments)
    # torch comes with the records, and --help does not wait for it.
    from harness.exits import complain
    from harness.imported.store import Asked, keep

    asked = Asked(options.root, options.experiment, options.algo, options.tier, options.dtype)
    code = OK
    for path in options.files:
        try:
            print(keep(path, options.dense, asked))
        except ValueError as error:
            complain(str(error))
            code = USAGE
    return code


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    parser = argparse.ArgumentParser(prog="harness/bench_import.py", description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE.json", help="each becomes a trial")
    add("--dense", type=Path, help="the same load on vLLM alone: the baseline of each file")
    add("--root", type=Path, default=ROOT, help=f"the store, default: {ROOT}")
    add("--experiment", default="vllm_bench", help="default: vllm_bench")
    add("--algo", help="what was served; default: what --metadata algo=... has said, else vllm")
    add("--tier", default="hbm", help="where its KV was, default: hbm")
    add("--dtype", default="unknown", help="of the model, which the file does not tell")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
