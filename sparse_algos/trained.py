"""What a retriever with trained or calibrated tensors is: one file of them for each model."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sparse_algos.model_shape import ModelShape
from sparse_algos.retriever import Retriever

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class TrainedRetriever(Retriever):
    """Keeps what a file of safetensors says of each layer and kv head.

    weights: the file; `{model}` in it stands for the model's name, and it is looked for in the
    repository too. made_by: the command that makes one.
    """

    weights: str

    @property
    @abstractmethod
    def made_by(self) -> str:
        """The command that makes the file for a model."""

    @abstractmethod
    def tensor_shapes(self, model: ModelShape) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what the file must hold; layers outermost, kv heads next."""

    def fitted(self, model: ModelShape) -> Self:
        """See Retriever: with the tensors of the model's file, in float32."""
        path = self._file(model)
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"algo.retrieve.weights={str(path)!r}: the {self.trained} of model {model.name} "
                f"cannot be read there ({type(error).__name__}); make the file with "
                f"`{self.made_by}`, or name another"
            ) from None
        return self.with_tensors(found, model)

    def with_tensors(self, found: dict[str, Tensor], model: ModelShape) -> Self:
        """The same with these tensors; raises ValueError where one is absent or misshapen."""
        for name, shape in self.tensor_shapes(model).items():
            if name not in found:
                raise ValueError(
                    f"algo.retrieve.weights={self.weights!r} has no tensor {name!r}; make it anew "
                    f"with `{self.made_by}`"
                )
            if tuple(found[name].shape) != shape:
                raise ValueError(
                    f"algo.retrieve.weights={self.weights!r}: tensor {name!r} is "
                    f"{list(found[name].shape)}, model {model.name} needs {list(shape)}; make it "
                    f"anew with `{self.made_by}`"
                )
        tensors = {name: found[name].to(torch.float32) for name in self.tensor_shapes(model)}
        return replace(self, _tensors=tensors)

    def tensor(self, name: str, layer: int) -> Tensor:
        """One layer's part of a tensor, kv heads outermost."""
        assert name in self._tensors, "a trained retriever is `fitted` to its model before use"
        return self._tensors[name][layer]

    def _file(self, model: ModelShape) -> Path:
        named = Path(self.weights.replace("{model}", model.name))
        return named if named.exists() else ROOT / named


def per_head(matrix_KDE: Tensor, vector_RND: Tensor) -> Tensor:
    """Vectors of rows, kv heads innermost, times the matrix of their head: float32 [R, N, E]."""
    heads = len(matrix_KDE)
    vector_BKND = vector_RND.float().unflatten(0, (-1, heads))
    return (vector_BKND @ matrix_KDE.to(vector_RND.device)).flatten(0, 1)
