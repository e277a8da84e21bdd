"""What the engine promises beside the right logits: tiers, sampling, stops, counts, refusals."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import transformers

from backends.base import Request
from backends.transformers.loading import describe_local
from backends.transformers.sampling import draws_for, next_tokens
from memory_tiers.base import OutOfFramesError
from tests.backends.engines import (
    EXPERTS,
    NEW_TOKENS,
    SLOTS,
    SMALL,
    engine_over,
    pair_of,
    requests,
    save_config,
    tokens,
)
from tests.laws.configs import ALGORITHMS, HIERARCHIES, settings_of
from tests.laws.system import algorithm_with

BUDGET = 64
ONE_LINE = r"^[^\n]*$"


def share_of(algo: str) -> float:
    """The share of the KV that the fast tier holds; more where what is selected lies scattered."""
    settings = settings_of(algo, max_batch=SLOTS)
    retrieve = algorithm_with(settings, None).retrieve
    size = settings.partition.page_tokens
    if retrieve is None or retrieve.partition_size >= size:
        return 0.1
    return 0.15 if retrieve.partition_size == size // 2 else 0.35


def all_and_a_share(algo: str, tier: str) -> tuple:
    """Settings with everything in the fast tier, and with a share of it."""
    roomy = settings_of(algo, max_batch=SLOTS)
    small = settings_of(algo, tier=tier, max_batch=SLOTS)
    fast = small.tier.levels[0]
    level = small.tier.arenas[fast].model_copy(update={"size": share_of(algo)})
    levels = {name: small.tier.arenas[name] for name in small.tier.levels} | {fast: level}
    return roomy, small.model_copy(
        update={"tier": type(small.tier)(name=tier, levels=small.tier.levels, **levels)}
    )


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("tier", HIERARCHIES)
def test_a_share_in_the_fast_tier_says_the_same(algo, tier):
    roomy, small = (
        engine_over(pair_of("qwen3"), one, BUDGET if algo != "dense" else None)
        for one in all_and_a_share(algo, tier)
    )
    assert tokens(small.run(requests())) == tokens(roomy.run(requests()))
    fast, lower = [one.name for one in small.backend.attention.memory.tiers][:2]
    count = small.backend.counters
    assert count.prefill.pages_evicted + count.decode.pages_evicted > 0
    moved = count.prefill.bytes_moved + count.question.bytes_moved + count.decode.bytes_moved
    assert moved[f"{fast}->{lower}"] > 0
    assert moved[f"{lower}->{fast}"] > 0
    assert small.backend.peak_bytes()[fast] <= share_of(algo) * full_bytes(roomy)


def full_bytes(engine) -> int:
    tier = engine.backend.attention.memory.tiers[0]
    return tier.num_frames * tier.frame_bytes


def test_each_row_is_counted_in_its_phase():
    engine = engine_over(pair_of("llama"), settings_of("quest", max_batch=SLOTS), BUDGET)
    wanted = requests()
    engine.run(wanted)
    count = engine.backend.counters
    assert count.prefill.rows == sum(one.num_context for one in wanted)
    assert count.question.rows == sum(len(one.prompt_ids) - one.num_context for one in wanted)
    assert count.decode.rows == sum(one.max_new_tokens - 1 for one in wanted)
    assert 0 < count.decode.slots_wanted < count.decode.slots_context
    assert engine.backend.peak_bytes()["index"] > 0
    engine.backend.reset_counters()
    assert engine.backend.counters.decode.rows == 0


@pytest.mark.parametrize("chunk_tokens", [7, 40])
def test_a_step_stores_no_more_of_prompts_than_a_chunk_and_decodes_beside_it(chunk_tokens):
    settings = settings_of("dense", max_batch=SLOTS, chunk_tokens=chunk_tokens)
    backend = engine_over(pair_of("llama"), settings).backend
    backend.submit(requests())
    before, stored = (0, 0), []
    while backend.busy:
        backend.step()
        count = backend.counters
        now = (count.prefill.rows + count.question.rows, count.decode.rows)
        stored.append((now[0] - before[0], now[1] - before[1]))
        before = now
    assert max(prompt for prompt, _ in stored) == chunk_tokens
    assert any(prompt and decoded for prompt, decoded in stored)


def test_everything_is_given_back_at_the_end():
    engine = engine_over(pair_of("llama"), settings_of("quest", tier="hbm+cpu"), BUDGET)
    engine.run(requests())
    assert all(tier.num_free == tier.num_frames for tier in engine.backend.attention.memory.tiers)
    assert not engine.backend.busy


def test_what_a_seed_samples_is_blind_to_batch_mates():
    pair = pair_of("qwen2")
    wanted = requests(temperature=0.8)
    together = tokens(engine_over(pair).run(wanted))
    for request in wanted:
        assert tokens(engine_over(pair).run([request])) == {request.uid: together[request.uid]}
    assert together == tokens(engine_over(pair).run(wanted))
    other = [replace(request, seed=request.seed + 100) for request in wanted]
    assert tokens(engine_over(pair).run(other)) != together
    assert tokens(engine_over(pair).run(requests())) != together


def test_greedy_and_sampled_requests_share_a_batch():
    pair = pair_of("qwen2")
    greedy, sampled = (engine_over(pair).run(requests(temperature=t)) for t in (0.0, 0.8))
    mixed = [
        replace(request, temperature=0.8 if number % 2 else 0.0)
        for number, request in enumerate(requests())
    ]
    answers = tokens(engine_over(pair).run(mixed))
    for number, request in enumerate(mixed):
        source = sampled if number % 2 else greedy
        assert answers[request.uid] == tokens(source)[request.uid]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_distribution(temperature):
    logits_V = torch.tensor([1.0, -torch.inf, 0.0, 2.0, -1.0])
    count = 20_000
    drawn = next_tokens(
        logits_V.expand(count, -1), torch.full((count,), temperature), draws_for(7, count)
    )
    shares_V = torch.bincount(drawn, minlength=5) / count
    assert (shares_V - (logits_V / temperature).softmax(0)).abs().max() < 0.015
    assert shares_V[1] == 0


def test_a_token_without_probability_is_never_drawn():
    logits_BV = torch.full((2, 5000), -torch.inf)
    logits_BV[:, 1:-1] = torch.randn(4998, generator=torch.Generator().manual_seed(0))
    edges_B = torch.tensor([0.0, 1 - 2**-24])
    drawn = next_tokens(logits_BV, torch.ones(2), edges_B).tolist()
    assert drawn[0] == 1
    assert 1 <= drawn[1] < 4999


def test_a_longer_answer_starts_with_the_same_draws():
    longest = draws_for(3, 200)
    for count in (1, 7, 15, 16, 17, 64):
        assert torch.equal(draws_for(3, count), longest[:count])


def test_a_stop_id_ends_an_answer():
    pair = pair_of("llama")
    free = engine_over(pair).run(requests())
    stop = free["1"][4].token_id
    stopped = engine_over(pair).run(requests(stop_ids=frozenset({stop})))
    for uid, events in free.items():
        said = [event.token_id for event in events]
        expected = said[: said.index(stop) + 1] if stop in said else said
        assert [event.token_id for event in stopped[uid]] == expected
        ends = [event.finish for event in stopped[uid]]
        assert ends == [None] * (len(ends) - 1) + ["stop" if stop in said else "length"]
    assert stopped["1"][-1].finish == "stop"


def test_an_answer_has_the_length_that_was_asked_for():
    for count in (1, 2, NEW_TOKENS):
        events = engine_over(pair_of("llama")).run(requests(max_new_tokens=count))
        assert all(len(said) == count and said[-1].finish == "length" for said in events.values())
        assert all(
            one.time_s <= two.time_s for said in events.values() for one, two in pairwise(said)
        )


def too_long(count: int) -> Request:
    return Request(
        uid="huge",
        prompt_ids=(5,) * count,
        num_context=0,
        max_new_tokens=1,
        stop_ids=frozenset(),
    )


def test_a_request_that_never_fits_is_refused_when_it_comes():
    engine = engine_over(pair_of("llama"))
    with pytest.raises(ValueError, match=r"^request huge takes up to 401 tokens[^\n]*task.length$"):
        engine.backend.submit([too_long(400)])
    assert not engine.backend.busy


def test_a_step_that_does_not_fit_names_the_size_that_would():
    settings = settings_of("dense", tier="hbm+cpu", max_batch=SLOTS)
    engine = engine_over(pair_of("llama"), settings, fast_frames=3)
    assert issubclass(OutOfFramesError, ValueError)
    with pytest.raises(
        OutOfFramesError, match=r"^tier\.hbm\.size holds 3 pages, [^\n]*raise[^\n]*$"
    ):
        engine.run(requests())


@pytest.mark.parametrize(
    ("name", "extra", "reason"),
    [
        ("Gemma2Config", {}, "capped attention logits"),
        ("DeepseekV3Config", {}, "latent KV"),
        ("Qwen3NextConfig", EXPERTS, "layers of kind linear_attention"),
    ],
)
def test_a_model_that_is_not_served_is_refused_before_its_weights(name, extra, reason, tmp_path):
    sizes = {key: value for key, value in SMALL.items() if key != "head_dim"}
    config = getattr(transformers, name)(**sizes | extra)
    with pytest.raises(ValueError, match=rf"^model\.path=[^\n]* has {reason}[^\n]*$"):
        describe_local(save_config(config, tmp_path), "float32", download=False)


def test_an_absent_model_is_refused_by_its_path(tmp_path):
    with pytest.raises(ValueError, match=ONE_LINE) as refusal:
        describe_local(str(tmp_path), "float32", download=False)
    assert str(refusal.value).startswith(f"model.path={str(tmp_path)!r}")
