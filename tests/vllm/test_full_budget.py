"""With a budget for all there is, vLLM with the composed system says what vLLM says."""

import pytest

from tests.laws.configs import options
from tests.vllm.engines import (
    FULL,
    engine_of,
    forget_prefixes,
    random_prompt,
    ruler_prompts,
    scored,
)

# Those that the preflight lets through, see test_refusals, and what else makes them read it all.
SERVED = {
    "quest": (),
    "arkvale": (),
    "double_sparsity": (),
    "loki": (),
    "oracle_topk": (),
    "oracle_topp": ("algo.retrieve.mass=1",),
    "random": (),
    "seerattention_r": (),
    "shadowkv": (),
    "tidaldecode": (),
}


@pytest.fixture(scope="module")
def dense():
    return engine_of()


@pytest.mark.parametrize("name", SERVED)
def test_a_full_budget_is_vllms_dense_attention(name, dense):
    assert name in options("algo")
    full = engine_of(f"algo={name}", f"algo.retrieve.budget_tokens={FULL}", *SERVED[name])
    for prompt in (*ruler_prompts(1024, 2), random_prompt(700, seed=1), random_prompt(5, seed=2)):
        question = min(40, len(prompt) // 2)
        forget_prefixes(dense)
        forget_prefixes(full)
        expected, said = scored(dense, prompt), scored(full, prompt, question)
        assert said.tokens == expected.tokens
        assert said.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-3)
    rows = full.activation
    assert sum(rows.chosen.values()) > 0, "nothing went through the algorithm"
    assert set(rows.chosen) == set(range(6))
