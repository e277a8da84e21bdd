"""Every algorithm at every budget and length, on the same contexts: accuracy against KV read."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from backends.base import TokenEvent
from backends.context import Context, Tape
from backends.transformers.engine import TransformersBackend
from harness.cell import prepare
from harness.environment import environment
from harness.preflight import plan_for
from harness.prepared import DENSE, Prepared
from harness.progress import progress
from harness.settings import Component, Settings
from harness.studies.algorithm_arms import Arm, arms_of
from harness.studies.algorithm_points import summarised
from harness.studies.algorithms_picture import draw
from harness.studies.algorithms_table import render_algorithms
from harness.studies.base import Study
from harness.studies.findings import keep_findings
from harness.studies.kept import Kept
from harness.system import assemble, load
from harness.workload import Item

RULES = {
    "context": "prefilled densely, once for all algorithms; those with a prefill pattern do their "
    "own",
    "budget": "tokens that a kv head reads per query, or holds",
    "KV read": "whole pages that attention read per decode step, by those of dense",
    "score": "mean over tasks; an answer's score as in a run",
    "front": "no other algorithm reads no more KV and scores higher, or reads less and scores as "
    "high; bounds are left out",
}


@dataclass(frozen=True)
class Bench:
    """A model, and the requests of one length."""

    prepared: Prepared
    model: Any
    length: int


@dataclass(frozen=True, kw_only=True)
class Algorithms(Study):
    """Dense, and each algorithm with each budget, over the same requests of each length.

    algorithms: options of conf/algo, None for all; budgets: tokens; lengths: of prompts;
    samples: requests of each task, by length; cells: where finished requests are kept, so that a
    study that was stopped goes on where it was.
    """

    algorithms: Sequence[str] | None
    budgets: Sequence[int]
    lengths: Sequence[int]
    samples: Sequence[int]
    cells: str

    def __post_init__(self) -> None:
        """Check the settings."""
        for key in ("budgets", "lengths"):
            values = list(getattr(self, key))
            if not values or min(values) < 1 or sorted(set(values)) != values:
                raise ValueError(f"study.{key}={values} must be ascending whole numbers above 0")
        if len(self.samples) != len(self.lengths) or min(self.samples) < 1:
            raise ValueError(
                f"study.samples={list(self.samples)} must give a number of requests for each of "
                f"study.lengths={list(self.lengths)}"
            )

    def run(self, settings: Settings, console: Console) -> int:
        """See Study."""
        if settings.protocol.num_questions > 1:
            raise ValueError(
                f"protocol.num_questions={settings.protocol.num_questions}: the study takes a "
                "context once for each question; use 1, or experiment=shared_context"
            )
        kept = Kept(Path(self.cells))
        answers = []
        for length, num_samples in zip(self.lengths, self.samples, strict=True):
            answers += self._at(length, num_samples, settings, kept, console)
        found = {
            "kind": "algorithms",
            "rules": RULES,
            "model": settings.model.model_dump(mode="json"),
            "task": settings.task.model_dump(mode="json", by_alias=True),
            "budgets": list(self.budgets),
            "lengths": list(self.lengths),
            "points": summarised(answers),
            "environment": environment().model_dump(mode="json"),
        }
        pictures = draw(found)
        files = {"algorithms.json": json.dumps(found, indent=1).encode()} | pictures
        folder = keep_findings(Path(settings.results), "algorithms", files)
        render_algorithms(found, console)
        if not pictures:
            console.print(
                "no picture: matplotlib is not installed; pip install 'kvloom[report]'",
                markup=False,
            )
        for name in files:
            console.print(str(folder / name), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _at(
        self, length: int, num_samples: int, settings: Settings, kept: Kept, console: Console
    ) -> list[dict[str, Any]]:
        """What each arm answered to the requests of one length."""
        bench = _bench(settings, length, num_samples)
        info = bench.prepared.info
        arms = list(arms_of(bench.prepared.settings, self.algorithms, self.budgets, info))
        items = bench.prepared.workload.items
        answers: list[dict[str, Any]] = []
        with progress(total=len(items), unit=f"requests of {length}", console=console) as advance:
            for item in items:
                path = kept.path(_digest(bench, item), f"{length}-{item.source.uid}")
                answers += _answers(bench, item, arms, kept, path)
                advance(item.source.task)
        return answers


def _bench(settings: Settings, length: int, num_samples: int) -> Bench:
    raw = settings.task.model_dump(by_alias=True) | {"length": length, "num_samples": num_samples}
    update = {"task": Component.model_validate(raw)}
    prepared = prepare(settings.model_copy(update=update))
    return Bench(prepared, load(prepared.settings, prepared.info, prepared.device), length)


def _digest(bench: Bench, item: Item) -> str:
    """Of all that the answers depend on beside the algorithms."""
    groups = {"partition", "tier", "backend", "model", "protocol"}
    dumped = bench.prepared.settings.model_dump(mode="json", by_alias=True, include=groups)
    request = [*item.request.prompt_ids, item.request.num_context, item.request.max_new_tokens]
    return hashlib.sha256(json.dumps([dumped, request], sort_keys=True).encode()).hexdigest()


def _answers(
    bench: Bench, item: Item, arms: Sequence[Arm], kept: Kept, path: Path
) -> list[dict[str, Any]]:
    """The answers of all arms to one request, those that are kept and those that are not yet."""
    done = kept.read(path)
    missing = [arm for arm in arms if arm.key not in done]
    if missing or DENSE.name not in done:
        tape = Tape()
        engine = _engine(bench, None)
        engine.attention.tape = tape
        engine.submit([item.request])
        done[DENSE.name] = _serve(bench, engine, item) | {"algo": DENSE.name, "budget": None}
        context = tape.take().part(0, item.request.num_context)
        for arm in missing:
            done[arm.key] = _answer(bench, item, arm, context)
        kept.write(path, done)
    return [done[key] for key in (DENSE.name, *(arm.key for arm in arms))]


def _answer(bench: Bench, item: Item, arm: Arm, context: Context) -> dict[str, Any]:
    who = {"algo": arm.name, "budget": arm.budget}
    if arm.algorithm is None:
        return who | _refused(bench, item, arm.refused)
    try:
        engine = _engine(bench, arm)
    except ValueError as error:
        return who | _refused(bench, item, str(error))
    if arm.algorithm.prefill is None:
        engine.submit_after(item.request, context)
    else:
        engine.submit([item.request])
    retrieve = arm.algorithm.retrieve
    bound = retrieve is not None and retrieve.bound
    return who | _serve(bench, engine, item) | {"bound": bound}


def _refused(bench: Bench, item: Item, reason: str | None) -> dict[str, Any]:
    return {"length": bench.length, "task": item.source.task, "refused": reason}


def _engine(bench: Bench, arm: Arm | None) -> TransformersBackend:
    """An engine of its own memory: dense where there is no arm."""
    prepared = bench.prepared
    settings = prepared.settings if arm is None else arm.settings
    algorithm = DENSE if arm is None or arm.algorithm is None else arm.algorithm
    plan = plan_for(
        settings, algorithm, prepared.info, prepared.workload.most_tokens, prepared.device
    )
    return assemble(settings, algorithm, plan, prepared.info, bench.model, prepared.kernel)


def _serve(bench: Bench, engine: TransformersBackend, item: Item) -> dict[str, Any]:
    """Run a submitted request to its end."""
    said = [event.token_id for event in _events(engine)]
    answer = bench.prepared.tokenizer.decode(said, skip_special_tokens=True)
    decode = engine.counters.decode
    return {
        "length": bench.length,
        "task": item.source.task,
        "uid": item.source.uid,
        "answer": answer,
        "score": bench.prepared.workload.task.score(item.source, answer),
        "tokens": len(said),
        "decode_steps": decode.steps,
        "bytes_read": decode.bytes_read,
        "slots_wanted": decode.slots_wanted,
        "slots_context": decode.slots_context,
        "index_bytes": engine.peak_bytes().get("index", 0),
    }


@torch.inference_mode()
def _events(engine: TransformersBackend) -> Iterator[TokenEvent]:
    while engine.busy:
        yield from engine.step()
