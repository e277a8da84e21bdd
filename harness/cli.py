"""The command line: Hydra composes, errors are one line, and the exit code tells how it went.

0 ok, 2 the request is off, 3 nothing was measured, 4 a cell failed, 130 stopped by the user.
"""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console

from harness.build import build
from harness.cell import prepare, run_cell
from harness.fidelity_picture import pictures
from harness.loggers.send import send
from harness.record import RunRecord
from harness.settings import Settings, validated
from harness.stored.trials import RECORD, UNNAMED, write_trial
from harness.studies.base import Study
from harness.table import render
from harness.tracing import finished_trace, trace_path

CONF = Path(__file__).resolve().parent.parent / "conf"
OK, USAGE, NOTHING, FAILED, INTERRUPTED = 0, 2, 3, 4, 130


def main() -> int:
    """Run the cells that the command line asks for; return the worst exit code."""
    # Hydra then raises what it would print in its own way, with a traceback.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")
    def job(config: DictConfig) -> None:
        codes.append(_run(config))

    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        _complain(_one_line(error))
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(codes, default=OK)


def _run(config: DictConfig) -> int:
    console = Console(soft_wrap=False)
    overrides = list(HydraConfig.get().overrides.task)
    try:
        composed = _resolved(config)
        settings = validated(composed)
        if settings.study is not None:
            study: Study = build(settings.study, "study")
            return study.run(settings, console)
        prepared = prepare(settings)
    except (ValueError, OmegaConfBaseException) as error:
        _complain(_one_line(error))
        return USAGE
    finished = run_cell(prepared, composed, overrides, sys.argv, console, _experiment(settings))
    record = finished.record
    folder = write_trial(record, Path(settings.results), finished.requests, pictures(record))
    path = folder / RECORD
    render(record, console)
    if prepared.recorder is not None and record.run.status == "ok":
        trace = finished_trace(
            prepared.recorder,
            prepared.settings,
            prepared.algorithm,
            prepared.plan,
            prepared.info,
            record.system.model.parameters or 0,
        )
        where = trace_path(settings, path)
        trace.save(where)
        console.print(f"trace: {where}", soft_wrap=True, highlight=False, markup=False)
    console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    if reason := send(folder, settings.logger):
        _complain(f"logger={settings.logger.name}: {reason}; python harness/sync.py sends it later")
    return _exit_code(record)


def _experiment(settings: Settings) -> str:
    chosen = HydraConfig.get().runtime.choices.get("experiment")
    return settings.sweep.name or (str(chosen) if chosen else UNNAMED)


def _resolved(config: DictConfig) -> dict[str, Any]:
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _exit_code(record: RunRecord) -> int:
    if record.run.status == "interrupted":
        return INTERRUPTED
    if record.run.status != "ok":
        for error in record.errors:
            _complain(f"{error.kind} ({error.stage}): {error.message}")
        return FAILED
    return OK if record.workload.n_done else NOTHING


def _complain(message: str) -> None:
    print(f"kvloom: {' '.join(message.split())}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    """Hydra's message, cut to what a user can act on."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set; give {error.full_key}=..."
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        names = ", ".join(one for one in error.options if "/" not in one)
        return f"{group}={name} is unknown; choose {group}={names}"
    first = str(error).strip().splitlines()[0].rstrip(".")
    if isinstance(error, ConfigCompositionException):
        return f"{first}: there is no such key; --cfg job prints all keys"
    return first
