"""One layer of attention over paged KV: the algorithm and the memory, joined.

Index = build or append, Offload = write, Select = score and select, Retrieve = plan and execute,
Attention = attend: the five operations of SPIN (arXiv:2604.26837, section 4.1).
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from backends.batch import Batch
from backends.chunk_attention import ChunkAttention
from backends.prefill_attention import PatternAttention
from backends.row_attention import RowAttention
from backends.summarise import Arrived


class PagedAttention(RowAttention):
    """Attention of all layers for the sequences of one engine: of chunks, and of single rows."""

    def dense(
        self,
        layer: int,
        batch: Batch,
        query_MHD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
    ) -> Tensor:
        """A chunk of one sequence that sees everything before it, or what the pattern chooses.

        [M, H, D]. After an evictor has acted, everything is what it has left.
        """
        assert len(batch.slots) == 1
        if batch.follows and self._eviction_of(layer) is not None:
            rows = query_MHD.unsqueeze(0), key_MKD.unsqueeze(0), value_MKD.unsqueeze(0)
            return self.sparse(layer, batch, *rows, scale, selects=False)[0]
        self._arrive(layer, batch, query_MHD, key_MKD, value_MKD, scale)
        attend = self._chunk_attention(layer)
        out_MHD = attend(layer, batch, query_MHD, key_MKD, value_MKD, scale)
        self._leave(layer, batch, query_MHD, key_MKD, scale)
        return out_MHD

    def take(
        self,
        layer: int,
        batch: Batch,
        query_MHD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
    ) -> None:
        """All that a dense chunk leaves behind, without its attention."""
        self._arrive(layer, batch, query_MHD, key_MKD, value_MKD, scale)
        self._leave(layer, batch, query_MHD, key_MKD, scale)

    def sparse(
        self,
        layer: int,
        batch: Batch,
        query_BMHD: Tensor,
        key_BMKD: Tensor,
        value_BMKD: Tensor,
        scale: float,
        *,
        selects: bool = True,
    ) -> Tensor:
        """Rows that read what the algorithm selects for each of them: [B, M, H, D].

        selects: whether a retriever does; otherwise they read all that is left.
        """
        self._show(layer, batch, key_BMKD.flatten(0, 1), value_BMKD.flatten(0, 1))
        if self.tape is not None:
            self.tape.add(layer, query_BMHD[0], key_BMKD[0], value_BMKD[0], scale)
        if (eviction := self._eviction_of(layer)) is not None:
            eviction.make_room(layer, batch)
            batch = eviction.in_slots(layer, batch)
        if (index := self._index_of(layer)) is not None:
            index.rebuild(layer, batch)
        self.store(layer, batch, *(one.flatten(0, 1) for one in (query_BMHD, key_BMKD, value_BMKD)))
        num_heads = self.memory.geometry.num_kv_heads
        query_BKMGD = query_BMHD.unflatten(2, (num_heads, -1)).transpose(1, 2)
        query_NGD = query_BKMGD.flatten(0, 2).contiguous()
        chooser = index if selects else None
        if chooser is not None and batch.new == 1:
            attended = self._decode(chooser, layer, batch, query_NGD, scale)
        else:
            attended = self._attend_rows(chooser, layer, batch, query_NGD, scale)
        if self.probe is not None and self.memory.counters.phase == "decode":
            window = self.rules.window_of(layer)
            self.probe.compare(layer, query_NGD, attended, scale, window)
        out_BKMGD = attended.out.view(query_BKMGD.shape)
        return out_BKMGD.transpose(1, 2).flatten(2, 3)

    def store(
        self, layer: int, batch: Batch, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor
    ) -> None:
        """Write packed keys and values, [B * M, K, D], to pages and summarise them."""
        key_ND, value_ND = (_by_row(one, batch.new) for one in (key_NKD, value_NKD))
        self.memory.write(
            batch.write_pages(layer),
            batch.write_slots_N,
            key_ND,
            value_ND,
            shared=batch.new > 1,
        )
        if (eviction := self._eviction_of(layer)) is not None:
            eviction.stored(layer, batch, key_ND)
        if (index := self._index_of(layer)) is not None:
            query_NKGD = query_NHD.unflatten(1, (self.memory.geometry.num_kv_heads, -1))
            arrived = Arrived(key_ND, value_ND, _by_row(query_NKGD, batch.new))
            index.update(layer, batch, arrived)

    def pages_for(self, num_tokens: int, num_context: int = 0, *, whole: bool = False) -> int:
        """Pages that a sequence takes at most, over all layers and kv heads.

        num_context: tokens of its context; whole: whether that is read in one pass.
        """
        geometry = self.memory.geometry
        if self.eviction is not None:
            return self.eviction.peak_pages(num_context, num_tokens, whole=whole)
        waste = 0 if self.index is None else self.index.waste_pages(num_tokens)
        rows = geometry.num_layers * geometry.num_kv_heads
        return geometry.pages_for(num_tokens) + rows * waste

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        if self.recorder is not None:
            self.recorder.end(slot)
        self.memory.release(slot)
        if self.index is not None:
            self.index.release(slot)
        if self.eviction is not None:
            self.eviction.release(slot)

    def rewind(self, slot: int, num_tokens: int) -> None:
        """Of a sequence, keep what is left of its shared context, the first `num_tokens` tokens."""
        for layer in range(self.memory.geometry.num_layers):
            index = self._index_of(layer)
            if (eviction := self._eviction_of(layer)) is not None:
                eviction.rewind(layer, slot)
            else:
                self.memory.free(self.memory.table.pages_behind(layer, slot, num_tokens))
                if index is not None:
                    index.rewind(layer, slot, num_tokens)
            if index is not None:
                index.rewind_values(layer, slot)

    def _arrive(
        self,
        layer: int,
        batch: Batch,
        query_MHD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
    ) -> None:
        """A dense chunk is stored."""
        self._record(layer, batch, None)
        if self.tape is not None:
            self.tape.add(layer, query_MHD, key_MKD, value_MKD, scale)
        self._show(layer, batch, key_MKD, value_MKD)
        self.store(layer, batch, query_MHD, key_MKD, value_MKD)

    def _chunk_attention(self, layer: int) -> Callable[..., Tensor]:
        """Of the pattern where there is one and it acts, else dense."""
        if self.algorithm.prefill is not None and layer not in self.rules.dense_layers:
            return PatternAttention(self.memory, self.kernel, self.algorithm.prefill).attend
        window = self.rules.window_of(layer)
        return partial(ChunkAttention(self.memory, self.kernel).attend, window=window)

    def _leave(
        self, layer: int, batch: Batch, query_MHD: Tensor, key_MKD: Tensor, scale: float
    ) -> None:
        """A dense chunk was attended, if it was."""
        if (eviction := self._eviction_of(layer)) is not None:
            eviction.after_chunk(layer, batch, query_MHD, key_MKD, scale)

    def _show(self, layer: int, batch: Batch, key_NKD: Tensor, value_NKD: Tensor) -> None:
        """Let a probe see packed keys and values before anything happens to them."""
        if self.probe is not None:
            key_ND, value_ND = _by_row(key_NKD, batch.new), _by_row(value_NKD, batch.new)
            self.probe.store(layer, batch, key_ND, value_ND)


def _by_row(tensor_NKD: Tensor, new: int) -> Tensor:
    """Packed tokens [B * M, K, D] in the order of rows and their tokens, [B * K * M, D]."""
    if new == 1:
        return tensor_NKD.flatten(0, 1)
    return tensor_NKD.unflatten(0, (-1, new)).transpose(1, 2).flatten(0, 2)
