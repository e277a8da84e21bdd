"""Dense attention through our pages is the model's own attention."""

from dataclasses import replace

import pytest
import torch

from backends.attention.cpu import Cpu
from memory_tiers.native import UnavailableError
from tests.backends.engines import (
    FAMILIES,
    LENGTHS,
    NEW_TOKENS,
    SLOTS,
    Engine,
    Pair,
    engine_over,
    own_logits,
    pair_of,
    requests,
    tokens,
)
from tests.laws.configs import ALGORITHMS, DENSE_PREFILL, settings_of
from tests.laws.groups import GREEDY

TOLERANCE = 1e-4
families = pytest.mark.parametrize("family", FAMILIES)


def assert_own_logits(pair: Pair, engine: Engine, answers: dict[str, list[int]]) -> None:
    """Every logit of every step is the model's own, and every token its argmax, by a margin."""
    for request in requests():
        answer = answers[request.uid]
        assert len(answer) == NEW_TOKENS
        own_AV = own_logits(pair, request.prompt_ids, answer)
        off = (torch.stack(engine.logits[request.uid]) - own_AV).abs().max()
        assert off <= TOLERANCE, f"request {request.uid} is off by {off:.1e}"
        best_A2 = own_AV.topk(2).values
        assert (best_A2[:, 0] - best_A2[:, 1] > 2 * TOLERANCE).all(), "a tie: choose another seed"
        assert own_AV.argmax(-1).tolist() == answer
    assert len({token for answer in answers.values() for token in answer}) > 10, "all the same"


@families
@pytest.mark.parametrize("chunk_tokens", [7, 64, 1000])
def test_dense_through_pages_is_the_models_own_attention(family, chunk_tokens):
    pair = pair_of(family)
    settings = settings_of("dense", max_batch=SLOTS, chunk_tokens=chunk_tokens)
    engine = engine_over(pair, settings)
    assert_own_logits(pair, engine, tokens(engine.run(requests())))


@families
def test_the_compiled_kernel_is_the_models_own_attention(family):
    try:
        Cpu(pair_of(family).info.head_dim)
    except UnavailableError as error:
        pytest.skip(str(error))
    engine = engine_over(pair_of(family), kernel="cpu-cpp")
    assert_own_logits(pair_of(family), engine, tokens(engine.run(requests())))


@families
def test_dense_from_a_small_fast_tier_is_the_models_own_attention(family):
    settings = settings_of("dense", tier="hbm+cpu", max_batch=SLOTS, fast_bytes=60_000)
    engine = engine_over(pair_of(family), settings)
    assert_own_logits(pair_of(family), engine, tokens(engine.run(requests())))
    assert engine.backend.counters.decode.pages_evicted > 0
    assert engine.backend.peak_bytes()["hbm"] <= 60_000


@pytest.mark.parametrize("family", ["llama", "mistral with a window", "qwen3 moe"])
def test_greedy_tokens_are_those_of_generate(family):
    pair = pair_of(family)
    answers = tokens(engine_over(pair).run(requests()))
    for request in requests():
        ids = torch.tensor([request.prompt_ids])
        generated = pair.own.generate(
            ids, attention_mask=ids.ne(0), max_new_tokens=NEW_TOKENS, do_sample=False
        )
        assert generated[0, len(request.prompt_ids) :].tolist() == answers[request.uid]


def test_the_windows_matter():
    for family in ("mistral with a window", "qwen3 with windows on some layers"):
        pair = pair_of(family)
        assert pair.info.windowed_layers
        assert pair.info.window < max(LENGTHS)
    assert pair.info.windowed_layers == {1, 2}, "one layer sees everything"


@pytest.mark.parametrize("algo", GREEDY)
@pytest.mark.parametrize("family", ["llama", "qwen3 with windows on some layers"])
def test_a_full_budget_is_the_models_own_attention(algo, family):
    settings = settings_of(algo, max_batch=SLOTS)
    engine = engine_over(pair_of(family), settings, budget_tokens=1024)
    assert_own_logits(pair_of(family), engine, tokens(engine.run(requests())))


def test_requests_that_join_a_running_batch_say_the_same():
    pair = pair_of("qwen3")
    together = tokens(engine_over(pair).run(requests()))
    engine = engine_over(pair)
    events = {request.uid: [] for request in requests()}
    engine.logits = {uid: [] for uid in events}
    for request in requests():
        engine.backend.submit([request])
        for _ in range(4):
            engine.step(events)
    while engine.backend.busy:
        engine.step(events)
    assert tokens(events) == together
    assert_own_logits(pair, engine, tokens(events))


def test_several_engines_share_one_model():
    pair = pair_of("llama")
    alone = tokens(engine_over(pair).run(requests()))
    first, second = engine_over(pair), engine_over(pair, settings_of("streaming"), 48)
    events = {request.uid: [] for request in requests()}
    first.logits = {uid: [] for uid in events}
    second.logits = {uid: [] for uid in events}
    others = {request.uid: [] for request in requests()}
    first.backend.submit(requests())
    second.backend.submit(requests())
    while first.backend.busy or second.backend.busy:
        for engine, said in ((first, events), (second, others)):
            if engine.backend.busy:
                engine.step(said)
    assert tokens(events) == alone
    assert tokens(others) != alone


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("num_context", [0, 1])
def test_a_prompt_of_one_token_is_answered_as_by_the_model(algo, num_context):
    pair = pair_of("llama")
    request = replace(requests()[0], prompt_ids=(7,), num_context=num_context)
    engine = engine_over(pair, settings_of(algo, max_batch=SLOTS), budget_tokens=64)
    answer = tokens(engine.run([request]))[request.uid]
    own_AV = own_logits(pair, request.prompt_ids, answer)
    assert (torch.stack(engine.logits[request.uid]) - own_AV).abs().max() <= TOLERANCE


@pytest.mark.parametrize("algo", DENSE_PREFILL)
def test_what_is_context_is_dense(algo):
    pair = pair_of("qwen3")
    engine = engine_over(pair, settings_of(algo, max_batch=SLOTS), budget_tokens=64)
    wanted = [replace(one, num_context=len(one.prompt_ids)) for one in requests()]
    answers = tokens(engine.run(wanted))
    for request in wanted:
        # The first token is that of the prompt; the others went through the algorithm.
        own_V = own_logits(pair, request.prompt_ids, answers[request.uid])[0]
        assert (engine.logits[request.uid][0] - own_V).abs().max() <= TOLERANCE
    assert engine.backend.counters.question.rows == 0
