"""A context that is asked several questions: read once, then asked as if for the first time."""

from dataclasses import replace

import pytest
import torch

from backends.base import Request
from tests.backends.engines import SLOTS, VOCAB, Engine, engine_over, pair_of, requests, tokens
from tests.laws.configs import settings_of
from tests.laws.groups import RETRIEVING

CONTEXT, BUDGET, PLENTY = 150, 64, 400
# Off page edges and block edges, of unequal lengths.
QUESTIONS = (23, 9, 14)
SPARSE, DENSE = "question_sparse", "question_dense"
protocols = pytest.mark.parametrize("protocol", [SPARSE, DENSE])


def questions(protocol: str, name: str = "") -> list[Request]:
    """Requests on one context, each but the first following the one before it."""
    generator = torch.Generator().manual_seed(len(name) + 5)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (count,), generator=generator).tolist())

    context, chain = draw(CONTEXT), []
    for number, count in enumerate(QUESTIONS):
        prompt_ids = (*context, *draw(count))
        asked = replace(
            requests()[0],
            uid=f"{name}{number}",
            prompt_ids=prompt_ids,
            num_context=CONTEXT if protocol == SPARSE else len(prompt_ids),
            num_shared=CONTEXT,
            follows=chain[-1].uid if chain else None,
        )
        chain.append(asked)
    return chain


def alone(request: Request) -> Request:
    """The same request on a context of its own."""
    return replace(request, follows=None)


def engine_of(algo: str, budget: int | None = BUDGET, **sizes) -> Engine:
    return engine_over(pair_of("qwen3"), settings_of(algo, max_batch=SLOTS, **sizes), budget)


def answers(algo: str, wanted: list[Request], budget: int | None = BUDGET) -> dict[str, list[int]]:
    """Answers of requests that run one at a time, or one after the other on one context."""
    engine, said = engine_of(algo, budget), {}
    for group in [wanted] if wanted[-1].follows else [[one] for one in wanted]:
        said |= tokens(engine.run(group))
    return said


@protocols
@pytest.mark.parametrize("algo", ["dense", *RETRIEVING])
def test_a_question_that_follows_is_answered_as_if_it_were_the_first(algo, protocol):
    chain = questions(protocol)
    fresh = answers(algo, [alone(one) for one in chain])
    assert answers(algo, chain) == fresh
    assert len({tuple(said) for said in fresh.values()}) > 1, "all questions have one answer"
