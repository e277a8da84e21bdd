"""TidalDecode (Yang et al., ICLR 2025, arXiv:2410.05076): a few layers select for the others.

The paper selects per query head; here the query heads of a kv head, which share its pages, agree by
`group_reduce`. Layers below the first that selects are dense. The cache correction is left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from sparse_algos.checks import check_count
from sparse_algos.model_shape import ModelShape
from sparse_algos.units import KeyRetriever


@dataclass(frozen=True, kw_only=True)
class TidalDecode(KeyRetriever):
    """Layers between read the tokens of largest exact attention in the last selecting layer.

    selecting_layers: layers that attend to everything and select, ascending, counted from 0.
    """

    selecting_layers: tuple[int, ...]

    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        layers = [*self.selecting_layers]
        for layer in layers:
            check_count("algo.retrieve.selecting_layers", layer, least=0)
        if not layers or sorted(set(layers)) != layers:
            raise ValueError(
                f"algo.retrieve.selecting_layers={layers}: give one layer or "
                "more, ascending, as [2, 13]"
            )
        super().__post_init__()

    def fitted(self, model: ModelShape) -> "TidalDecode":
        """See Retriever; layers that no one selects for would never be sparse."""
        last = model.num_layers - 1
        if self.selecting_layers[-1] > last:
            raise ValueError(
                f"algo.retrieve.selecting_layers={list(self.selecting_layers)}: model {model.name} "
                f"has layers 0 to {last}; name layers among them"
            )
        if len(self.selecting_layers) == last + 1 - self.selecting_layers[0]:
            raise ValueError(
                f"algo.retrieve.selecting_layers={list(self.selecting_layers)} leaves no layer of "
                f"model {model.name} (0 to {last}) to select for; name fewer, or lower ones"
            )
        return self

    def leads(self, layer: int) -> bool:
        """See Retriever."""
        return layer in self.selecting_layers

    def reads_all(self, layer: int) -> bool:
        """See Retriever."""
        return layer < self.selecting_layers[0] or self.leads(layer)
