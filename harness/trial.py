"""Runs the same requests through each arm, interleaved, all arms warm."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from backends.base import Backend, KVRead, Request, TokenEvent, TokenScore
from backends.finish import Finish
from harness.encoding import cut_at
from harness.metric import quotient
from harness.outcome import Likelihood, Outcome
from harness.tasks.base import Task
from harness.workload import Item, Workload


@dataclass
class Heard:
    """Tokens of one request as they come."""

    started_s: float
    token_ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    finish: Finish = "length"
    scores: tuple[TokenScore, ...] = ()
    error: str | None = None
    read: KVRead | None = None

    def hear(self, event: TokenEvent) -> None:
        """Take one token."""
        self.token_ids.append(event.token_id)
        self.times_s.append(event.time_s)
        self.finish = event.finish or self.finish


def warm_up(arms: Mapping[str, Backend], request: Request) -> None:
    """Run one request through every arm, then forget what it counted."""
    for backend in arms.values():
        drive(backend, [request])
        backend.reset_counters()


def run_interleaved(
    arms: Mapping[str, Backend],
    workload: Workload,
    tokenizer: Any,
    *,
    at_once: int,
) -> Iterator[Outcome]:
    """Rounds of `at_once` contexts through every arm; the arm that goes first alternates."""
    for number, items in enumerate(rounds_of(workload.groups, at_once)):
        yield from run_round(arms, number, items, workload.task, tokenizer)


def rounds_of(groups: Sequence[Sequence[Item]], at_once: int) -> list[list[Item]]:
    """Items that are served together, in order; groups: of items that ask the same context."""
    return [
        [item for group in groups[start : start + at_once] for item in group]
        for start in range(0, len(groups), at_once)
    ]


def run_round(
    arms: Mapping[str, Backend], number: int, items: Sequence[Item], task: Task, tokenizer: Any
) -> Iterator[Outcome]:
    """One round through every arm; number: of it, the arm that goes first alternates."""
    names = list(arms)
    for name in names if number % 2 == 0 else names[::-1]:
        heard = drive(arms[name], [item.request for item in items])
        for item in items:
            yield _outcome(name, item, heard[item.request.uid], task, tokenizer)


def drive(backend: Backend, requests: Sequence[Request]) -> dict[str, Heard]:
    """Run requests through a backend to the end; what was heard of each, by uid.

    One that follows another starts when that has ended.
    """
    # What it served before, driven by another, is of no request of ours.
    backend.take_reads()
    started_s = perf_counter()
    heard = {request.uid: Heard(started_s) for request in requests}
    next_of = {one.follows: one.uid for one in requests if one.follows is not None}
    backend.submit(requests)
    while backend.busy:
        for event in backend.step():
            heard[event.uid].hear(event)
            if event.finish is not None and event.uid in next_of:
                heard[next_of[event.uid]].started_s = event.time_s
        for uid, reason in backend.take_failures().items():
            heard[uid].finish, heard[uid].error = "error", reason
        for uid, scores in backend.take_scores().items():
            heard[uid].scores = scores
    # After the last token: nobody waits for these sums.
    for uid, read in backend.take_reads().items():
        heard[uid].read = read
    return heard


def _outcome(arm: str, item: Item, heard: Heard, task: Task, tokenizer: Any) -> Outcome:
    said = tokenizer.decode(heard.token_ids, skip_special_tokens=True)
    likelihood = _likelihood(heard.scores)
    answer = cut_at(said, item.source.stop_strings) if likelihood is None else str(likelihood)
    return Outcome(
        uid=item.source.uid,
        task=item.source.task,
        arm=arm,
        answer=answer,
        score=None if heard.error else task.score(item.source, answer),
        num_prompt_tokens=len(item.request.prompt_ids),
        num_output_tokens=len(heard.token_ids),
        started_s=heard.started_s,
        token_times_s=() if heard.error else tuple(heard.times_s),
        finish=heard.finish,
        error=heard.error,
        likelihood=likelihood,
        question=item.source.question_number,
        kv_read_share=_kv_read_share(heard),
    )


def _kv_read_share(heard: Heard) -> float | None:
    """None also of an answer that took no decode step, or broke off."""
    if heard.read is None or heard.error is not None:
        return None
    return quotient(heard.read.pages, heard.read.dense_pages)


def _likelihood(scores: Sequence[TokenScore]) -> Likelihood | None:
    if not scores:
        return None
    total = sum(score.log_probability for score in scores)
    return Likelihood(total, all(score.is_greedy for score in scores))
