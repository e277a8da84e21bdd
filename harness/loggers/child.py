"""Tells one trial to one logger, in a process of its own: whatever happens in it hurts no run."""

import json
import signal
import sys
from pathlib import Path

# This folder would come first on the path, and its modules carry the names of trackers.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from harness.build import build
from harness.loggers.base import Logger
from harness.settings import LoggerSettings
from harness.stored.trials import read_trial

# Seconds after which it ends itself if nobody is left to end it.
GRACE_S = 5


def main() -> int:
    """Read the job from stdin; 0, or 1 with the reason on stdout."""
    job = json.load(sys.stdin)
    try:
        settings = LoggerSettings.model_validate(job["logger"])
        assert settings.target is not None
        signal.setitimer(signal.ITIMER_REAL, settings.timeout_s + GRACE_S)
        logger: Logger = build(settings.target, "logger.target")
        logger.log(read_trial(Path(job["folder"])))
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
