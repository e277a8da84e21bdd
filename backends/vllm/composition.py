"""What of the composed system runs inside vLLM, and why some of it cannot."""

from dataclasses import dataclass

from backends.vllm.hosted import Hosting
from backends.vllm.pages import BlockLayout
from memory_tiers.base import PartitionMapper
from sparse_algos.base import Algorithm
from sparse_algos.retriever import Retriever

# Where the composition stands in vLLM's additional_config.
KEY = "kvloom"
INSTEAD = "use algo=quest, or backend=transformers"


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A system for one model.

    kernel: a name, see backends.attention.select; hosting: None where all KV is in vLLM's cache;
    unserved: what else of the settings cannot be, in words.
    """

    algorithm: Algorithm
    mapper: PartitionMapper
    page_tokens: int
    kernel: str
    hosting: Hosting | None = None
    unserved: tuple[str, ...] = ()

    def layout(self, *, block_tokens: int, num_kv_heads: int, head_dim: int) -> BlockLayout:
        """Its pages and partitions in blocks of vLLM."""
        retrieve = self.algorithm.retrieve
        return BlockLayout(
            block_tokens=block_tokens,
            page_tokens=self.page_tokens,
            partition_size=1 if retrieve is None else retrieve.partition_size,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
        )

    def refusals(self) -> list[str]:
        """Why it cannot run inside vLLM, by declared capabilities, and what could."""
        algorithm, reasons = self.algorithm, []
        if algorithm.evict is not None:
            reasons.append("algo.evict drops tokens for good, and vLLM's blocks keep all of theirs")
        if algorithm.prefill is not None:
            reasons.append("algo.prefill skips a part of prompts, which are computed densely here")
        if algorithm.retrieve is not None:
            reasons += _against(algorithm.retrieve)
            if not self.mapper.in_order:
                reasons.append("partition places tokens elsewhere than vLLM does")
        return [*reasons, *([INSTEAD] if reasons else []), *self.unserved]


def _against(retrieve: Retriever) -> list[str]:
    """Summaries belong to blocks, which sequences share: they may look at keys alone."""
    claims = {
        "indexes a sequence as a whole, and not block by block": retrieve.index_kind != "summaries",
        "summarises keys by the queries after them": retrieve.needs_queries,
        "needs the mean of a sequence's values": retrieve.needs_value_mean,
        "replaces keys when the context is complete": retrieve.rebuilds_keys,
    }
    return [f"algo.retrieve {claim}" for claim, holds in claims.items() if holds]
