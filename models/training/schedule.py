"""The schedule file: which stages there are, in order, and what each starts from."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from models.training.dialect import Dialect, KeyKind
from models.training.tasks import NEEDLE_TASKS, TASKS
from models.training.train import BATCH_TOKENS, Phase, Stage

DEFAULT_SCHEDULE = Path(__file__).with_name("schedule.toml")

Start = Literal["structured_init", "previous", "front_layers", "wide_lookback", "deeper"]
Vocabulary = Literal["words", "bytes", "capitals"]


@dataclass(frozen=True, kw_only=True)
class ScheduledStage:
    """A stage, its name, and the surgery and vocabulary it begins with."""

    name: str
    start: Start
    vocabulary: Vocabulary
    stage: Stage


def read_schedule(path: Path, scale: float) -> list[ScheduledStage]:
    """All stages of a schedule file, with `scale` times the tokens it gives."""
    if not scale > 0:
        raise ValueError(f"scale={scale} leaves nothing to train; give a scale above 0")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    dialects = {name: Dialect.from_mapping(values) for name, values in content["dialects"].items()}
    return [_scheduled(values, dialects, scale) for values in content["stages"]]


def _scheduled(
    values: Mapping[str, Any], dialects: Mapping[str, Dialect], scale: float
) -> ScheduledStage:
    name = values["name"]
    choices = {
        "start": get_args(Start),
        "vocabulary": get_args(Vocabulary),
        "dialect": tuple(dialects),
    }
    for key, known in choices.items():
        if values[key] not in known:
            raise ValueError(f"stage {name}: {key}={values[key]!r}; take one of {known}")
    for phase in values["phases"]:
        for task in phase["mix"]:
            _check_task(name, task)
    return ScheduledStage(
        name=name,
        start=values["start"],
        vocabulary=values["vocabulary"],
        stage=Stage(
            phases=[_phase(phase, scale) for phase in values["phases"]],
            decay_share=values["decay_share"],
            batch_tokens=values.get("batch_tokens", BATCH_TOKENS),
            probe_tokens=values["probe_tokens"],
            focused=values.get("focused", False),
            dialect=dialects[values["dialect"]],
        ),
    )


def _phase(values: Mapping[str, Any], scale: float) -> Phase:
    settings = dict(values)
    num_tokens = max(1, round(settings.pop("tokens") * scale))
    return Phase(num_tokens=num_tokens, **settings)


def _check_task(stage: str, task: str) -> None:
    name, _, keys = task.partition("/")
    if name not in TASKS:
        raise ValueError(f"stage {stage}: task {task!r} is unknown; take one of {sorted(TASKS)}")
    if keys and (name not in NEEDLE_TASKS or keys not in set(KeyKind)):
        raise ValueError(f"stage {stage}: {task!r} names no key kind; know {list(KeyKind)}")
