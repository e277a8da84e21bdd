"""The chain that made the bundled model, at a scale where every stage takes a step or two."""

import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Generator

from models.training import recipe
from models.training.dialect import Dialect, NoiseKind
from models.training.export import check, parity
from models.training.grow import NUM_FRONT_LAYERS, add_front_layers, widen_lookback
from models.training.init import head_slice, random_init, structured_init, token_classes
from models.training.muon import orthogonalise
from models.training.positions import MAX_POSITION, Spread, draw_dilution, draw_positions
from models.training.sample import Language, Mark, Source
from models.training.schedule import DEFAULT_SCHEDULE, ScheduledStage, read_schedule
from models.training.tasks import TASKS, draw_sample
from models.training.text import Corpus, read_corpus
from models.training.tokenizer import EOS, UNK, byte_tokenizer, word_tokenizer
from models.training.train import answer_loss, draw_batch, train_stage
from models.training.twin import Twin, TwinConfig
from models.training.wordpools import word_pools

BUNDLED = Path(__file__).parents[2] / "models" / "bundled"
CORPUS = Corpus(
    sentences=(
        "The old keeper walked past the gate and saw a lamp in the harbour.",
        "It was late, and the river ran quietly under the stone bridge.",
        "Nobody asked the miller why his boat had come back empty.",
    ),
    words=("boat", "bridge", "gate", "harbour", "keeper", "lamp", "miller", "river", "stone"),
)
TEXT_TASKS = sorted(TASKS - {"copy"})
# The first step of a stage has rate zero, so every stage needs a second one.
TINY = 3e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def ground() -> recipe.Ground:
    pools = word_pools()
    words = word_tokenizer(pools)
    pieces = byte_tokenizer(words.get_vocab(), CORPUS, num_merges=100, num_pairs=500)
    return recipe.Ground(
        words=Language(words, pools, CORPUS), bytes=Language(pieces, pools, CORPUS), seed=0
    )


@pytest.fixture(scope="module")
def schedule() -> list[ScheduledStage]:
    stages = read_schedule(DEFAULT_SCHEDULE, TINY)
    return [
        replace(item, stage=replace(item.stage, batch_tokens=256, num_probe_samples=1))
        for item in stages
    ]


@pytest.fixture(scope="module")
def start(ground: recipe.Ground) -> Twin:
    """A structured model of the first stage."""
    model = Twin(TwinConfig(vocab_size=ground.words.num_tokens))
    generator = Generator().manual_seed(1)
    random_init(model, generator)
    structured_init(model, token_classes(ground.words.tokenizer, ground.words.pools), generator)
    return model


@pytest.fixture(scope="module")
def bundled_language() -> Language:
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    return Language(tokenizer, word_pools(), CORPUS)


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


@pytest.mark.parametrize(
    "text",
    [
        "plain words, and some more.",
        'na\u00efve \u2014 \u65e5\u672c\u8a9e\n\tx  y  "z"{}\U0001f600',
        " 3f8a1c2e-11aa-4b5c-9d0e-aabbccddeeff 1234567",
        "\r\n \u200d\ufeff",
    ],
)
def test_any_text_comes_back_from_the_byte_tokenizer(text: str, ground: recipe.Ground) -> None:
    ids = list(ground.bytes.encode(text))
    assert ground.bytes.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert UNK not in ids


def test_the_word_tokenizer_knows_only_its_words(ground: recipe.Ground) -> None:
    known = " One of the special magic numbers for " + ground.words.pools.keys[0] + " is: 1234567."
    assert ground.words.tokenizer.decode(list(ground.words.encode(known))) == known
    assert UNK not in ground.words.encode(known)
    assert UNK in ground.words.encode(" unheard")


def test_old_ids_survive_the_change_of_tokenizer(
    ground: recipe.Ground, bundled_language: Language
) -> None:
    words = ground.words.tokenizer.get_vocab()
    for grown in (ground.bytes.tokenizer.get_vocab(), bundled_language.tokenizer.get_vocab()):
        assert len(grown) > len(words)
        assert all(grown[piece] == index for piece, index in words.items())
    for word in ground.words.pools.keys + ground.words.pools.variables:
        expected = ground.words.encode(" " + word)
        assert len(expected) == 1
        assert ground.bytes.encode(" " + word) == bundled_language.encode(" " + word) == expected


@pytest.mark.parametrize("num_tokens", [128, 320])
@pytest.mark.parametrize("task", TEXT_TASKS)
def test_ids_of_a_sample_are_the_tokens_of_its_text(
    task: str, num_tokens: int, bundled_language: Language
) -> None:
    noises: dict[NoiseKind, float] = {kind: 1.0 for kind in NoiseKind if kind != NoiseKind.JUMBLE}
    source = Source(bundled_language, Dialect(noises=noises))
    tokenizer = bundled_language.tokenizer
    for seed in range(20):
        ids = draw_sample(source, task, num_tokens, random.Random(seed)).ids
        text = tokenizer.decode(ids)
        assert tokenizer.encode(text).ids == [token for token in ids if token != EOS]


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_every_answer_stands_in_the_context(task: str, bundled_language: Language) -> None:
    source = Source(bundled_language, Dialect())
    for seed in range(10):
        sample = draw_sample(source, task, 256, random.Random(seed))
        context: set[int] = set()
        num_answers = 0
        for segment in sample.segments:
            if segment.num_answer:
                answer = set(segment.ids[-segment.num_answer :])
                assert (
                    len(answer - context - {EOS} - set(bundled_language.encode_all(",", "."))) == 0
                )
                num_answers += 1
            context |= set(segment.ids)
        assert num_answers > 0


# Digests of ids and answer masks that the code which trained the bundled weights drew.
GOLDEN = {
    "copy": "5d835bd834e86162",
    "multikey": "cb004b6bc1549569",
    "multiquery": "883031f925832e72",
    "multivalue": "6618fe1870f514b6",
    "needlehay": "05fabbc98dcea09a",
    "repeat": "94dfdeb922da67f7",
    "vt": "e8260e78e882111a",
}


@pytest.mark.parametrize("task", sorted(GOLDEN))
def test_generators_draw_what_the_bundled_model_was_trained_on(
    task: str, bundled_language: Language
) -> None:
    assert _digest_of_samples(task, bundled_language) == GOLDEN[task]


def _digest_of_samples(task: str, language: Language) -> str:
    digest = hashlib.sha256()
    for seed in range(5):
        sample = draw_sample(Source(language, Dialect()), task, 288, random.Random(seed))
        digest.update(json.dumps([sample.ids, sample.is_answer]).encode())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_positions_increase_and_jump_only_between_segments(
    task: str, bundled_language: Language
) -> None:
    num_jumps = 0
    for seed in range(20):
        rng = random.Random(seed)
        sample = draw_sample(Source(bundled_language, Dialect()), task, 192, rng)
        positions = draw_positions(sample, 0.15, rng)
        assert positions[0] == 0
        assert positions[-1] < MAX_POSITION
        start = 0
        for segment in sample.segments:
            first = positions[start]
            end = start + len(segment.ids)
            assert positions[start:end] == list(range(first, first + len(segment.ids)))
            assert start == 0 or first > positions[start - 1]
            num_jumps += start > 0 and first > positions[start - 1] + 1
            start = end
    assert num_jumps > 20


def test_dilution_never_touches_what_is_asked_for(bundled_language: Language) -> None:
    diluted: set[Mark] = set()
    for seed in range(30):
        rng = random.Random(seed)
        sample = draw_sample(Source(bundled_language, Dialect()), "multikey", 320, rng)
        bias = draw_dilution(sample, span=4096, rng=rng)
        assert min(bias) >= 0
        diluted |= {mark for mark, amount in zip(sample.marks, bias, strict=True) if amount > 0}
    assert diluted == {Mark.NOISE, Mark.DISTRACTOR}


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


def test_html_and_plain_text_give_the_same_corpus(tmp_path: Path) -> None:
    first, second = "All night the gate was open.", "Then the gate was shut by day."
    plain = tmp_path / "plain.txt"
    plain.write_text(f"{first}\n{second}\n")
    page = tmp_path / "page.html"
    page.write_text(f"<main><p>{first} <b>{second}</b></p><pre>{second}</pre></main>")
    corpus = read_corpus([plain])
    assert corpus.sentences == (first, second)
    assert corpus.words == ("gate", "the", "was")
    assert read_corpus([page]) == corpus


def test_a_missing_corpus_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.txt"):
        read_corpus([Path("nowhere.txt")])
