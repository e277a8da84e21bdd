"""One training stage: Muon for matrices, AdamW for embeddings and norms, loss on answers only."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.training.dialect import Dialect, weighted
from models.training.muon import Muon
from models.training.positions import Batch, Spread, pack
from models.training.sample import Language, Source
from models.training.tasks import draw_sample
from models.training.twin import MASKED, Twin

NUM_WARMUP_STEPS = 10
MIN_LR_SHARE = 0.02
REPORT_EVERY = 25
BATCH_TOKENS = 2560
FOCUS = 0.1
SAVE_EVERY = 100

Report = Callable[[dict[str, object]], None]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of a stage with one mix of tasks, one set of lengths and one pair of rates."""

    num_tokens: int
    lengths: Sequence[int]
    mix: Mapping[str, float]
    matrix_lr: float
    vector_lr: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Phases that share an optimiser; the rates fall linearly over the last `decay_share`."""

    phases: Sequence[Phase]
    decay_share: float
    probe_tokens: int
    batch_tokens: int = BATCH_TOKENS
    num_probe_samples: int = 32
    focused: bool = False
    dialect: Dialect = field(default_factory=Dialect)


@dataclass(frozen=True)
class Scored:
    """Mean loss over a batch's answer tokens, and the share of them that argmax gets right."""

    loss: Tensor
    accuracy: float


def train_stage(
    model: Twin,
    language: Language,
    stage: Stage,
    rng: random.Random,
    report: Report,
    keep: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Train in place, report every 25 steps; the answer-token accuracy per task at the end.

    `keep` is called every 100 steps, for a look at a model that is still being trained.
    """
    source = Source(language, stage.dialect)
    optimisers = _Optimisers(model)
    start = time.monotonic()
    num_seen, num_steps, smooth_loss = 0, 0, 0.0
    while (phase := phase_at(stage, num_seen)) is not None:
        batch = _draw_step(source, phase, stage.batch_tokens, rng)
        scored = answer_loss(model, batch, focused=stage.focused)
        optimisers.step(scored.loss, phase, _rate_share(stage, num_seen, num_steps))
        loss = scored.loss.item()
        smooth_loss = loss if num_steps == 0 else 0.9 * smooth_loss + 0.1 * loss
        num_steps += 1
        num_seen += batch.num_nominal_tokens
        if keep is not None and num_steps % SAVE_EVERY == 0:
            keep()
        if num_steps % REPORT_EVERY == 0:
            report(
                {
                    "step": num_steps,
                    "tokens": num_seen,
                    "seconds": round(time.monotonic() - start, 1),
                    "loss": round(smooth_loss, 3),
                    "accuracy": round(scored.accuracy, 3),
                }
            )
    return probe(model, source, stage, rng)


def probe(model: Twin, source: Source, stage: Stage, rng: random.Random) -> dict[str, float]:
    """Share of right answer tokens, teacher forced, per task; positions contiguous, no dilution."""
    tasks = dict.fromkeys(task for phase in stage.phases for task in phase.mix)
    spread = Spread(contiguous_share=1.0, dilute=False)
    accuracies: dict[str, float] = {}
    for task in tasks:
        names = [task] * stage.num_probe_samples
        batch = draw_batch(source, names, stage.probe_tokens, spread, rng)
        # A compiled model would be compiled once more for this one shape.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            accuracies[task] = round(answer_loss(model, batch).accuracy, 3)
    return accuracies


def draw_batch(
    source: Source,
    tasks: Sequence[str],
    num_tokens: int,
    spread: Spread,
    rng: random.Random,
) -> Batch:
    """One sample per task name, packed."""
    samples = [draw_sample(source, task, num_tokens, rng) for task in tasks]
    return pack(samples, num_tokens, spread, rng)


def answer_loss(model: Twin, batch: Batch, *, focused: bool = False) -> Scored:
    """Cross entropy of answer tokens; where several are right, of their summed probability.

    `focused`: tokens weigh by how unsure the model is of them (arXiv:1708.02002, with gamma 1).
    """
    # Only answer places are scored: the vocabulary matrix would cost as much as the layers.
    rows_A, columns_A = torch.nonzero(batch.is_answer_BT[:, 1:], as_tuple=True)
    with torch.autocast("cpu", torch.bfloat16):
        hidden_BTE = model(
            batch.ids_BT, batch.positions_BT, batch.key_bias_BT, dtype=torch.bfloat16
        )
        logits_AV = model.logits(hidden_BTE[rows_A, columns_A]).float()
    targets_A = batch.ids_BT[rows_A, columns_A + 1]
    log_probs_AV = torch.log_softmax(logits_AV, -1)
    losses_A = -log_probs_AV.gather(1, targets_A[:, None])[:, 0]
    best_A = logits_AV.argmax(-1)
    is_right_A = best_A == targets_A
    places = list(zip(rows_A.tolist(), (columns_A + 1).tolist(), strict=True))
    open_rows = [index for index, place in enumerate(places) if place in batch.alternatives]
    if open_rows:
        allowed_NC = _padded([batch.alternatives[places[index]] for index in open_rows])
        open_N = torch.tensor(open_rows)
        log_probs_NC = log_probs_AV[open_N].gather(1, allowed_NC.clamp(min=0))
        log_probs_NC = log_probs_NC.masked_fill(allowed_NC < 0, MASKED)
        losses_A = losses_A.index_put((open_N,), -torch.logsumexp(log_probs_NC, 1))
        is_allowed_N = (best_A[open_N, None] == allowed_NC).any(1)
        is_right_A = is_right_A.index_put((open_N,), is_allowed_N)
    # What is said with confidence weighs little: most tokens of an answer are copied on.
    unsure_A = 1 - (1 - FOCUS) * torch.exp(-losses_A.detach())
    weights_A = unsure_A if focused else torch.ones_like(losses_A)
    loss = (weights_A * losses_A).sum() / weights_A.sum()
    return Scored(loss, is_right_A.float().mean().item())


def phase_at(stage: Stage, num_seen: int) -> Phase | None:
    """The phase that holds the next token, None when the stage is over."""
    for phase in stage.phases:
        if num_seen < phase.num_tokens:
            return phase
        num_seen -= phase.num_tokens
    return None


def _rate_share(stage: Stage, num_seen: int, num_steps: int) -> float:
    left = 1 - num_seen / sum(phase.num_tokens for phase in stage.phases)
    decay = max(MIN_LR_SHARE, left / stage.decay_share) if stage.decay_share else 1.0
    return min(1.0, num_steps / NUM_WARMUP_STEPS) * min(1.0, decay)


class _Optimisers:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""

    def __init__(self, model: Twin) -> None:
        named = dict(model.named_parameters())
        matrices = {
            name for name, weight in named.items() if weight.ndim == 2 and "embed" not in name
        }
        self.vectors = [weight for name, weight in named.items() if name not in matrices]
        self.muon = Muon([named[name] for name in named if name in matrices], lr=0.0)
        self.adam = torch.optim.AdamW(self.vectors, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, loss: Tensor, phase: Phase, rate_share: float) -> None:
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.vectors, 1.0)
        for optimiser, rate in ((self.muon, phase.matrix_lr), (self.adam, phase.vector_lr)):
            for group in optimiser.param_groups:
                group["lr"] = rate * rate_share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def _draw_step(source: Source, phase: Phase, batch_tokens: int, rng: random.Random) -> Batch:
    num_tokens = rng.choice(list(phase.lengths))
    num_samples = max(2, batch_tokens // num_tokens)
    tasks = [weighted(phase.mix, rng) for _ in range(num_samples)]
    return draw_batch(source, tasks, num_tokens, Spread(), rng)


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])
