"""The index of a retriever that rebuilds keys: factors of contexts, and the keys made from them."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from backends.attention.base import AttentionKernel
from backends.batch import Batch
from backends.index import Index
from backends.shared_tokens import SharedTokens
from backends.summarise import Arrived
from memory_tiers.base import PartitionMapper
from memory_tiers.huge import huge_empty
from memory_tiers.manager import CacheManager
from memory_tiers.rebuilder import KeyRebuilder
from memory_tiers.summary_store import SummaryStore
from sparse_algos.index_data import TensorSpec
from sparse_algos.low_rank import LowRankRetriever
from sparse_algos.retriever import Retriever


class Factored(KeyRebuilder):
    """Factors of contexts, X of them: each is that of one layer of one sequence slot."""

    def __init__(self, retrieve: LowRankRetriever, memory: CacheManager) -> None:
        """No context is factorised."""
        geometry, table = memory.geometry, memory.table
        self._retrieve = retrieve
        self._memory = memory
        self._heads, self._size = geometry.num_kv_heads, geometry.page_tokens
        contexts, most = geometry.num_layers * table.num_sequences, table.token_pages * self._size
        spec = {"coordinates": TensorSpec((retrieve.rank,), geometry.dtype)}
        self._tokens = SummaryStore(spec, contexts, most, geometry.device)
        shape = (contexts, self._heads, retrieve.rank, geometry.head_dim)
        self._basis_XKED = huge_empty(shape, geometry.dtype, geometry.device)
        self._is_rebuilt_P = torch.zeros(table.num_pages, dtype=torch.bool, device=geometry.device)
        self._held: set[int] = set()
        self._peak_held = 0

    @property
    def peak_bytes(self) -> int:
        """Most bytes that factors took at one time, and what says which pages have any."""
        basis = self._basis_XKED[:1].numel() * self._basis_XKED.itemsize
        return self._tokens.peak_bytes + self._peak_held * basis + self._is_rebuilt_P.numel()

    def keep(self, context: int, key_KTD: Tensor) -> None:
        """Factorise the keys of a context."""
        coordinates_TE, basis_KED = self._retrieve.factorised(key_KTD)
        token_T = torch.arange(len(coordinates_TE), device=key_KTD.device)
        context_T = torch.full_like(token_T, context)
        self._tokens.reserve(context_T[:1], len(token_T))
        self._tokens.write(context_T, token_T, {"coordinates": coordinates_TE})
        self._basis_XKED[context] = basis_KED
        self._held.add(context)
        self._peak_held = max(self._peak_held, len(self._held))

    def release(self, contexts: range, pages_N: Tensor) -> None:
        """Forget contexts that had these pages."""
        self._held.difference_update(contexts)
        self._tokens.release(torch.tensor(contexts, device=pages_N.device))
        self._is_rebuilt_P[pages_N] = False

    def move_without_keys(self, pages_N: Tensor) -> None:
        """From now on these pages have no keys but rebuilt ones."""
        self._is_rebuilt_P[pages_N] = True
        frames_N = self._memory.frames(pages_N)
        here_N = frames_N >= 0
        self.refill(pages_N[here_N], frames_N[here_N])

    def is_rebuilt(self, pages_N: Tensor) -> Tensor:
        """See KeyRebuilder."""
        return self._is_rebuilt_P[pages_N]

    def refill(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See KeyRebuilder."""
        if pages_N.numel():
            self._memory.pool_FPSD[frames_N, 0] = self.keys(pages_N)

    def keys(self, pages_N: Tensor) -> Tensor:
        """The keys of pages of factorised contexts, [N, S, D]; one product for each row."""
        row_N = pages_N // self._memory.table.pages_per_row
        rows_R, owner_N = row_N.unique(return_inverse=True)
        order_N = owner_N.argsort(stable=True)
        count_R = torch.bincount(owner_N)
        begun_R = count_R.cumsum(0) - count_R
        nth_N = torch.empty_like(owner_N)
        nth_N[order_N] = torch.arange(len(owner_N), device=row_N.device) - begun_R[owner_N[order_N]]
        index_RC = torch.zeros(
            len(rows_R), int(count_R.max()), dtype=torch.int64, device=row_N.device
        )
        index_RC[owner_N, nth_N] = pages_N % self._memory.table.pages_per_row
        slot_S = torch.arange(self._size, device=row_N.device)
        token_RN = (index_RC.unsqueeze(2) * self._size + slot_S).flatten(1)
        context_R, head_R = rows_R // self._heads, rows_R % self._heads
        context_RN = context_R.unsqueeze(1).expand_as(token_RN)
        coordinates_RNE = self._tokens.read_at(context_RN, token_RN)["coordinates"]
        basis_RED = self._basis_XKED[context_R, head_R]
        keys_RND = self._retrieve.rebuilt(coordinates_RNE, basis_RED, token_RN)
        return keys_RND.unflatten(1, (-1, self._size))[owner_N, nth_N]


class RebuiltIndex(Index):
    """A context is complete when a sparse step comes; its keys are factorised before that step."""

    def __init__(
        self,
        retrieve: Retriever,
        mapper: PartitionMapper,
        store: SummaryStore,
        memory: CacheManager,
        kernel: AttentionKernel,
    ) -> None:
        """Join the parts; no context is complete."""
        super().__init__(retrieve, mapper, store, memory, kernel)
        assert isinstance(retrieve, LowRankRetriever)
        self._low_rank = retrieve
        self._factored = Factored(retrieve, memory)
        self._complete: list[set[int]] = [set() for _ in range(memory.geometry.num_layers)]
        self._shared = SharedTokens()
        memory.rebuild_keys(self._factored)

    @property
    def peak_bytes(self) -> int:
        """See Index; factors count too."""
        return super().peak_bytes + self._factored.peak_bytes

    def update(self, layer: int, batch: Batch, arrived: Arrived) -> None:
        """See Index."""
        super().update(layer, batch, arrived)
        self._shared.note(batch)

    def rebuild(self, layer: int, batch: Batch) -> None:
        """See Index; a context that is asked again is complete without its first question."""
        if self._complete[layer].issuperset(batch.slots):
            return
        for slot, stored in zip(batch.slots, batch.stored, strict=True):
            if slot not in self._complete[layer]:
                self._complete[layer].add(slot)
                self._replace(layer, slot, self._shared.at_most(slot, stored))

    def release(self, slot: int) -> None:
        """See Index."""
        super().release(slot)
        table = self._memory.table
        contexts = range(slot, len(self._complete) * table.num_sequences, table.num_sequences)
        self._factored.release(contexts, table.pages_of_sequence(slot))
        for slots in self._complete:
            slots.discard(slot)
        self._shared.forget(slot)

    def _replace(self, layer: int, slot: int, stored: int) -> None:
        """Put keys made from factors in place of those of a context."""
        table, size = self._memory.table, self._low_rank.partition_size
        (name,) = self._low_rank.weighed
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        index_rows_K = rows_K + layer * table.num_rows
        weighed_KP = self.store.read(index_rows_K, max(1, stored // size), (name,))[name]
        is_rebuilt_KP = self._low_rank.rebuilds(weighed_KP, stored)
        if not is_rebuilt_KP.any():
            return
        first_K1 = table.first_page(layer, rows_K).unsqueeze(1)
        pages_KP = first_K1 + torch.arange(-(-stored // self._page_tokens), device=table.device)
        context = layer * table.num_sequences + slot
        self._factored.keep(context, self._keys(pages_KP)[:, :stored])
        is_rebuilt_KT = is_rebuilt_KP.repeat_interleave(size, dim=1)
        missing = pages_KP.shape[1] * self._page_tokens - is_rebuilt_KT.shape[1]
        is_rebuilt_KPS = pad(is_rebuilt_KT, (0, missing)).unflatten(1, (-1, self._page_tokens))
        whole_KP = is_rebuilt_KPS.all(dim=2)
        part_KP = is_rebuilt_KPS.any(dim=2) & ~whole_KP
        self._factored.move_without_keys(pages_KP[whole_KP])
        self._overwrite(pages_KP[part_KP], is_rebuilt_KPS[part_KP])

    def _keys(self, pages_KP: Tensor) -> Tensor:
        """Keys of the slots of these pages, [K, P * S, D], in waves."""
        step, parts = max(1, self._memory.num_fast_frames // len(pages_KP)), []
        for wave_KP in pages_KP.split(step, dim=1):
            frames_KP = self._memory.fetch(wave_KP.flatten()).frames_N.view(wave_KP.shape)
            # An index by a tensor copies: the next wave may take these frames.
            parts.append(self._memory.pool_FPSD[frames_KP, 0].flatten(1, 2))
        return torch.cat(parts, dim=1)

    def _overwrite(self, pages_N: Tensor, slots_NS: Tensor) -> None:
        """Put rebuilt keys in some slots of pages that keep others, and so travel whole."""
        for start, stop in self._memory.waves(pages_N.numel()):
            wave_N, slots_WS = pages_N[start:stop], slots_NS[start:stop]
            frames_N = self._memory.fetch(wave_N).frames_N
            rebuilt_NSD = self._factored.keys(wave_N)
            old_NSD = self._memory.pool_FPSD[frames_N, 0]
            self._memory.pool_FPSD[frames_N, 0] = torch.where(
                slots_WS.unsqueeze(2), rebuilt_NSD, old_NSD
            )
            self._memory.fast.changed_F[frames_N] = True
