"""A composed system that answers requests as they come, outside of a measured cell."""

from collections.abc import Sequence
from typing import Any

import torch

from backends.attention.select import choose_kernel
from backends.base import Request
from backends.transformers.loading import load_tokenizer, stop_ids
from harness.budgets import in_tokens
from harness.build import build_algorithm
from harness.composing import settings_from
from harness.preflight import plan_for
from harness.system import assemble, choose_device, describe, load, tokenizer_path
from harness.trial import Heard, drive


class AnsweringSystem:
    """The model and the settings; memory is made for each batch of requests, as large as it needs.

    Which part of a prompt goes through the algorithm is said by `question_tokens`: the last ones of
    each context, and by `protocol`: with question_dense, none of them.
    """

    def __init__(self, overrides: Sequence[str], question_tokens: int) -> None:
        """Compose and load; raises ValueError of one line."""
        settings = settings_from(overrides)
        download = getattr(settings.model, "download", False)
        self.tokenizer: Any = load_tokenizer(tokenizer_path(settings), download=download)
        self.info = describe(settings, len(self.tokenizer))
        self.settings = in_tokens(settings, self.info)
        self.algorithm = build_algorithm(self.settings).fitted(self.info.shape)
        self.device = choose_device(self.settings.backend.device)
        dense = self.settings.protocol.name == "question_dense"
        self._question_tokens = 0 if dense else question_tokens
        self._model = load(self.settings, self.info, self.device)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the model's, and the tokenizer's end of text."""
        if self.settings.protocol.ignore_stop:
            return frozenset()
        ends = self.tokenizer.eos_token_id
        return stop_ids(self.info.config) | (frozenset() if ends is None else {ends})

    def num_context(self, num_tokens: int) -> int:
        """Of a context of so many tokens, those that are prefilled densely."""
        return max(0, num_tokens - self._question_tokens)

    def answer(self, requests: Sequence[Request]) -> list[Heard]:
        """Everything through one engine, batched by it; raises ValueError for what cannot fit."""
        if not requests:
            return []
        longest = max(one.most_tokens for one in requests)
        rest = max(one.most_tokens - one.num_context for one in requests)
        settings, info = self.settings, self.info
        plan = plan_for(settings, self.algorithm, info, longest, self.device, rest_tokens=rest)
        kernel = choose_kernel(
            settings.backend.kernel,
            device=self.device,
            dtype=info.dtype,
            head_dim=info.head_dim,
            page_size=plan.geometry.page_tokens,
        )
        engine = assemble(settings, self.algorithm, plan, info, self._model, kernel)
        heard = drive(engine, requests)
        if lost := [one.error for one in heard.values() if one.error]:
            raise RuntimeError(f"{len(lost)} requests broke off: {lost[0]}")
        return [heard[one.uid] for one in requests]

    @property
    def num_parameters(self) -> int:
        """Of the model."""
        return sum(one.numel() for one in self._model.parameters())

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.info.dtype
