"""All stages in order: `python -m models.training.recipe --out DIR`.

DIR receives one checkpoint per stage, progress.jsonl and, at the end, the exported model in
DIR/model. A run that was stopped goes on after its last whole stage.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Generator

from models.training.deepen import deepen
from models.training.dialect import Dialect, KeyKind, NoiseKind, ValueKind
from models.training.export import export, parity, read_folder
from models.training.grow import add_front_layers, widen_lookback
from models.training.init import random_init, structured_init, token_classes
from models.training.needles import NeedleRequest, needle_sample
from models.training.positions import Batch, Spread, pack
from models.training.sample import Language, Source
from models.training.schedule import DEFAULT_SCHEDULE, ScheduledStage, Vocabulary, read_schedule
from models.training.text import read_corpus
from models.training.tokenizer import byte_tokenizer, capitals_tokenizer, word_tokenizer
from models.training.train import Report, train_stage
from models.training.twin import Twin, TwinConfig
from models.training.wordpools import word_pools

REPOSITORY = Path(__file__).parents[2]
DEFAULT_CORPUS = REPOSITORY / "harness" / "tasks" / "data" / "prose.txt"
CALIBRATION_TOKENS = 200


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all stages share: one language per vocabulary, same pools and corpus, and a seed."""

    words: Language
    bytes: Language
    capitals: Language
    seed: int

    def language(self, vocabulary: Vocabulary) -> Language:
        """The language that a stage is trained in."""
        languages = {"words": self.words, "bytes": self.bytes, "capitals": self.capitals}
        return languages[vocabulary]


def run_recipe(
    ground: Ground,
    schedule: Sequence[ScheduledStage],
    out: Path,
    report: Report,
    model: Twin | None = None,
    *,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Train every stage that has no checkpoint yet, export the last one; the exported folder.

    `model` is what the first stage starts from, where it starts from something.
    """
    out.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(ground)
    for index, scheduled in enumerate(schedule, start=1):
        path = out / f"stage-{index}-{scheduled.name}.pt"
        fingerprint = _digest(fingerprint, repr(scheduled))
        if path.exists():
            model = load_checkpoint(path, fingerprint)
            report({"stage": scheduled.name, "kept": path.name})
            continue
        model = start_model(model, scheduled, ground)
        report({"stage": scheduled.name, "parameters": sum(p.numel() for p in model.parameters())})
        if compiled:
            model.compile(dynamic=False)
        rng = random.Random(f"{ground.seed}/{scheduled.name}")
        language = ground.language(scheduled.vocabulary)
        keep = partial(save_checkpoint, model, path.with_suffix(".unfinished"), fingerprint)
        accuracies = train_stage(model, language, scheduled.stage, rng, report, keep)
        report({"stage": scheduled.name, "accuracies": accuracies})
        save_checkpoint(model, path, fingerprint)
    assert model is not None, "a schedule has at least one stage"
    folder = out / "model"
    language = ground.language(schedule[-1].vocabulary)
    export(model, language.tokenizer, folder, dtype)
    report({"exported": str(folder), "logit_difference": parity(model, language, folder)})
    return folder


def start_model(previous: Twin | None, scheduled: ScheduledStage, ground: Ground) -> Twin:
    """The model a stage begins with."""
    generator = Generator().manual_seed(ground.seed)
    if scheduled.start == "structured_init":
        model = Twin(TwinConfig(vocab_size=ground.words.num_tokens))
        random_init(model, generator)
        classes = token_classes(ground.words.tokenizer, ground.words.pools)
        structured_init(model, classes, generator)
        return model
    if previous is None:
        raise ValueError(f"stage {scheduled.name} starts from {scheduled.start}, but is the first")
    if scheduled.start == "front_layers":
        calibration = calibration_batch(ground.bytes)
        tokenizer = ground.bytes.tokenizer
        return add_front_layers(previous, tokenizer, ground.words.pools, calibration, generator)
    if scheduled.start == "wide_lookback":
        return widen_lookback(previous, ground.words.num_tokens, generator)
    if scheduled.start == "deeper":
        before, after = ground.bytes.tokenizer, ground.capitals.tokenizer
        return deepen(previous, before, after, generator)
    return previous


def calibration_batch(language: Language, num_samples: int = 8, seed: int = 0) -> Batch:
    """Samples with keys of several tokens, contiguous and undiluted."""
    rng = random.Random(seed)
    request = NeedleRequest(
        task="multikey",
        num_tokens=CALIBRATION_TOKENS,
        num_questions=1,
        num_needles=4,
        keys=KeyKind.ENGLISH_PAIR,
        values=ValueKind.NUMBER,
        noise=NoiseKind.SHUFFLED,
    )
    source = Source(language, Dialect())
    samples = [needle_sample(source, request, rng) for _ in range(num_samples)]
    spread = Spread(contiguous_share=1.0, dilute=False)
    return pack(samples, CALIBRATION_TOKENS, spread, rng)


def save_checkpoint(model: Twin, path: Path, fingerprint: str) -> None:
    """Write a stage's result; a file with that name is always whole."""
    content = {
        "config": asdict(model.config),
        "weights": model.state_dict(),
        "fingerprint": fingerprint,
    }
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


def load_checkpoint(path: Path, fingerprint: str) -> Twin:
    """The model of a stage, refused if it was made by other settings."""
    content = torch.load(path, weights_only=True)
    if content["fingerprint"] != fingerprint:
        raise ValueError(
            f"{path} was made with another corpus, seed, scale or schedule; "
            f"give another --out, or delete it to train this stage again"
        )
    model = Twin(TwinConfig(**content["config"]))
    model.load_state_dict(content["weights"])
    return model


def prepare_ground(
    corpus_paths: Sequence[Path], seed: int, pieces: Tokenizer | None = None
) -> Ground:
    """Pools, corpus and tokenizers; `pieces` is a byte tokenizer that is there already."""
    pools = word_pools()
    corpus = read_corpus(corpus_paths)
    words = word_tokenizer(pools)
    pieces = pieces or byte_tokenizer(words.get_vocab(), corpus)
    capitals = capitals_tokenizer(pieces, pools)
    return Ground(
        words=Language(words, pools, corpus),
        bytes=Language(pieces, pools, corpus),
        capitals=Language(capitals, pools, corpus),
        seed=seed,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    schedule = read_schedule(options.schedule, options.scale)[: options.stages]
    model, pieces = read_folder(options.start) if options.start else (None, None)
    ground = prepare_ground(options.corpus, options.seed, pieces)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "progress.jsonl").open("a", encoding="utf-8") as log:

        def report(row: dict[str, object]) -> None:
            line = json.dumps(row)
            print(line, flush=True)
            log.write(line + "\n")
            log.flush()

        run_recipe(
            ground,
            schedule,
            options.out,
            report,
            model,
            compiled=options.compile,
            dtype=getattr(torch, options.dtype),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.training.recipe", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument(
        "--corpus",
        type=Path,
        nargs="+",
        default=[DEFAULT_CORPUS],
        help="plain-text or HTML files, or folders of them (default: the bundled prose)",
    )
    parser.add_argument("--start", type=Path, help="exported folder that the stages go on from")
    parser.add_argument("--schedule", type=Path, default=DEFAULT_SCHEDULE, help="stages to run")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the tokens to train on")
    parser.add_argument("--stages", type=int, help="stop after this many stages")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile, a minute a length")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def _fingerprint(ground: Ground) -> str:
    tokenizer = ground.bytes.tokenizer.to_str()
    return _digest(tokenizer, repr(ground.words.corpus), str(ground.seed))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    main()
