"""Cells from the findings of a study, and splits of a step from a benchmark: read defensively."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from harness.reporting.cells import ArmShown, CellShown, TrialShown
from harness.reporting.gather import Finding, splits_of
from harness.reporting.readings import Reading

EXPERIMENT = "study: algorithms"
BASELINE = "dense"
COUNTED = "counted on real tensors"


def study_cells(study: Finding) -> list[CellShown]:
    """A cell for each algorithm, length and budget; a study takes no times."""
    points = [point for point in study.content["points"] if isinstance(point, dict)]
    return [_cell(study, number, point) for number, point in enumerate(points) if "algo" in point]


def _cell(study: Finding, number: int, point: Mapping[str, Any]) -> CellShown:
    algo, refused = str(point["algo"]), point.get("refused")
    arms = {} if refused is not None else {algo: _arm(point)}
    trial = TrialShown(
        place=study.place,
        uid=str(number),
        started="",
        status="ok" if refused is None else "incompatible",
        reasons=() if refused is None else (str(refused),),
    )
    return CellShown(
        id=f"study-{number}",
        what=_axes(study, algo, point),
        group=_group(study, point),
        baseline=BASELINE,
        trials=(trial,),
        arms=arms,
        valid=refused is None,
        bound=bool(point.get("bound", False)),
        command="python harness/run.py experiment=algorithms",
        env=_env(study),
    )


def _arm(point: Mapping[str, Any]) -> ArmShown:
    n = point["n"] if isinstance(point.get("n"), int) else 0
    low, high = point.get("interval") or (None, None)
    found = {
        "acc": _reading(point.get("score"), n, "mean over tasks; 95 % wilson", low, high),
        "kv": _reading(point.get("bytes_per_step"), n, COUNTED),
        "kv_ratio": _reading(point.get("kv_read"), n, COUNTED),
        "index": _reading(point.get("index_bytes"), n, COUNTED),
        "tokens": _reading(point.get("tokens_per_answer"), n, "mean, scored by the client"),
    }
    tasks = point.get("tasks")
    scores = tasks if isinstance(tasks, dict) else {}
    by_task = {str(name): _reading(score, n, "mean score") for name, score in scores.items()}
    return ArmShown(
        readings={key: one for key, one in found.items() if one is not None},
        tasks={name: one for name, one in by_task.items() if one is not None},
    )


def _reading(
    value: Any, n: int, how: str, low: float | None = None, high: float | None = None
) -> Reading | None:
    if not isinstance(value, int | float) or not isfinite(value):
        return None
    return Reading(value=float(value), lo=low, hi=high, n=n, how=how)


def _axes(study: Finding, algo: str, point: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experiment": EXPERIMENT,
        "algo": algo,
        "budget": point.get("budget"),
        "tier": "hbm",
        "model": _model(study),
        "task": _task(study),
        "length": point.get("length"),
        "requests": point.get("n"),
    }


def _group(study: Finding, point: Mapping[str, Any]) -> tuple[str, ...]:
    length = point.get("length")
    tokens = f"{length:,} tokens" if isinstance(length, int) else "unknown length"
    parts = (f"{_task(study)}, {tokens}", _model(study), f"{point.get('n', '?')} requests")
    return (*parts, "no times", EXPERIMENT, "counted", study.place, "", "")


def _model(study: Finding) -> str:
    model = study.content.get("model")
    return str(model.get("path") or model.get("shape") or "") if isinstance(model, dict) else ""


def _task(study: Finding) -> str:
    task = study.content.get("task")
    target = str(task.get("_target_", "")) if isinstance(task, dict) else ""
    return target.rpartition(".")[2].lower() or "task"


def _env(study: Finding) -> dict[str, Any]:
    env = study.content.get("environment")
    env = env if isinstance(env, dict) else {}
    git, cpu = env.get("git") or {}, env.get("cpu") or {}
    return {
        "commit": str(git.get("sha", "unknown"))[:12],
        "hardware": f"{cpu.get('model', 'unknown')}, {cpu.get('cores_usable', '?')} cores",
        "python": env.get("python"),
    }


def splits(finding: Finding) -> list[dict[str, Any]]:
    """Milliseconds of a decode step by what it did, for each algorithm and batch."""
    return [
        {
            "algo": algo,
            "batch": batch,
            "parts": {
                str(name): ms
                for name, ms in one["split_ms"].items()
                if name != "step" and isinstance(ms, int | float) and isfinite(ms)
            },
            "bound": bool(one.get("bound", False)),
            "title": str(finding.content.get("title", "")),
            "place": finding.place,
        }
        for batch, algo, one in splits_of(finding.content)
    ]
