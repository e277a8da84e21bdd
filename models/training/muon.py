"""Muon: momentum whose matrices are made orthogonal before each step (K. Jordan et al., 2024)."""

from collections.abc import Iterable

import torch
from torch import Tensor

# Coefficients of the quintic Newton-Schulz iteration, from Muon's reference implementation.
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
NUM_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for matrices only; no weight decay."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        """Refuse nothing: the caller passes matrices."""
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """See torch.optim.Optimizer; no closure."""
        assert closure is None
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for matrices in alike.values():
                self._update(matrices, group["lr"], group["momentum"])

    def _update(self, matrices: list[Tensor], lr: float, momentum: float) -> None:
        """Matrices of one shape, made orthogonal together."""
        directions = torch.stack([self._direction(matrix, momentum) for matrix in matrices])
        num_rows, num_columns = matrices[0].shape
        rate = lr * max(1.0, num_rows / num_columns) ** 0.5
        for matrix, direction in zip(matrices, orthogonalise(directions), strict=True):
            matrix.add_(direction.to(matrix.dtype), alpha=-rate)

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        state = self.state[matrix]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(matrix)
        gradient = matrix.grad
        assert gradient is not None
        state["velocity"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["velocity"], momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices [..., rows, columns], roughly, in bfloat16.

    Singular values end between 0.7 and 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrices.bfloat16()
    x = torch.div(x, x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
