"""Runs the same requests through each arm, interleaved, all arms warm."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from backends.base import Backend, Request, TokenEvent, TokenScore
from backends.finish import Finish
from harness.encoding import cut_at
from harness.outcome import Likelihood, Outcome
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
    names = list(arms)
    for number, round_items in enumerate(_rounds(workload.groups, at_once)):
        for name in names if number % 2 == 0 else names[::-1]:
            heard = drive(arms[name], [item.request for item in round_items])
            for item in round_items:
                yield _outcome(name, item, heard[item.request.uid], workload, tokenizer)


def _rounds(groups: Sequence[Sequence[Item]], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(groups), size):
        yield [item for group in groups[start : start + size] for item in group]


def drive(backend: Backend, requests: Sequence[Request]) -> dict[str, Heard]:
    """Run requests through a backend to the end; what was heard of each, by uid.

    One that follows another starts when that has ended.
    """
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
    return heard


def _outcome(arm: str, item: Item, heard: Heard, workload: Workload, tokenizer: Any) -> Outcome:
    said = tokenizer.decode(heard.token_ids, skip_special_tokens=True)
    likelihood = _likelihood(heard.scores)
    answer = cut_at(said, item.source.stop_strings) if likelihood is None else str(likelihood)
    return Outcome(
        uid=item.source.uid,
        task=item.source.task,
        arm=arm,
        answer=answer,
        score=None if heard.error else workload.task.score(item.source, answer),
        num_prompt_tokens=len(item.request.prompt_ids),
        num_output_tokens=len(heard.token_ids),
        started_s=heard.started_s,
        token_times_s=() if heard.error else tuple(heard.times_s),
        finish=heard.finish,
        error=heard.error,
        likelihood=likelihood,
        question=item.source.question_number,
    )


def _likelihood(scores: Sequence[TokenScore]) -> Likelihood | None:
    if not scores:
        return None
    total = sum(score.log_probability for score in scores)
    return Likelihood(total, all(score.is_greedy for score in scores))
