"""What arms answer to the same requests, in batches, after contexts that were computed once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from backends.base import TokenEvent
from backends.context import Context, Tape
from backends.transformers.engine import TransformersBackend
from harness.preflight import plan_for
from harness.prepared import DENSE, Prepared
from harness.settings import Settings
from harness.studies.algorithm_arms import Arm
from harness.system import assemble
from harness.workload import Item
from sparse_algos.base import Algorithm


@dataclass(frozen=True)
class Bench:
    """A model, and the requests of one length."""

    prepared: Prepared
    model: Any
    length: int


def dense_answers(bench: Bench, items: Sequence[Item]) -> Iterator[tuple[dict[str, Any], Context]]:
    """Dense's answer to each request, and what its context brought to attention."""
    for item in items:
        tape = Tape()
        engine = _engine(bench, bench.prepared.settings, DENSE)
        engine.attention.tape = tape
        engine.submit([item.request])
        [answer] = _serve(bench, engine, [item])
        answer |= {"algo": DENSE.name, "budget": None}
        yield answer, tape.take().part(0, item.request.num_context)


def arm_answers(
    bench: Bench, items: Sequence[Item], arm: Arm, contexts: Sequence[Context]
) -> list[dict[str, Any]]:
    """An arm's answers to a batch of requests, or to each why it has none."""
    who = {"algo": arm.name, "budget": arm.budget}
    if (algorithm := arm.algorithm) is None:
        return [who | _about(bench, item) | {"refused": arm.refused} for item in items]
    try:
        engine = _engine(bench, arm.settings, algorithm)
    except ValueError as error:
        return [who | _about(bench, item) | {"refused": str(error)} for item in items]
    if algorithm.prefill is None:
        for item, context in zip(items, contexts, strict=True):
            engine.submit_after(item.request, context)
    else:
        engine.submit([item.request for item in items])
    retrieve = algorithm.retrieve
    bound = {"bound": retrieve is not None and retrieve.bound}
    return [who | answer | bound for answer in _serve(bench, engine, items)]


def _engine(bench: Bench, settings: Settings, algorithm: Algorithm) -> TransformersBackend:
    """An engine of its own memory."""
    prepared = bench.prepared
    plan = plan_for(
        settings, algorithm, prepared.info, prepared.workload.most_tokens, prepared.device
    )
    return assemble(settings, algorithm, plan, prepared.info, bench.model, prepared.kernel)


def _serve(
    bench: Bench, engine: TransformersBackend, items: Sequence[Item]
) -> list[dict[str, Any]]:
    """Run submitted requests to their end.

    What the engine counts for all of them at once (slots, bytes of the index) is shared alike.
    """
    said: dict[str, list[int]] = {item.request.uid: [] for item in items}
    for event in _events(engine):
        said[event.uid].append(event.token_id)
    reads, decode = engine.take_reads(), engine.counters.decode
    shared = {
        "slots_wanted": decode.slots_wanted / len(items),
        "slots_context": decode.slots_context / len(items),
        "index_bytes": engine.peak_bytes().get("index", 0) / len(items),
    }
    page_bytes = engine.attention.memory.geometry.page_bytes
    answers = []
    for item in items:
        token_ids, uid = said[item.request.uid], item.request.uid
        answer = bench.prepared.tokenizer.decode(token_ids, skip_special_tokens=True)
        measured = {
            "uid": item.source.uid,
            "answer": answer,
            "score": bench.prepared.workload.task.score(item.source, answer),
            "tokens": len(token_ids),
            "decode_steps": len(token_ids) - 1,
            "bytes_read": reads[uid].pages * page_bytes,
        }
        answers.append(_about(bench, item) | measured | shared)
    return answers


def _about(bench: Bench, item: Item) -> dict[str, Any]:
    return {"length": bench.length, "task": item.source.task}


@torch.inference_mode()
def _events(engine: TransformersBackend) -> Iterator[TokenEvent]:
    while engine.busy:
        yield from engine.step()
