"""A small continuous-batching loop over an unpatched Hugging Face model and our pages."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, ClassVar

import torch
from torch import Tensor

from backends.base import Backend, KVRead, Request, TokenEvent, TokenScore
from backends.batch import Batch
from backends.context import Context
from backends.finish import Finish
from backends.paged_attention import PagedAttention
from backends.scheduler import Piece, Running, Schedule, Scheduler
from backends.step import Chunk, Step
from backends.transformers.plug import plug_in
from backends.transformers.sampling import draws_for, next_tokens
from backends.transformers.scoring import PromptScores, scoring_rows
from memory_tiers.counters import Counters


class TransformersBackend(Backend):
    """Decode rows of all running requests, and prompt chunks up to `chunk_tokens`, in each step.

    Several engines may share one model: which pages a forward pass reads travels with it.
    """

    provides: ClassVar[frozenset[str]] = frozenset(
        {"greedy", "sampling", "chunked_prefill", "log_probabilities"}
    )

    def __init__(self, model: Any, attention: PagedAttention, schedule: Schedule) -> None:
        """Plug the model in; no request is running."""
        self._model = model
        self._cache = plug_in(model)
        self.attention = attention
        self._device = attention.memory.geometry.device
        # No method of this engine: memory goes with the last reference, not with a found cycle.
        pages_for = partial(_pages_for, attention, schedule)
        self.scheduler = Scheduler(attention.memory, schedule, pages_for)
        self._failures: dict[str, str] = {}
        self._contexts: dict[str, Context] = {}
        self._scores = PromptScores()

    @property
    def counters(self) -> Counters:  # type: ignore[override]
        """What happened since the last reset."""
        return self.attention.memory.counters

    @property
    def busy(self) -> bool:
        """See Backend."""
        return self.scheduler.busy

    def submit(self, requests: Sequence[Request]) -> None:
        """See Backend."""
        for request in requests:
            self.scheduler.submit(request, draws_for(request.seed, request.max_new_tokens))

    def submit_after(self, request: Request, context: Context) -> None:
        """Queue a request whose context another engine has recorded; it is not computed again."""
        assert context.num_tokens == request.num_context < len(request.prompt_ids)
        self._contexts[request.uid] = context
        self.submit([request])

    @torch.inference_mode()
    def step(self) -> list[TokenEvent]:
        """See Backend."""
        self.scheduler.prepare()
        self._take_contexts()
        if (recorder := self.attention.recorder) is not None:
            recorder.scheduled(
                {one.slot: one.request.uid for one in self.scheduler.running},
                frozenset(one.slot for one in self.scheduler.running if one.paused),
            )
        decoding, pieces = self.scheduler.decoding, self.scheduler.pieces()
        self.attention.reads.members = tuple(one.request.uid for one in decoding)
        logits_BV = self._forward(decoding, pieces)
        self._count(decoding, pieces)
        if recorder is not None:
            recorder.end_step()
        for running in decoding:
            running.stored += 1
        for piece in pieces:
            piece.running.stored += piece.count
        if decoding:
            self.attention.memory.end_step()
        speaking = decoding + [piece.running for piece in pieces if not piece.running.in_prompt]
        if damaged := self._fail_damaged():
            healthy = [row for row, one in enumerate(speaking) if one.slot not in damaged]
            speaking, logits_BV = [speaking[row] for row in healthy], logits_BV[healthy]
        return self._emit(speaking, logits_BV) if speaking else []

    def take_failures(self) -> dict[str, str]:
        """See Backend."""
        failed, self._failures = self._failures, {}
        return failed

    def take_scores(self) -> dict[str, tuple[TokenScore, ...]]:
        """See Backend."""
        return self._scores.take()

    def take_reads(self) -> dict[str, KVRead]:
        """See Backend."""
        return self.attention.reads.take()

    def peak_bytes(self) -> dict[str, int]:
        """See Backend."""
        peaks = {tier.name: tier.peak_bytes for tier in self.attention.memory.tiers}
        if self.attention.index is not None:
            peaks["index"] = self.attention.index.peak_bytes
        if self.attention.eviction is not None:
            peaks["evictor"] = self.attention.eviction.peak_bytes
        tables = self.attention.memory.peak_tables
        peaks["page_tables"] = sum(sum(parts.values()) for parts in tables.values())
        return peaks

    @property
    def num_preempted(self) -> int:
        """See Backend."""
        return self.scheduler.num_preempted

    def facts(self) -> dict[str, Any]:
        """See Backend."""
        memory = self.attention.memory
        return {
            "tiers": {tier.name: tier.facts for tier in memory.tiers},
            "page_tables": memory.peak_tables,
            "preempted": self.num_preempted,
        }

    def reset_counters(self) -> None:
        """See Backend."""
        self.attention.memory.counters = Counters()

    def _take_contexts(self) -> None:
        """Store what was recorded of the contexts of requests that were just admitted."""
        waiting = [one for one in self.scheduler.running if one.request.uid in self._contexts]
        for running in waiting:
            context = self._contexts.pop(running.request.uid)
            self.counters.enter("prefill")
            for start, stop in self.scheduler.context_chunks(context.num_tokens):
                part = context.part(start, stop)
                running.stored = start
                batch = self._context_batch(running, part.num_tokens)
                for layer, brought in enumerate(part.layers):
                    self.attention.take(layer, batch, *brought, context.scale)
            running.stored = context.num_tokens

    def _forward(self, decoding: list[Running], pieces: list[Piece]) -> Tensor:
        """Logits of the decode rows, then of the last row of each piece that ends a prompt.

        Those of the rows before scored tokens go to the scores.
        """
        ids = [running.answer[-1] for running in decoding]
        positions = [running.stored for running in decoding]
        speaking, scoring = list(range(len(decoding))), []
        for piece in pieces:
            scoring += [len(ids) + row for row in scoring_rows(piece)]
            first, stop = piece.running.stored, piece.running.stored + piece.count
            ids += piece.running.request.prompt_ids[first:stop]
            positions += range(first, stop)
            if stop == len(piece.running.request.prompt_ids):
                speaking.append(len(ids) - 1)
        step = Step(
            self.attention,
            self._batch(decoding, 1) if decoding else None,
            tuple(self._chunk(piece) for piece in pieces),
        )
        output = self._model(
            input_ids=self._tensor(ids).unsqueeze(0),
            position_ids=self._tensor(positions).unsqueeze(0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=self._tensor(speaking + scoring),
            kvloom_step=step,
        )
        logits: Tensor = output.logits[0]
        self._scores.add(pieces, logits[len(speaking) :])
        return logits[: len(speaking)]

    def _chunk(self, piece: Piece) -> Chunk:
        running = piece.running
        if piece.is_context:
            return Chunk(self._context_batch(running, piece.count), False)
        batch = self._batch([running], piece.count)
        follows = running.request.follows is not None
        return Chunk(replace(batch, follows=follows), piece.is_question)

    def _context_batch(self, running: Running, new: int) -> Batch:
        request, batch = running.request, self._batch([running], new)
        ends_context = batch.longest == request.num_context
        return replace(batch, ends_context=ends_context, shared=request.num_shared)

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
                self._end(running)
        return events

    def _fail_damaged(self) -> Collection[int]:
        """End the requests whose KV was lost; their slots."""
        damaged = self.attention.memory.damaged_slots()
        for running in [one for one in self.scheduler.running if one.slot in damaged]:
            self._failures[running.request.uid] = damaged[running.slot]
            self._scores.forget(running.request.uid)
            self._end_reads(running)
            self.attention.release(running.slot)
            for uid in self.scheduler.retire(running):
                self._failures[uid] = f"its context was lost: {damaged[running.slot]}"
        return damaged

    def _end(self, running: Running) -> None:
        """A request is through: its context is asked again, or all of it is forgotten."""
        self._end_reads(running)
        coming = self.scheduler.next_on(running)
        if coming is None:
            self.attention.release(running.slot)
            self.scheduler.retire(running)
        else:
            self.counters.enter("question")
            self.attention.rewind(running.slot, coming.stored)

    def _end_reads(self, running: Running) -> None:
        request = running.request
        self.attention.reads.end(request.uid, len(request.prompt_ids), len(running.answer))


def _finish(request: Request, answer: list[int]) -> Finish | None:
    if answer[-1] in request.stop_ids or (request.ends is not None and request.ends(answer)):
        return "stop"
    return "length" if len(answer) == request.max_new_tokens else None


def _pages_for(attention: PagedAttention, schedule: Schedule, request: Request) -> int:
    return attention.pages_for(request.most_tokens, request.num_ended, whole=schedule.reads_whole)
