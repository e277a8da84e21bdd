"""Engines of vLLM in this process: vLLM as it comes, and vLLM with the composed system in it."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from backends.base import Backend, RefusedError
from backends.transformers.loading import ModelInfo, count_parameters
from backends.vllm.engine import EngineSettings, VllmBackend
from harness.asked import model_path
from harness.engines import Engines
from harness.prepared import Prepared
from harness.serving import compose
from harness.settings import DummyModel, Settings
from harness.workload import Workload
from sparse_algos.base import Algorithm


@dataclass(kw_only=True)
class VllmEngines(Engines):
    """See Engines; block_tokens: of a block of vLLM; prefix_caching: vLLM's own."""

    block_tokens: int
    prefix_caching: bool

    def check(
        self, settings: Settings, algorithm: Algorithm, info: ModelInfo, workload: Workload
    ) -> None:
        """See Engines; everything that stands against it, at once."""
        claims = {
            "probe=on looks into backend=transformers alone": settings.probe.requests > 0,
            "protocol.num_questions must be 1": settings.protocol.num_questions > 1,
            "trace=on records backend=transformers alone": settings.trace.record,
            f"layers {sorted(info.windowed_layers)} have a sliding window": (
                info.windowed_layers and not algorithm.is_dense
            ),
            "the task scores given tokens": any(one.request.scored_ids for one in workload.items),
        }
        reasons = [claim for claim, holds in claims.items() if holds]
        composition = compose(settings, algorithm)
        layout = composition.layout(
            block_tokens=self.block_tokens, num_kv_heads=info.num_kv_heads, head_dim=info.head_dim
        )
        reasons += composition.refusals() + layout.refusals()
        if reasons:
            raise ValueError(f"backend=vllm, algo={algorithm.name}: {'; '.join(reasons)}")

    def start(self, prepared: Prepared, arms: dict[str, Backend]) -> None:
        """See Engines."""
        asked = prepared.asked.model_dump(mode="json", by_alias=True)
        settings = self._engine_settings(prepared)
        for name, algorithm in prepared.algorithms.items():
            own = settings if algorithm.is_dense else self._composed_settings(prepared, settings)
            try:
                arms[name] = VllmBackend(own, None if algorithm.is_dense else asked)
            except (ValueError, NotImplementedError, AssertionError) as error:
                raise RefusedError(f"backend=vllm, arm {name}: {error}") from error
        self.num_parameters = count_parameters(prepared.info)

    def _engine_settings(self, prepared: Prepared) -> EngineSettings:
        settings, plan = prepared.settings, prepared.plan
        geometry = plan.geometry
        block_bytes = geometry.pages_for(self.block_tokens) * geometry.page_bytes
        size = settings.tier.arenas["hbm"].size
        model = settings.model
        return EngineSettings(
            path=_folder(prepared.info) if isinstance(model, DummyModel) else model_path(model),
            dtype=str(prepared.info.dtype).removeprefix("torch."),
            max_tokens=plan.max_tokens,
            max_batch=plan.sequences,
            chunk_tokens=plan.chunk_tokens,
            block_tokens=self.block_tokens,
            kv_bytes=self._num_blocks(prepared) * block_bytes
            if size == "auto" or len(settings.tier.levels) > 1
            else plan.frames["hbm"] * geometry.page_bytes,
            prefix_caching=self.prefix_caching,
            random_weights=isinstance(model, DummyModel),
        )

    def _composed_settings(self, prepared: Prepared, stock: EngineSettings) -> EngineSettings:
        """Of the composed arm: where KV is hosted, as many blocks, of digests."""
        if len(prepared.settings.tier.levels) == 1:
            return stock
        geometry = prepared.plan.geometry
        slots = geometry.num_layers * geometry.num_kv_heads * self.block_tokens
        digests = self._num_blocks(prepared) * slots * geometry.dtype.itemsize
        return replace(stock, kv_bytes=digests)

    def _num_blocks(self, prepared: Prepared) -> int:
        """For all requests that run at one time, and the one that vLLM keeps for itself."""
        plan, tier = prepared.plan, prepared.settings.tier
        wanted = plan.sequences * -(-plan.max_tokens // self.block_tokens) + 1
        last = tier.levels[-1]
        if len(tier.levels) == 1 or tier.arenas[last].size == "auto":
            return wanted
        return min(wanted, plan.frames[last] // plan.geometry.pages_for(self.block_tokens))


def _folder(info: ModelInfo) -> str:
    """A folder with the config of a model without weights."""
    folder = Path(mkdtemp(prefix="kvloom-"))
    info.config.save_pretrained(folder)
    return str(folder)
