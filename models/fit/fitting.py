"""From a retriever and a model to tensors, and how good they are on prompts that were held out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.fit.base import Advance, Fitter, Seen
from models.fit.channels import Channels
from models.fit.components import Components
from models.fit.gates import Gates, Training
from models.fit.prompts import Prompt
from models.fit.recall import best_recall, recall
from models.fit.watch import watch
from sparse_algos.model_shape import ModelShape
from sparse_algos.retrieve.double_sparsity import DoubleSparsity
from sparse_algos.retrieve.loki import Loki
from sparse_algos.retrieve.seerattention_r import SeerAttentionR
from sparse_algos.trained import TrainedRetriever


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is fitted to what; steps: of training, where there is any."""

    retrieve: TrainedRetriever
    shape: ModelShape
    steps: int
    seed: int
    advance: Advance


@dataclass(frozen=True)
class Fitted:
    """Tensors, and the attention mass that is read with them, by layer, on held-out prompts.

    random: with random tensors; best: if the partitions of largest mass were read.
    """

    tensors: dict[str, Tensor]
    recall: dict[int, float]
    random: dict[int, float]
    best: dict[int, float]


@dataclass(frozen=True)
class Kind:
    """How retrievers of one class are fitted; trains: whether `steps` are taken."""

    make: Callable[[Any, Job], Fitter]
    trains: bool


KINDS: Mapping[type[TrainedRetriever], Kind] = {
    DoubleSparsity: Kind(lambda _, job: Channels(job.shape), trains=False),
    Loki: Kind(lambda _, job: Components(job.shape), trains=False),
    SeerAttentionR: Kind(
        lambda retrieve, job: Gates(
            job.shape, retrieve.block_tokens, Training(steps=job.steps), job.advance
        ),
        trains=True,
    ),
}


def fit(model: Any, job: Job, prompts: Sequence[Prompt], held_out: Sequence[Prompt]) -> Fitted:
    """Show prompts, make tensors, and measure them; raises ValueError where the model is unfit."""
    by_chance = job.retrieve.with_tensors(random_tensors(job), job.shape)
    fitter = KINDS[type(job.retrieve)].make(job.retrieve, job)
    for prompt in prompts:
        watch(model, prompt.ids, prompt.rows_M, fitter.see)
        job.advance("prompts")
    tensors = fitter.tensors()
    retrieve = job.retrieve.with_tensors(tensors, job.shape)
    shares = (_Shares(), _Shares(), _Shares())

    def measure(seen: Seen) -> None:
        shares[0].add(seen.layer, recall(retrieve, seen))
        shares[1].add(seen.layer, recall(by_chance, seen))
        shares[2].add(seen.layer, best_recall(retrieve, seen))

    for prompt in held_out:
        watch(model, prompt.ids, prompt.rows_M, measure)
        job.advance("held-out prompts")
    return Fitted(tensors, *(one.means() for one in shares))


def random_tensors(job: Job) -> dict[str, Tensor]:
    """Normal numbers in the shapes of the real ones."""
    generator = torch.Generator().manual_seed(job.seed)
    shapes = job.retrieve.tensor_shapes(job.shape)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


class _Shares:
    """Sums by layer."""

    def __init__(self) -> None:
        self._found: dict[int, list[float]] = {}

    def add(self, layer: int, share: float) -> None:
        self._found.setdefault(layer, []).append(share)

    def means(self) -> dict[int, float]:
        return {layer: sum(found) / len(found) for layer, found in sorted(self._found.items())}
