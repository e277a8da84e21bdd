"""Scored tokens: their log-probabilities are the model's own, and no answer changes by them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from backends.base import Request
from harness.trial import drive
from tests.backends.engines import SLOTS, Pair, engine_over, pair_of, requests, tokens
from tests.laws.configs import settings_of

# Less and more than a chunk; the token after the prompt alone; the whole prompt; none.
NUM_SCORED = (5, 70, 1, 16, 0)


def scored_requests() -> list[Request]:
    """Prompts whose last tokens, and one that would follow them, are scored."""
    made = []
    for request, count in zip(requests(max_new_tokens=1), NUM_SCORED, strict=True):
        ids, count = request.prompt_ids, min(count, len(request.prompt_ids))
        following = (*ids[len(ids) - count + 1 :], 7) if count else ()
        made.append(replace(request, scored_ids=following))
    return made


@torch.inference_mode()
def own_scores(pair: Pair, request: Request) -> list[tuple[float, bool]]:
    """By the library's own attention, over the whole prompt in one pass."""
    ids = torch.tensor([request.prompt_ids])
    rows = pair.own(input_ids=ids).logits[0, len(request.prompt_ids) - len(request.scored_ids) :]
    asked = zip(rows.double().log_softmax(-1), request.scored_ids, strict=True)
    return [(float(row[token]), int(row.argmax()) == token) for row, token in asked]


def assert_equal(found: Sequence[tuple[float, bool]], wanted: Sequence[tuple[float, bool]]) -> None:
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    assert [log for log, _ in found] == pytest.approx([log for log, _ in wanted], abs=1e-4)


@pytest.mark.parametrize("chunk_tokens", [16, 64, 512])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral with a window"])
def test_scores_are_those_of_the_models_own_attention(family: str, chunk_tokens: int) -> None:
    pair = pair_of(family)
    engine = engine_over(pair, settings_of("dense", max_batch=SLOTS, chunk_tokens=chunk_tokens))
    asked = scored_requests()
    heard = drive(engine.backend, asked)
    assert sum(len(one.scores) for one in heard.values()) > 50
    for request in asked:
        assert_equal(heard[request.uid].scores, own_scores(pair, request))
    assert engine.backend.take_scores() == {}


def test_a_token_that_the_model_would_say_is_greedy() -> None:
    engine = engine_over(pair_of("qwen3"))
    (plain,) = drive(engine.backend, [requests()[0]]).values()
    first, second = plain.token_ids[:2]
    asked = replace(requests()[0], max_new_tokens=1)
    said = replace(asked, prompt_ids=(*asked.prompt_ids, first), scored_ids=(first, second))
    other = replace(said, uid="other", scored_ids=(first, second + 1))
    heard = drive(engine.backend, [said, other])
    assert [one.is_greedy for one in heard[said.uid].scores] == [True, True]
    assert [one.is_greedy for one in heard["other"].scores] == [True, False]


@pytest.mark.parametrize("algo", ["dense", "quest"])
def test_what_is_scored_beside_them_changes_no_answer(algo: str) -> None:
    settings = settings_of(algo, max_batch=SLOTS)
    alone = engine_over(pair_of("qwen3"), settings).run(requests())
    scored = [replace(one, uid=f"scored {one.uid}") for one in scored_requests()]
    mixed = [one for pair in zip(scored, requests(), strict=True) for one in pair]
    beside = engine_over(pair_of("qwen3"), settings).run(mixed)
    assert {uid: said for uid, said in tokens(beside).items() if uid in alone} == tokens(alone)


def test_an_answer_ends_where_its_caller_says() -> None:
    engine = engine_over(pair_of("qwen3"))
    whole = tokens(engine.run(requests()))["0"]
    for length in (1, 3, len(whole)):
        ending = requests()[0]
        ending = replace(ending, ends=lambda answer, length=length: len(answer) == length)
        (heard,) = drive(engine.backend, [ending]).values()
        assert (heard.token_ids, heard.finish) == (whole[:length], "stop")
