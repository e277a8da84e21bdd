"""A trained twin as a Hugging Face folder, and the check of such a folder.

`python -m models.training.export --check models/bundled` loads the folder offline and verifies
its checksums, its weights, its tokenizer and its config.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from models.training.dialect import Dialect
from models.training.positions import MAX_POSITION
from models.training.sample import Language, Source
from models.training.tasks import draw_sample
from models.training.tokenizer import BOS, EOS, PAD, SPECIAL_TOKENS, UNK
from models.training.twin import Twin, TwinConfig

CHECKSUMS = "SHA256SUMS"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
NUM_RANDOM_STRINGS = 300
# ASCII, Latin and Greek to Cyrillic, CJK, kana, emoji: what a prompt may hold.
CHARACTER_RANGES = ((32, 127), (160, 1280), (0x4E00, 0x9FFF), (0x3040, 0x30FF), (0x1F300, 0x1F64F))
FIXED_STRINGS = (
    'na\u00efve \u2014 \u65e5\u672c\u8a9e\n\tx  y  "z"{}\u00e9\U0001f600',
    " 3f8a1c2e-11aa-4b5c-9d0e-aabbccddeeff",
    " tricky-fibroblast",
    " 1234567.",
    "\r\n \u200d\ufeff",
)


def export(
    model: Twin, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights in `dtype`, config and tokenizer, then the checksums of all of them."""
    exported = Qwen3ForCausalLM(_qwen3_config(model.config))
    weights = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    missing, unexpected = exported.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], []), (missing, unexpected)
    exported.tie_weights()
    nn.Module.to(exported, dtype)
    exported.save_pretrained(folder)
    _wrapped(tokenizer).save_pretrained(folder)
    # Readers before transformers 5 look for the base at the top level and would fall back to 1e4.
    _edit_json(folder / "config.json", rope_theta=model.config.rope_theta)
    _edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in FILES]
    (folder / CHECKSUMS).write_text("".join(lines))


def read_folder(folder: Path) -> tuple[Twin, Tokenizer]:
    """The twin of an exported model, and its tokenizer."""
    exported = Qwen3ForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    model = Twin(_twin_config(exported.config))
    weights = exported.model.state_dict()
    model.load_state_dict(dict(weights))
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.no_grad()
def parity(model: Twin, language: Language, folder: Path, num_tokens: int = 512) -> float:
    """The largest logit difference between the twin and the folder on one sample."""
    source = Source(language, Dialect())
    sample = draw_sample(source, "multikey/pool", num_tokens, random.Random(5))
    ids_BT = torch.tensor([sample.ids])
    positions_BT = torch.arange(ids_BT.shape[1])[None]
    exported = Qwen3ForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    expected_BTV = model.logits(model(ids_BT, positions_BT))
    difference_BTV = exported(ids_BT).logits - expected_BTV
    return float(difference_BTV.abs().max())


def check(folder: Path) -> list[str]:
    """What was verified, a line each; ValueError at the first thing that is wrong."""
    return [
        _check_checksums(folder),
        _check_config(folder),
        _check_weights(folder),
        _check_tokenizer(folder),
    ]


def _check_checksums(folder: Path) -> str:
    lines = (folder / CHECKSUMS).read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    if set(recorded) != set(FILES):
        raise ValueError(f"{folder / CHECKSUMS} lists {sorted(recorded)}, not {sorted(FILES)}")
    for name, digest in recorded.items():
        if (found := _sha256(folder / name)) != digest:
            raise ValueError(f"{folder / name} has sha256 {found}, {CHECKSUMS} says {digest}")
    return f"{len(recorded)} files agree with {CHECKSUMS}"


def _check_config(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    if "_name_or_path" in config or "/" in json.dumps(config):
        raise ValueError(f"{folder / 'config.json'} holds a path; export the model again")
    if config.get("rope_theta") != config["rope_parameters"]["rope_theta"]:
        raise ValueError(f"{folder / 'config.json'} gives no rope_theta, or two different ones")
    return "config.json holds no path and one rope_theta"


def _check_weights(folder: Path) -> str:
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    model, loading = loaded
    problems = {kind: list(names) for kind, names in loading.items() if names}
    if problems:
        raise ValueError(f"{folder} does not load whole: {problems}")
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise ValueError(f"{folder / 'model.safetensors'} holds weights that are not finite")
    num_parameters = sum(weight.numel() for weight in model.parameters())
    expected = sum(weight.numel() for weight in Twin(_twin_config(model.config)).parameters())
    if num_parameters != expected:
        raise ValueError(f"{folder} has {num_parameters} parameters, its config means {expected}")
    return f"{type(model).__name__} with {num_parameters} parameters"


def _check_tokenizer(folder: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    strings = [*FIXED_STRINGS, *_random_strings(random.Random(0))]
    for string in strings:
        ids = tokenizer(string, add_special_tokens=False).input_ids
        if UNK in ids or tokenizer.decode(ids) != string:
            raise ValueError(f"{folder / 'tokenizer.json'} does not give back {string!r}: {ids}")
    if tokenizer("").input_ids != [BOS]:
        raise ValueError(f"{folder / 'tokenizer.json'} does not put <s> before a text")
    return f"{len(strings)} unicode strings round trip, none with <unk>"


def _random_strings(rng: random.Random) -> list[str]:
    return [
        "".join(
            chr(rng.randrange(*rng.choice(CHARACTER_RANGES))) for _ in range(rng.randint(1, 40))
        )
        for _ in range(NUM_RANDOM_STRINGS)
    ]


def _qwen3_config(config: TwinConfig) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.ff_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=MAX_POSITION,
        rms_norm_eps=config.norm_eps,
        tie_word_embeddings=True,
        attention_bias=False,
        use_sliding_window=False,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        dtype=torch.float32,
    )


def _twin_config(config: Qwen3Config) -> TwinConfig:
    return TwinConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        ff_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=config.head_dim,
    )


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    pad, bos, eos, _ = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        model_max_length=MAX_POSITION,
        clean_up_tokenization_spaces=False,
    )


def _edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content, indent=2) + "\n")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(prog="python -m models.training.export", description=__doc__)
    parser.add_argument("--check", type=Path, required=True, help="folder of an exported model")
    for line in check(parser.parse_args(arguments).check):
        print(f"ok: {line}")


if __name__ == "__main__":
    main()
