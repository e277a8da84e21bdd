"""From answers to points: score and KV read of each algorithm, budget and length."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from harness.accuracy import wilson

BASELINE = "dense"


def told_apart(
    answers: Sequence[dict[str, Any]], least_dense: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Answers to tasks that tell algorithms apart, and the tasks, by length, that do not.

    What dense attention does not solve says nothing of what reads less.
    """
    solved: dict[tuple[int, str], list[float]] = {}
    for one in answers:
        if one["algo"] == BASELINE:
            solved.setdefault((one["length"], one["task"]), []).append(one["score"])
    missed = {key: fmean(scores) for key, scores in solved.items() if fmean(scores) < least_dense}
    kept = [one for one in answers if (one["length"], one["task"]) not in missed]
    left_out = [
        {"length": length, "task": task, "dense": score} for (length, task), score in missed.items()
    ]
    return kept, left_out


def summarised(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A point for each algorithm, budget and length, those on the front marked."""
    groups: dict[tuple[int, str, int | None], list[dict[str, Any]]] = {}
    for answer in answers:
        groups.setdefault((answer["length"], answer["algo"], answer["budget"]), []).append(answer)
    dense = {
        length: _bytes_per_step(group)
        for (length, algo, _), group in groups.items()
        if algo == BASELINE
    }
    points = [_point(key, group, dense[key[0]]) for key, group in groups.items()]
    for point in points:
        point["front"] = on_front(point, points)
    return points


def on_front(point: dict[str, Any], points: Sequence[dict[str, Any]]) -> bool:
    """Whether no other point of its length is better in one way and not worse in the other."""
    if not _counts(point):
        return False
    return not any(
        other["score"] >= point["score"]
        and other["kv_read"] <= point["kv_read"]
        and (other["score"], -other["kv_read"]) != (point["score"], -point["kv_read"])
        for other in points
        if _counts(other) and other["length"] == point["length"]
    )


def _counts(point: dict[str, Any]) -> bool:
    return "score" in point and point["kv_read"] is not None and not point["bound"]


def _point(
    key: tuple[int, str, int | None], group: Sequence[dict[str, Any]], dense: float | None
) -> dict[str, Any]:
    length, algo, budget = key
    who = {"length": length, "algo": algo, "budget": budget}
    refused = [answer["refused"] for answer in group if "refused" in answer]
    if refused:
        return who | {"refused": refused[0]}
    by_task: dict[str, list[float]] = {}
    for answer in group:
        by_task.setdefault(answer["task"], []).append(answer["score"])
    score, read = fmean(fmean(scores) for scores in by_task.values()), _bytes_per_step(group)
    interval = wilson(score, len(group))
    context = sum(answer["slots_context"] for answer in group)
    return who | {
        "bound": any(answer.get("bound", False) for answer in group),
        "score": score,
        "interval": None if interval is None else [interval.lo, interval.hi],
        "n": len(group),
        "tasks": {task: fmean(scores) for task, scores in by_task.items()},
        "kv_read": None if read is None or not dense else read / dense,
        "bytes_per_step": read,
        "wanted": sum(answer["slots_wanted"] for answer in group) / context if context else None,
        "index_bytes": max(answer["index_bytes"] for answer in group),
        "tokens_per_answer": fmean(answer["tokens"] for answer in group),
    }


def _bytes_per_step(group: Sequence[dict[str, Any]]) -> float | None:
    steps = sum(answer.get("decode_steps", 0) for answer in group)
    return sum(answer["bytes_read"] for answer in group) / steps if steps else None
