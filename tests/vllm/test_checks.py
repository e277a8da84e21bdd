"""What a command line and a model's config tell against a server, before an engine is started."""

import json

import pytest
import transformers

from tests.vllm.engines import HOSTED, MODEL, offloading
from tests.vllm.test_serve import SMALL

SIZES = {
    "vocab_size": 500,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 2048,
}
MODELS = {
    "window": transformers.MistralConfig(**SIZES, num_key_value_heads=1, sliding_window=128),
    "latent": transformers.DeepseekV3Config(**SIZES, num_key_value_heads=2),
}


def words(model: str, *composition: str) -> list[str]:
    composed = json.dumps({"kvloom": ["algo=quest", *composition]})
    return ["serve", model, *SMALL, "--skip-tokenizer-init", "--additional-config", composed]


def refusal(asked: list[str]) -> str:
    from backends.vllm.checks import check

    with pytest.raises(ValueError) as refused:
        check(asked)
    return str(refused.value)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("window", "a sliding window of 128 tokens"),
        pytest.param("latent", "latent KV", marks=pytest.mark.slow),
    ],
)
def test_a_model_whose_attention_is_another_is_refused_by_its_config(kind, reason, tmp_path):
    MODELS[kind].save_pretrained(tmp_path)
    assert reason in refusal(words(str(tmp_path)))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--kv-transfer-config", json.dumps(offloading(1))), "use tier=hbm, or no KV connector"),
        (("--max-model-len", "99999"), "max_model_len"),
        (("--additional-config", "{}"), "none is named"),
        (("--additional-config", '{"kvloom": ["algo=nosuch"]}'), "algo=nosuch is unknown"),
        (("--additional-config", '{"kvloom": ["tier=cpu"]}'), "tier=cpu"),
    ],
    ids=lambda one: one if isinstance(one, str) else one[0],
)
def test_what_a_command_line_asks_for_in_vain_is_refused(more, reason):
    assert reason in refusal([*words(MODEL, HOSTED), *more])


def test_a_system_that_can_be_served_is_not_refused():
    from backends.vllm.checks import check

    check(words(MODEL))
    check(words(MODEL, HOSTED, "tier.hbm.size=1MiB"))
    check([*words(MODEL), "--kv-transfer-config", json.dumps(offloading(2))])
