"""What an algorithm is: the contracts of the roles, as pure tensor code.

Dimension key of the whole project: B sequences in a step, M query rows of one sequence, T tokens,
H query heads, K kv heads, G = H / K query heads per kv head, D head dimension, R rows (one per
sequence and kv head), Q = M * G queries that share a row's index, P partitions, S slots per page,
N anything flat over rows, L layers, F frames, E entries of a scored summary, C partitions in a
segment of summaries, W segments of a row, I blocks of query rows.
"""

from dataclasses import dataclass, replace

from sparse_algos.evictor import Evictor
from sparse_algos.model_shape import ModelShape
from sparse_algos.pattern import PrefillPattern
from sparse_algos.retriever import Retriever


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A composition of the roles; a role that is None is played by dense attention.

    dense_layers: how many of the first layers are served densely.
    """

    name: str
    evict: Evictor | None
    retrieve: Retriever | None
    prefill: PrefillPattern | None = None
    dense_layers: int = 0

    @property
    def reads_all(self) -> bool:
        """Whether rows of questions and answers read every token."""
        return self.evict is None and self.retrieve is None

    def fitted(self, model: ModelShape) -> "Algorithm":
        """The same for one model; raises ValueError where a role cannot serve it."""
        if self.retrieve is None:
            return self
        return replace(self, retrieve=self.retrieve.fitted(model))

    @property
    def is_dense(self) -> bool:
        """Whether dense attention plays all roles."""
        return self.reads_all and self.prefill is None
