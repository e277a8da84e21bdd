"""Exact top-k attention: the bound that every retriever is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from sparse_algos.units import KeyRetriever


@dataclass(frozen=True, kw_only=True)
class OracleTopK(KeyRetriever):
    """Reads the tokens of largest exact attention; its index is a full copy of the keys."""

    bound: ClassVar[bool] = True
