"""The chain that made the bundled model, at a scale where every stage takes a step or two."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator

from models.training import recipe
from models.training.dialect import Dialect, NoiseKind
from models.training.export import check, parity
from models.training.grow import NUM_FRONT_LAYERS, add_front_layers, widen_lookback
from models.training.init import head_slice, random_init
from models.training.muon import orthogonalise
from models.training.positions import Spread
from models.training.sample import Language, Source
from models.training.schedule import ScheduledStage
from models.training.train import answer_loss, draw_batch, train_stage
from models.training.twin import Twin, TwinConfig
from tests.models.fixed import BUNDLED


@pytest.fixture(scope="module")
def finished(
    ground: recipe.Ground, schedule: list[ScheduledStage], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, object]]]:
    """The folder of a whole tiny run, and what it reported."""
    out = tmp_path_factory.mktemp("recipe")
    rows: list[dict[str, object]] = []
    recipe.run_recipe(ground, schedule, out, rows.append)
    return out, rows


def test_the_whole_chain_ends_in_a_model_that_passes_the_check(
    finished: tuple[Path, list[dict[str, object]]], schedule: list[ScheduledStage]
) -> None:
    out, rows = finished
    probed = [row["stage"] for row in rows if "accuracies" in row]
    assert probed == [item.name for item in schedule]
    config = json.loads((out / "model" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (6, 320)
    assert len(check(out / "model")) == 4
    assert 0 < float(str(rows[-1]["logit_difference"])) < 1e-4


def test_training_moves_every_weight_matrix(
    finished: tuple[Path, list[dict[str, object]]],
) -> None:
    out, _ = finished
    before, after = (
        torch.load(out / name, weights_only=True)["weights"]
        for name in ("stage-1-lookup.pt", "stage-3-spread.pt")
    )
    still = [name for name, weight in before.items() if torch.equal(weight, after[name])]
    assert not [name for name in still if name.endswith("proj.weight")]


def test_a_second_run_keeps_the_stages_of_the_first(
    finished: tuple[Path, list[dict[str, object]]],
    ground: recipe.Ground,
    schedule: list[ScheduledStage],
) -> None:
    out, _ = finished
    weights = (out / "model" / "model.safetensors").read_bytes()
    rows: list[dict[str, object]] = []
    recipe.run_recipe(ground, schedule, out, rows.append)
    assert sum("kept" in row for row in rows) == len(schedule)
    assert not any("accuracies" in row for row in rows)
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_a_run_with_another_seed_refuses_the_stages_of_the_first(
    finished: tuple[Path, list[dict[str, object]]],
    ground: recipe.Ground,
    schedule: list[ScheduledStage],
) -> None:
    with pytest.raises(ValueError, match="another --out"):
        recipe.run_recipe(replace(ground, seed=1), schedule, finished[0], print)


def test_a_few_steps_lower_the_loss(
    start: Twin, ground: recipe.Ground, schedule: list[ScheduledStage]
) -> None:
    model = Twin(start.config)
    model.load_state_dict(start.state_dict())
    stage = schedule[0].stage
    batch = draw_batch(
        Source(ground.words, stage.dialect), ["repeat"] * 8, 128, Spread(), random.Random(0)
    )
    before = answer_loss(model, batch)
    phase = replace(stage.phases[0], num_tokens=12 * 640)
    stage = replace(stage, phases=[phase], batch_tokens=640)
    train_stage(model, ground.words, stage, random.Random(0), print)
    assert answer_loss(model, batch).loss < before.loss - 0.2


def test_the_bundled_folder_passes_its_check() -> None:
    lines = check(BUNDLED)
    assert "Qwen3ForCausalLM with 4399488 parameters" in lines


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_changed_file_fails_the_check(name: str, tmp_path: Path) -> None:
    for file in BUNDLED.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / name).write_text((BUNDLED / name).read_text() + " ")
    with pytest.raises(ValueError, match=name):
        check(tmp_path)


def test_the_twin_computes_what_the_bundled_model_computes(bundled_language: Language) -> None:
    model = Twin(TwinConfig(vocab_size=bundled_language.num_tokens, hidden_size=320, num_layers=6))
    weights = load_file(BUNDLED / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): w for name, w in weights.items()})
    assert parity(model, bundled_language, BUNDLED, num_tokens=256) < 1e-4
    with torch.no_grad():
        model.stack[3].self_attn.k_norm.weight[0] *= 1.01
    assert parity(model, bundled_language, BUNDLED, num_tokens=256) > 1e-4


def test_any_value_not_yet_given_is_a_right_answer(start: Twin, ground: recipe.Ground) -> None:
    free = Dialect(
        keys={next(iter(Dialect().keys)): 1.0},
        noises={NoiseKind.FILLER: 1.0},
        uuid_share=0,
        word_share=0,
    )
    batch = draw_batch(
        Source(ground.words, free), ["multivalue"] * 4, 256, Spread(), random.Random(0)
    )
    assert max(len(ids) for ids in batch.alternatives.values()) > 1
    with torch.no_grad():
        loose = answer_loss(start, batch)
        strict = answer_loss(start, replace(batch, alternatives={}))
    assert loose.loss < strict.loss


@pytest.mark.parametrize(("head", "distance"), [(0, 1), (1, 2)])
def test_a_look_back_head_looks_back_before_any_training(
    head: int, distance: int, start: Twin, ground: recipe.Ground
) -> None:
    config = start.config
    rng = random.Random(0)
    ids_BT = torch.tensor([[rng.randrange(4, config.vocab_size) for _ in range(96)]])
    attention = start.stack[0].self_attn
    kv_head = head * config.num_kv_heads // config.num_heads
    with torch.no_grad():
        x_BTE = start.stack[0].input_layernorm(start.embed_tokens(ids_BT))
        rotation = start.rotation(torch.arange(96)[None], torch.float32)
        q_BTD = attention.q_norm((attention.q_proj(x_BTE))[..., head_slice(head, config)])
        k_BTD = attention.k_norm((attention.k_proj(x_BTE))[..., head_slice(kv_head, config)])
        q_TD, k_TD = (rotation.apply(x[:, None])[0, 0] for x in (q_BTD, k_BTD))
    logits_TT = (q_TD @ k_TD.T).masked_fill(torch.ones(96, 96).triu(1).bool(), -1e9)
    hits = logits_TT.argmax(-1)[distance:] == torch.arange(96 - distance)
    assert hits.float().mean() > 0.8


def test_growth_keeps_the_old_weights(start: Twin, ground: recipe.Ground) -> None:
    grown = add_front_layers(
        start,
        ground.bytes.tokenizer,
        ground.words.pools,
        recipe.calibration_batch(ground.bytes),
        Generator().manual_seed(0),
    )
    assert grown.config.num_layers == start.config.num_layers + NUM_FRONT_LAYERS
    num_old, width = start.embed_tokens.weight.shape
    assert torch.equal(grown.embed_tokens.weight[:num_old, :width], start.embed_tokens.weight)
    for old, new in zip(start.stack, grown.stack[NUM_FRONT_LAYERS:], strict=True):
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                     "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):  # fmt: skip
            old_weight = old.get_submodule(part).get_parameter("weight")
            new_weight = new.get_submodule(part).get_parameter("weight")
            num_rows, num_columns = old_weight.shape
            assert torch.equal(new_weight[:num_rows, :num_columns], old_weight)
        ratio = new.input_layernorm.weight[:width] / old.input_layernorm.weight
        assert torch.allclose(ratio, ratio[0].expand(width))


def test_the_wide_look_back_changes_one_layer_only(start: Twin) -> None:
    model = Twin(replace(start.config, hidden_size=320, num_layers=6))
    random_init(model, Generator().manual_seed(0))
    widened = widen_lookback(model, 2000, Generator().manual_seed(1))
    after = widened.state_dict()
    changed = {name for name, w in model.state_dict().items() if not torch.equal(w, after[name])}
    assert changed
    assert all(name.startswith("layers.1.self_attn.") for name in changed)
    first_heads = slice(0, 2 * model.config.head_dim)
    for name in ("q_proj", "k_proj"):
        rows = first_heads if name == "q_proj" else head_slice(0, model.config)
        old = model.state_dict()[f"layers.1.self_attn.{name}.weight"][rows]
        assert torch.equal(after[f"layers.1.self_attn.{name}.weight"][rows], old)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrix = torch.randn(96, 64, generator=Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix).float())
    assert values.min() > 0.5
    assert values.max() < 1.4
