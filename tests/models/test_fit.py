"""What retrievers keep of a model: made from what its attention sees, and shipped for ours."""

import json
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from backends.transformers.loading import describe_local
from backends.weights import weights_sha256
from harness.build import build, build_algorithm
from harness.composing import settings_from
from models.fit.base import Seen
from models.fit.command import main
from models.fit.fitting import KINDS, Fitted, Job, fit
from models.fit.prompts import Prompt, task_prompts, text_prompts
from models.fit.watch import watch
from sparse_algos.retrieve.double_sparsity import DoubleSparsity
from sparse_algos.retrieve.loki import Loki
from sparse_algos.retrieve.seerattention_r import SeerAttentionR
from sparse_algos.trained import TrainedRetriever
from tests.backends.engines import VOCAB, pair_of

ROOT = Path(__file__).parents[2]
BUNDLED = str(ROOT / "models" / "bundled")
SHIPPED = ("double_sparsity", "loki", "seerattention_r")
PLAIN = {"budget_tokens": 24, "sinks": 0, "recents": 8, "group_reduce": "mean", "weights": ""}
RETRIEVERS = {
    "double_sparsity": DoubleSparsity(**PLAIN, label_channels=4),
    "loki": Loki(**PLAIN, label_channels=4, rotary="post"),
    "seerattention_r": SeerAttentionR(**PLAIN, block_tokens=4),
}
shipped = pytest.mark.parametrize("algo", SHIPPED)


def prompts(seed: int, count: int) -> list[Prompt]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Prompt(
            tuple(torch.randint(3, VOCAB, (120,), generator=generator).tolist()),
            torch.arange(60, 120),
        )
        for _ in range(count)
    ]


@lru_cache
def tiny():
    """A model whose queries are long in some channels."""
    model = deepcopy(pair_of("qwen3").own)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight[[1, 4, 9, 12]] *= 4
    return model


def fitted(retrieve: TrainedRetriever) -> Fitted:
    shape = pair_of("qwen3").info.shape
    job = Job(retrieve=retrieve, shape=shape, steps=60, seed=0, advance=lambda _: None)
    return fit(tiny(), job, prompts(0, 3), prompts(1, 2))


def mean(shares: dict[int, float]) -> float:
    return sum(shares.values()) / len(shares)


@pytest.mark.parametrize("name", RETRIEVERS)
def test_fitting_is_deterministic_and_better_than_chance(name):
    retrieve = RETRIEVERS[name]
    assert type(retrieve) in KINDS
    one, other = fitted(retrieve), fitted(retrieve)
    assert one.tensors.keys() >= retrieve.tensor_shapes(pair_of("qwen3").info.shape).keys()
    for key, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[key])
    assert mean(one.random) + 0.02 < mean(one.recall) <= mean(one.best) + 1e-6


def test_what_is_watched_is_what_the_model_attends_to():
    (prompt,) = prompts(2, 1)
    seen: list[Seen] = []
    watch(tiny(), prompt.ids, prompt.rows_M, seen.append)
    own = deepcopy(tiny())
    own.set_attn_implementation("eager")
    exact = own(input_ids=torch.tensor([prompt.ids]), output_attentions=True).attentions
    assert [one.layer for one in seen] == [0, 1, 2]
    for one, exact_1HTT in zip(seen, exact, strict=True):
        rows_HMT = one.attention().flatten(0, 1)
        torch.testing.assert_close(rows_HMT, exact_1HTT[0][:, prompt.rows_M], atol=1e-4, rtol=1e-4)


@shipped
def test_what_ships_is_fitted_to_the_model_that_ships(algo):
    retrieve = build_algorithm(settings_from([f"algo={algo}"])).retrieve
    shape = describe_local(BUNDLED, "float32", download=False).shape
    path = ROOT / retrieve.weights.replace("{model}", shape.name)
    retrieve.fitted(shape)
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["model_sha256"] == weights_sha256(BUNDLED)
    keys = ("recall", "recall_random", "recall_best")
    read, by_chance, best = (mean(json.loads(told[key])) for key in keys)
    assert by_chance < read <= best
    assert path.stat().st_size < 1_700_000


class Words:
    """A tokenizer with a token per word."""

    def encode(self, text: str) -> list[int]:
        return [sum(map(ord, word)) % 997 for word in text.split()]


def test_prompts_are_of_other_seeds_and_end_in_their_answers():
    task = build_task()
    made = task_prompts(task, Words(), seed=7, num_prompts=5, lengths=(200, 300))
    again = task_prompts(task, Words(), seed=7, num_prompts=5, lengths=(200, 300))
    assert [one.ids for one in made] == [one.ids for one in again]
    evaluated = {tuple(Words().encode(one.context)) for one in task.requests(Words())}
    assert len(made) == 5
    assert max(len(one.ids) for one in made) > 200
    for one in made:
        assert one.rows_M[-1] == len(one.ids) - 1
        assert (one.rows_M.diff() > 0).all()
        assert not any(one.ids[: len(ids)] == ids for ids in evaluated)


def build_task():
    return build(settings_from(["task.length=250", "task.num_samples=2"]).task, "task")


def test_a_text_gives_prompts_too(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"word{n}" for n in range(500)))
    made = text_prompts(path, Words(), seed=1, num_prompts=2, length=300)
    assert [len(one.ids) for one in made] == [300, 300]
    with pytest.raises(ValueError, match=r"^--text=[^\n]*has 500 tokens[^\n]*$"):
        text_prompts(path, Words(), seed=1, num_prompts=2, length=501)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["algo=quest"], "loki"),
        (["algo=nothing"], "nothing"),
        (["algo=loki", "model=hf", "model.path=no/where"], "model.path='no/where'"),
        (["algo=loki", "--seed", "42"], "--seed=42 is task.seed"),
        (["algo=loki", "--prompts", "0"], "--prompts"),
        (["algo=loki", "--text", "no/where.txt"], "--text='no/where.txt'"),
        (["algo=loki", "algo.retrieve.label_channels=65"], "label_channels=65"),
    ],
)
def test_bad_input_is_refused_in_one_line(words, told, capsys, tmp_path):
    small = ["task.length=512", "--prompts", "1", "--held-out", "1"]
    out = tmp_path / "out.safetensors"
    assert main([*small, "--out", str(out), *words]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("kvloom: ")
    assert shown.count("\n") == 1
    assert told in shown
    assert not out.exists()
