"""Fits what a retriever keeps of a model: `python -m models.fit algo=loki model=bundled`.

The words are those of harness/run.py: algo with its settings, model, task.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from backends.transformers.loading import ModelInfo, load_tokenizer
from backends.weights import weights_sha256
from harness.asked import model_path
from harness.build import build, build_algorithm
from harness.composing import settings_from
from harness.progress import progress
from harness.settings import DummyModel, Settings
from harness.system import choose_device, describe, load, tokenizer_path
from models.fit.fitting import KINDS, Fitted, Job, fit
from models.fit.prompts import Prompt, task_prompts, text_prompts
from sparse_algos.trained import ROOT, TrainedRetriever

OK, USAGE = 0, 2


def main(argv: Sequence[str]) -> int:
    """Fit, write the file, show what it is worth; the exit code."""
    options = _parser().parse_intermixed_args(argv)
    console = Console()
    try:
        work = _prepare(options)
        fitted = _run(work, console)
    except ValueError as error:
        print(f"kvloom: {error}", file=sys.stderr)
        return USAGE
    out = options.out or ROOT / work.retrieve.weights.replace("{model}", work.info.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(fitted.tensors, out, metadata=_provenance(work, fitted, argv))
    console.print(_table(fitted))
    console.print(f"{out}, {out.stat().st_size:,} bytes", highlight=False)
    return OK


@dataclass(frozen=True)
class _Work:
    options: argparse.Namespace
    settings: Settings
    retrieve: TrainedRetriever
    info: ModelInfo
    prompts: list[Prompt]
    held_out: list[Prompt]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m models.fit", description=__doc__)
    parser.add_argument("words", nargs="+", metavar="key=value", help="as for harness/run.py")
    parser.add_argument("--prompts", type=int, default=24, help="that the model is shown")
    parser.add_argument("--held-out", type=int, default=6, help="prompts that judge the outcome")
    parser.add_argument("--lengths", type=int, nargs="+", help="of prompts, in turn; tokens")
    parser.add_argument("--steps", type=int, default=1500, help="of training, for gates")
    parser.add_argument("--seed", type=int, default=20261122, help="of prompts; not task.seed")
    parser.add_argument("--text", type=Path, help="a text file in place of the task's prompts")
    parser.add_argument("--out", type=Path, help="where algo.retrieve.weights points, if not given")
    return parser


def _prepare(options: argparse.Namespace) -> _Work:
    """Compose and check; raises ValueError of one line."""
    settings = settings_from(options.words)
    retrieve = build_algorithm(settings).retrieve
    if type(retrieve) not in KINDS:
        names = ", ".join(sorted(one.__module__.rpartition(".")[2] for one in KINDS))
        raise ValueError(f"algo={settings.algo.name} is not fitted to models; these are: {names}")
    assert isinstance(retrieve, TrainedRetriever)
    if min(options.prompts, options.held_out, options.steps, *(options.lengths or [1])) < 1:
        raise ValueError("--prompts, --held-out, --steps and --lengths take whole numbers above 0")
    tokenizer = load_tokenizer(tokenizer_path(settings))
    info = describe(settings, len(tokenizer))
    prompts = _prompts(options, settings, tokenizer, options.seed, options.prompts)
    held_out = _prompts(options, settings, tokenizer, options.seed + 1, options.held_out)
    return _Work(options, settings, retrieve, info, prompts, held_out)


def _prompts(
    options: argparse.Namespace, settings: Settings, tokenizer: Any, seed: int, count: int
) -> list[Prompt]:
    task = build(settings.task, "task")
    lengths = tuple(options.lengths or [task.length])
    if options.text is not None:
        if not options.text.is_file():
            raise ValueError(f"--text={str(options.text)!r} is no file; give a text file")
        return [
            prompt
            for number, length in enumerate(lengths)
            for prompt in text_prompts(
                options.text,
                tokenizer,
                seed=seed,
                num_prompts=len(range(number, count, len(lengths))),
                length=length,
            )
        ]
    if seed == task.seed:
        raise ValueError(f"--seed={seed} is task.seed, the prompts of evaluation; take another")
    return task_prompts(task, tokenizer, seed=seed, num_prompts=count, lengths=lengths)


def _run(work: _Work, console: Console) -> Fitted:
    device = choose_device(work.settings.backend.device)
    model = load(work.settings, work.info, device)
    steps = work.options.steps if KINDS[type(work.retrieve)].trains else 0
    total = len(work.prompts) + len(work.held_out) + steps
    with progress(total=total, unit="steps", console=console) as advance:
        job = Job(
            retrieve=work.retrieve,
            shape=work.info.shape,
            steps=steps,
            seed=work.options.seed,
            advance=advance,
        )
        return fit(model, job, work.prompts, work.held_out)


def _provenance(work: _Work, fitted: Fitted, argv: Sequence[str]) -> dict[str, str]:
    model = work.settings.model
    digest = None if isinstance(model, DummyModel) else weights_sha256(model_path(model))
    unfitted = replace(work.retrieve, weights="")
    return {
        "algo": work.settings.algo.name,
        "settings": repr(unfitted),
        "command": " ".join(["python -m models.fit", *argv]),
        "model": work.info.name,
        "model_sha256": digest or "random",
        "prompts": "text" if work.options.text else work.settings.task.target.rpartition(".")[2],
        "num_tokens": str(sum(len(prompt.ids) for prompt in work.prompts)),
        "date": datetime.now(UTC).date().isoformat(),
        **{
            f"recall{suffix}": json.dumps({layer: round(one, 4) for layer, one in shares.items()})
            for suffix, shares in _shares(fitted).items()
        },
    }


def _table(fitted: Fitted) -> Table:
    table = Table("layer", *(f"mass{suffix}" for suffix in _shares(fitted)), box=None)
    for layer in fitted.recall:
        table.add_row(str(layer), *(f"{one[layer]:.3f}" for one in _shares(fitted).values()))
    return table


def _shares(fitted: Fitted) -> dict[str, dict[int, float]]:
    return {"": fitted.recall, "_random": fitted.random, "_best": fitted.best}
