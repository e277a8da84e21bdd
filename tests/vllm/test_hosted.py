"""KV in levels of this project, where vLLM's cache holds a digest of each slot."""

import pytest

from tests.harness.cli_runs import SMALL, run
from tests.vllm.engines import (
    BLOCK,
    BLOCK_BYTES,
    FULL,
    HOSTED,
    MAX_TOKENS,
    TIGHT,
    answers,
    engine_of,
    forget_prefixes,
    random_prompt,
    request,
    ruler_prompts,
    scored,
)

# A run of the harness.
RUN = ("backend=vllm", HOSTED, "tier.hbm.size=4MiB", *SMALL)
# What one layer holds of the longest request, a sixth of its KV; and what vLLM is given.
FAST = "tier.hbm.size=2MiB"
SPACE = MAX_TOKENS // BLOCK * BLOCK_BYTES // 12
ALONE = {"max_batch": 1, "kv_bytes": SPACE}


def test_a_context_that_vllm_has_no_room_for_is_answered_as_dense():
    with pytest.raises(ValueError, match="larger than the available KV cache"):
        engine_of(**ALONE)
    dense = engine_of()
    full = engine_of("algo=quest", f"algo.retrieve.budget_tokens={FULL}", HOSTED, FAST, **ALONE)
    for prompt in (random_prompt(MAX_TOKENS - 20, seed=3), *ruler_prompts(1024, 1)):
        forget_prefixes(dense)
        expected, said = scored(dense, prompt), scored(full, prompt, 40)
        assert said.tokens == expected.tokens
        assert said.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-3)
    phases = full.counters.prefill, full.counters.question, full.counters.decode
    moved = sum(phase.bytes_moved["cpu->hbm"] for phase in phases)
    assert moved > MAX_TOKENS // BLOCK * BLOCK_BYTES
    assert full.facts()["tiers"] == {"hbm": {}, "cpu": {"pinned": False}}
    peaks = full.peak_bytes()
    assert peaks["hbm"] < MAX_TOKENS // BLOCK * BLOCK_BYTES / 4
    assert sum(full.activation.chosen.values()) > 0


def test_where_kv_is_never_changes_an_answer():
    overrides = ("algo=quest", f"algo.retrieve.budget_tokens={TIGHT}")
    held, hosted = engine_of(*overrides), engine_of(*overrides, HOSTED, FAST)
    prompts = [*ruler_prompts(1024, 3), random_prompt(700, seed=5)]
    wanted = [request(str(number), prompt, 30) for number, prompt in enumerate(prompts)]
    assert answers(hosted, wanted) == answers(held, wanted)
    decode = hosted.counters.decode
    assert decode.bytes_moved["cpu->hbm"] > 0
    assert 0 < decode.pages_hit < decode.pages_wanted


def test_a_host_pool_that_blocks_do_not_fit_in_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match=r"tier\.cpu\.size is 1024KiB, the blocks that vLLM"):
        engine_of("algo=quest", HOSTED, "tier.cpu.size=1MiB")
    with pytest.raises(ValueError, match="this machine has"):
        engine_of("algo=quest", HOSTED, "tier.hbm.size=64MiB", num_blocks=2_000_000)


def test_a_fast_tier_that_cannot_hold_a_step_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match="one step of one layer needs"):
        engine_of("algo=quest", HOSTED, "tier.hbm.size=64KiB")


def test_a_record_says_how_the_fast_tier_was_shared(tmp_path, monkeypatch):
    code, (record,) = run(RUN, tmp_path, monkeypatch)
    assert code == 0
    effective = record["config"]["effective"]
    assert record["config"]["resolved"]["budget"]["name"] == "dynamic"
    assert effective["quest"]["budget"].startswith("none: all requests share")
    assert "budget" not in effective["dense"]
