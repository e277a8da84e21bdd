"""The command line: Hydra composes, errors are one line, and the exit code tells how it went.

0 ok, 2 the request is off, 3 nothing was measured, 4 a cell failed, 130 stopped by the user.
"""

import os
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.composing import resolved
from harness.exits import FAILED, INTERRUPTED, OK, USAGE, complain, one_line
from harness.settings import Settings, validated
from harness.stored.trials import UNNAMED
from harness.sweeps.job import Done
from harness.sweeps.sweeper import register
from harness.sweeps.task import run_cell_of_sweep

CONF = Path(__file__).resolve().parent.parent / "conf"


def main() -> int:
    """Run the cells that the command line asks for; return the worst exit code."""
    # Hydra then raises what it would print in its own way, with a traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register()
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")
    def job(config: DictConfig) -> int | Done:
        ended = _run(config)
        codes.append(ended if isinstance(ended, int) else OK)
        return ended

    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        complain(one_line(error))
        return USAGE
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else OK
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(codes, default=OK)


def _run(config: DictConfig) -> int | Done:
    chosen = HydraConfig.get()
    overrides = [one for one in chosen.overrides.task if not one.startswith("sweep.")]
    try:
        composed = resolved(config)
        settings = validated(composed)
        experiment = _experiment(settings, chosen)
        if chosen.mode == RunMode.MULTIRUN and settings.study is None:
            return run_cell_of_sweep(settings, composed, overrides, experiment)
        # Here alone: a sweep, which has a process for each cell, does not wait for torch.
        from harness.single import run_single

        return run_single(settings, composed, overrides, experiment)
    except (ValueError, OmegaConfBaseException) as error:
        complain(one_line(error))
        return USAGE
    except OSError as error:
        complain(f"{error}; the trial is not in the store")
        return FAILED


def _experiment(settings: Settings, chosen: Any) -> str:
    name = chosen.runtime.choices.get("experiment")
    return settings.sweep.name or (str(name) if name else UNNAMED)
