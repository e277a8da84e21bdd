"""vLLM's contract of an attention backend, filled with the project's own attention.

One class stands in for vLLM's for every engine of a process; which of them is composed says the
engine's own `additional_config`. An engine without a composition gets vLLM's classes, untouched.
"""

import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from backends.attention.select import choose_kernel
from backends.vllm.checks import against
from backends.vllm.compat import (
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    KVCacheLayout,
    MultipleOf,
    current_platform,
    get_current_vllm_config_or_none,
    stock_cpu_backend,
)
from backends.vllm.compose import compose_for, is_composed
from backends.vllm.digests import Digests
from backends.vllm.pages import BlockLayout
from backends.vllm.reason import told
from backends.vllm.requests import Requests
from backends.vllm.rows import Limits
from backends.vllm.runtime import EngineStep, Runtime
from memory_tiers.base import KVGeometry

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class PagedImpl(AttentionImpl):
    """One layer; the step that its rows belong to comes as the metadata."""

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int,
        alibi_slopes: Sequence[float] | None,
        sliding_window: int | None,
        kv_cache_dtype: str,
        logits_soft_cap: float | None = None,
        attn_type: str = "decoder",
        kv_sharing_target_layer_name: str | None = None,
        **others: Any,
    ) -> None:
        """Keep what is asked for; what is not served is told by `refusals`, for all layers."""
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_size, self.scale = head_size, float(scale)
        self.kv_cache_dtype = kv_cache_dtype
        self.runtime: Runtime | None = None
        claims = {
            "ALiBi slopes": alibi_slopes is not None,
            f"a sliding window of {sliding_window} tokens": sliding_window is not None,
            f"KV of type {kv_cache_dtype}": kv_cache_dtype not in ("auto", "float16", "bfloat16"),
            "capped logits": bool(logits_soft_cap),
            f"attention of kind {attn_type}": attn_type != "decoder",
            "KV of another layer": kv_sharing_target_layer_name is not None,
            **{name: value is not None for name, value in others.items()},
        }
        self.refusals = [claim for claim, holds in claims.items() if holds]

    def do_kv_cache_update(self, *_: Any) -> None:
        """Keys and values are stored by `forward`, in order with the summaries of them."""

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: EngineStep | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """Rows [N, H, D] of all requests of a step."""
        assert output_scale is None and output_block_scale is None, "outputs are not quantised"
        if attn_metadata is None:  # a run that only measures memory
            return output.zero_()
        count = attn_metadata.num_rows
        number = number_of(layer.layer_name)
        query, key, value = (one[:count] for one in (query, key, value))
        output[:count] = attn_metadata.attend(number, query, key, value, self.scale)
        return output


class PagedBuilder(AttentionMetadataBuilder):
    """Makes the step of a batch; the first one takes hold of the caches of all layers."""

    def __new__(
        cls, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: Any
    ) -> Any:
        """The platform's own for an engine without a composition."""
        if is_composed(vllm_config):
            return super().__new__(cls)
        stock = stock_cpu_backend().get_builder_cls()
        return stock(kv_cache_spec, layer_names, vllm_config, device)

    def __init__(
        self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: Any
    ) -> None:
        """Compose, and refuse all at once what cannot be served."""
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        self.plan = plan_for(kv_cache_spec, layer_names, vllm_config, torch.device(device))
        self.requests: Requests | None = None
        self.runtime: Runtime | None = None

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> EngineStep:
        """See vLLM's contract."""
        if self.runtime is None:
            self.runtime = self.plan.start(self.vllm_config)
        common, size = common_attn_metadata, self.plan.layout.block_tokens
        starts, lengths = common.query_start_loc_cpu.tolist(), common.seq_lens.tolist()
        sizes = [stop - start for start, stop in pairwise(starts)]
        count = len([one for one in sizes if one])
        prefilling = common.is_prefilling
        asked = self.requests or Requests(None)
        members = [
            asked.member(slot, lengths[slot] - new, new, bool(prefilling[slot]))
            for slot, new in enumerate(sizes[:count])
        ]
        width = -(-max(lengths[:count]) // size)
        return self.runtime.begin(members, common.block_table_tensor[:count, :width])


class ServedLayers(NamedTuple):
    """What a builder has found out about its layers, and that all of them can be served."""

    layer_names: tuple[str, ...]
    composition: Any
    geometry: KVGeometry
    layout: BlockLayout
    limits: Limits

    @told()
    def start(self, vllm_config: Any) -> Runtime:
        """Take hold of the caches, which are there by now."""
        layers = vllm_config.compilation_config.static_forward_context
        geometry = self.geometry
        kernel = choose_kernel(
            self.composition.kernel,
            device=geometry.device,
            dtype=geometry.dtype,
            head_dim=geometry.head_dim,
            page_size=geometry.page_tokens,
        )
        caches = [layers[name].kv_cache for name in self.layer_names]
        runtime = Runtime(self.composition, geometry, self.layout, self.limits, kernel, caches)
        for name in self.layer_names:
            layers[name].impl.runtime = runtime
        return runtime


@told()
def plan_for(
    spec: Any, layer_names: Sequence[str], vllm_config: Any, device: torch.device
) -> ServedLayers:
    """What serves these layers; raises ValueError that tells of everything that stands against."""
    model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
    names = tuple(sorted(layer_names, key=number_of))
    composition = compose_for(vllm_config)
    layout = composition.layout(
        block_tokens=spec.block_size, num_kv_heads=spec.num_kv_heads, head_dim=spec.head_size
    )
    geometry = KVGeometry(
        num_layers=len(names),
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_size,
        page_tokens=composition.page_tokens,
        dtype=spec.dtype,
        device=device,
    )
    limits = Limits(
        num_sequences=scheduler.max_num_seqs,
        step_tokens=scheduler.max_num_batched_tokens,
        max_tokens=model.max_model_len,
    )
    reasons = composition.refusals() + layout.refusals() + _against(names, vllm_config)
    if (hosting := composition.hosting) is not None:
        num_blocks = vllm_config.cache_config.num_gpu_blocks or 0
        reasons += hosting.refusals(geometry, limits, num_blocks * spec.block_size)
    if spec.dtype not in DTYPES or spec.dtype != model.dtype:
        reasons.append(f"KV is {spec.dtype} and the model {model.dtype}")
    if reasons:
        raise ValueError("backend=vllm cannot run this: " + "; ".join(dict.fromkeys(reasons)))
    logging.getLogger("vllm.kvloom").info(
        "kvloom: %s on %d layers", composition.algorithm.name, len(names)
    )
    return ServedLayers(names, composition, geometry, layout, limits)


def _against(names: Sequence[str], vllm_config: Any) -> list[str]:
    """What of the engine's config and of its layers is not served."""
    layers = vllm_config.compilation_config.static_forward_context
    reasons = [
        f"layer {number_of(name)} has {refusal}"
        for name in names
        for refusal in getattr(layers[name].impl, "refusals", ["an attention of its own"])
    ]
    if list(map(number_of, names)) != list(range(len(layers))):
        reasons.append("layers are of several kinds")
    return reasons + against(vllm_config)


def number_of(layer_name: str) -> int:
    """The number in a layer's name."""
    found = re.findall(r"\.(\d+)\.", f".{layer_name}.")
    return int(found[0]) if len(found) == 1 else -1


class PagedBackend(AttentionBackend):
    """For any device, under the name that vLLM keeps for backends of others."""

    forward_includes_kv_cache_update: bool = False
    supported_dtypes: ClassVar[list[torch.dtype]] = list(DTYPES)

    @staticmethod
    def get_name() -> str:
        """See vLLM's contract."""
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> Any:
        """See vLLM's contract."""
        Digests.note(get_current_vllm_config_or_none())
        return PagedImpl

    @staticmethod
    def get_builder_cls() -> Any:
        """See vLLM's contract."""
        return PagedBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[Any]:
        """Any; whether pages and partitions lie in one is told with the reason."""
        return [MultipleOf(1)]

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[Any, ...]:
        """A block and head in one piece of memory."""
        return (KVCacheLayout.LBHNC,)

    @classmethod
    def customize_spec(cls, spec: Any) -> Any:
        """See vLLM's contract."""
        return Digests.of(spec)


if current_platform.is_cpu():

    class CpuBackend(stock_cpu_backend()):  # type: ignore[misc]
        """In the place of vLLM's backend for CPUs, which takes no other name."""

        @staticmethod
        def get_impl_cls() -> Any:
            """The stock one while layers of an engine without a composition are made."""
            vllm_config = get_current_vllm_config_or_none()
            Digests.note(vllm_config)
            if is_composed(vllm_config):
                return PagedImpl
            return stock_cpu_backend().get_impl_cls()

        @classmethod
        def customize_spec(cls, spec: Any) -> Any:
            """See vLLM's contract."""
            return Digests.of(super().customize_spec(spec))

        @staticmethod
        def get_builder_cls() -> Any:
            """See vLLM's contract."""
            return PagedBuilder
