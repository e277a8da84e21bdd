"""A small continuous-batching loop over an unpatched Hugging Face model and our pages."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor

from backends.base import Backend, Finish, Request, TokenEvent
from backends.batch import Batch
from backends.paged_attention import PagedAttention
from backends.transformers.plug import Chunk, Step, plug_in
from backends.transformers.sampling import draws_for, next_tokens
from memory_tiers.counters import Counters


@dataclass
class Running:
    """A request that holds a slot, and how far it is."""

    request: Request
    slot: int
    draws_T: Tensor
    stored: int = 0
    answer: list[int] = field(default_factory=list)

    @property
    def in_prompt(self) -> bool:
        """Whether a part of the prompt is still to be stored."""
        return self.stored < len(self.request.prompt_ids)


@dataclass(frozen=True)
class Piece:
    """Prompt tokens of one sequence that a step stores."""

    running: Running
    count: int
    is_question: bool


class TransformersBackend(Backend):
    """Decode rows of all running requests, and prompt chunks up to `chunk_tokens`, in each step.

    Several engines may share one model: which pages a forward pass reads travels with it.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"greedy", "sampling", "chunked_prefill"})

    def __init__(
        self, model: Any, attention: PagedAttention, *, max_batch: int, chunk_tokens: int
    ) -> None:
        """Plug the model in; no request is running."""
        self._model = model
        self._cache = plug_in(model)
        self.attention = attention
        self._chunk_tokens = chunk_tokens
        self._device = attention.memory.geometry.device
        self._waiting: deque[Request] = deque()
        self._running: list[Running] = []
        self._free_slots = list(range(max_batch))[::-1]
        self._promised_pages: dict[int, int] = {}
        self._total_pages = attention.memory.free_pages

    @property
    def counters(self) -> Counters:  # type: ignore[override]
        """What happened since the last reset."""
        return self.attention.memory.counters

    @property
    def busy(self) -> bool:
        """See Backend."""
        return bool(self._waiting or self._running)

    def submit(self, requests: Sequence[Request]) -> None:
        """See Backend."""
        for request in requests:
            self._check_fits(request)
            self._waiting.append(request)

    @torch.inference_mode()
    def step(self) -> list[TokenEvent]:
        """See Backend."""
        self._admit()
        decoding = [running for running in self._running if not running.in_prompt]
        pieces = self._pieces()
        logits_BV = self._forward(decoding, pieces)
        self._count(decoding, pieces)
        if (recorder := self.attention.recorder) is not None:
            recorder.end_step()
        for running in decoding:
            running.stored += 1
        for piece in pieces:
            piece.running.stored += piece.count
        speaking = decoding + [piece.running for piece in pieces if not piece.running.in_prompt]
        return self._emit(speaking, logits_BV) if speaking else []

    def peak_bytes(self) -> dict[str, int]:
        """See Backend."""
        peaks = {tier.name: tier.peak_bytes for tier in self.attention.memory.tiers}
        if self.attention.index is not None:
            peaks["index"] = self.attention.index.store.peak_bytes
        return peaks

    def reset_counters(self) -> None:
        """See Backend."""
        self.attention.memory.counters = Counters()

    def _check_fits(self, request: Request) -> None:
        geometry, table = self.attention.memory.geometry, self.attention.memory.table
        takes = f"request {request.uid} takes up to {request.most_tokens} tokens"
        if request.most_tokens > (room := table.pages_per_row * geometry.page_tokens):
            raise ValueError(f"{takes}, the page table has room for {room}; lower task.length")
        if (needed := geometry.pages_for(request.most_tokens)) > self._total_pages:
            last = self.attention.memory.tiers[-1]
            raise ValueError(
                f"{takes} = {needed} pages, tier.{last.name}.size holds {self._total_pages}; "
                "raise it, or lower task.length"
            )

    def _admit(self) -> None:
        """Give slots to waiting requests while the last tier can hold all that they may store."""
        while self._waiting and self._free_slots:
            request = self._waiting[0]
            needed = self.attention.memory.geometry.pages_for(request.most_tokens)
            if sum(self._promised_pages.values()) + needed > self._total_pages:
                return
            self._waiting.popleft()
            slot = self._free_slots.pop()
            self._promised_pages[slot] = needed
            if (recorder := self.attention.recorder) is not None:
                recorder.begin(slot, request.uid)
            draws_T = draws_for(request.seed, request.max_new_tokens)
            self._running.append(Running(request, slot, draws_T))

    def _pieces(self) -> list[Piece]:
        pieces, left = [], self._chunk_tokens
        for running in self._running:
            if running.in_prompt and left > 0:
                piece = self._piece(running, left)
                pieces.append(piece)
                left -= piece.count
        return pieces

    def _piece(self, running: Running, most: int) -> Piece:
        request = running.request
        if running.stored < request.num_context:
            return Piece(running, min(most, request.num_context - running.stored), False)
        evict = self.attention.algorithm.evict
        most = most if evict is None else min(most, evict.most_rows)
        return Piece(running, min(most, len(request.prompt_ids) - running.stored), True)

    def _forward(self, decoding: list[Running], pieces: list[Piece]) -> Tensor:
        """Logits of the decode rows, then of the last row of each piece that ends a prompt."""
        ids = [running.answer[-1] for running in decoding]
        positions = [running.stored for running in decoding]
        speaking = list(range(len(decoding)))
        for piece in pieces:
            first, stop = piece.running.stored, piece.running.stored + piece.count
            ids += piece.running.request.prompt_ids[first:stop]
            positions += range(first, stop)
            if stop == len(piece.running.request.prompt_ids):
                speaking.append(len(ids) - 1)
        step = Step(
            self.attention,
            self._batch(decoding, 1) if decoding else None,
            tuple(Chunk(self._batch([one.running], one.count), one.is_question) for one in pieces),
        )
        output = self._model(
            input_ids=self._tensor(ids).unsqueeze(0),
            position_ids=self._tensor(positions).unsqueeze(0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=self._tensor(speaking),
            kvloom_step=step,
        )
        logits: Tensor = output.logits[0]
        return logits

    def _batch(self, members: list[Running], new: int) -> Batch:
        slots = tuple(running.slot for running in members)
        stored = tuple(running.stored for running in members)
        return Batch(self.attention.memory.table, slots, stored, new)

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _count(self, decoding: list[Running], pieces: list[Piece]) -> None:
        counters = self.counters
        counters.decode.steps += bool(decoding)
        counters.decode.rows += len(decoding)
        for piece in pieces:
            phase = counters.question if piece.is_question else counters.prefill
            phase.steps += 1
            phase.rows += piece.count

    def _emit(self, speaking: list[Running], logits_BV: Tensor) -> list[TokenEvent]:
        temperature_B = torch.tensor([one.request.temperature for one in speaking])
        draw_B = torch.stack([one.draws_T[len(one.answer)] for one in speaking])
        device = logits_BV.device
        tokens = next_tokens(logits_BV, temperature_B.to(device), draw_B.to(device)).tolist()
        now = perf_counter()
        events = []
        for running, token in zip(speaking, tokens, strict=True):
            running.answer.append(token)
            finish = _finish(running.request, running.answer)
            events.append(TokenEvent(running.request.uid, token, now, finish))
            if finish is not None:
                self._retire(running)
        return events

    def _retire(self, running: Running) -> None:
        self.attention.release(running.slot)
        self._running.remove(running)
        self._free_slots.append(running.slot)
        del self._promised_pages[running.slot]


def _finish(request: Request, answer: list[int]) -> Finish | None:
    if answer[-1] in request.stop_ids:
        return "stop"
    return "length" if len(answer) == request.max_new_tokens else None
