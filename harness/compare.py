"""Compare two builds or two sets of trials, keep baselines, gate a change: docs/comparing.md."""

import sys
from pathlib import Path

# A script's own folder comes first on the path; its modules must not be importable twice.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

USAGE = """\
python harness/compare.py base=<trials> candidate=<trials>     stored trials, cell by cell
python harness/compare.py base=git:HEAD~1 [candidate=git:<rev>] run=[algo=quest,task.length=512]
                                                               both run here, in turns (ABBA)
python harness/compare.py aa run=[...]                         one build against itself: the noise
python harness/compare.py gate                                 counters and answers as accepted?
python harness/compare.py accept <trial> reason="..."          what is expected from now on
python harness/compare.py track <trial>                        a nightly run against its history

<trials>: a trial, a cell, an experiment, a store, or the record of one run. Options are key=value,
all of them with their defaults in conf/compare.yaml; overrides of a run may also follow `--`.
Exit: 0 ok, 1 regression, 2 usage, 3 not comparable, 4 a run failed, 130 interrupted."""

if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        sys.exit(0)
    from harness.threads import wait_without_spinning

    wait_without_spinning()
    # Help does not wait for torch.
    from harness.comparing.command import main

    sys.exit(main(sys.argv[1:]))
