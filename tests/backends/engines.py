"""Tiny random models of several families, engines over them, and the model's own attention."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor

from backends.attention.select import choose_kernel
from backends.base import Request, TokenEvent
from backends.transformers.engine import TransformersBackend
from backends.transformers.loading import ModelInfo, describe_local
from harness.preflight import plan_for
from harness.settings import Settings
from harness.system import assemble
from sparse_algos.base import Algorithm
from tests.laws.configs import settings_of
from tests.laws.system import algorithm_with, fitted_to

VOCAB = 256
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
MIXED = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mistral with a window": ("MistralConfig", {"sliding_window": 8}),
    "qwen3 with windows on some layers": ("Qwen3Config", MIXED),
    "granite, which scales by its own": ("GraniteConfig", {"attention_multiplier": 0.5}),
    "qwen3 moe": ("Qwen3MoeConfig", EXPERTS),
}
# Lengths are unequal, on page edges and off them; more requests than slots.
LENGTHS = (37, 150, 90, 16, 8)
NEW_TOKENS = 12
SLOTS = 3
MAX_TOKENS = 300


@dataclass(frozen=True)
class Pair:
    """One set of weights twice: to be plugged into, and with the library's own attention."""

    plugged: Any
    own: Any
    info: ModelInfo


class Listener:
    """Passes calls to a model, and keeps the logits that come back."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config = model.config
        self.logits_NV = torch.empty(0)

    def set_attn_implementation(self, name: str) -> None:
        self.model.set_attn_implementation(name)

    def __call__(self, **inputs: Any) -> Any:
        output = self.model(**inputs)
        self.logits_NV = output.logits[0]
        return output


@lru_cache
def pair_of(family: str) -> Pair:
    """A model of this family; weights are scaled up so that its answers vary."""
    name, extra = FAMILIES[family]
    config = getattr(transformers, name)(**SMALL | extra)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            # Norm weights of one would make the norms of all keys equal, up to their rounding.
            weight.mul_(2.5 if weight.dim() > 1 else torch.linspace(0.5, 1.5, weight.numel()))
    own = deepcopy(model)
    own.set_attn_implementation("sdpa")
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        info = describe_local(folder, "float32", download=False)
    return Pair(model, own, replace(info, name=family))


def prompts() -> list[tuple[int, ...]]:
    """Random tokens, the same each time."""
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(3, VOCAB, (n,), generator=generator).tolist()) for n in LENGTHS]


def requests(**changes: Any) -> list[Request]:
    """One request for each prompt; a fifth of it is the question."""
    plain = [
        Request(
            uid=str(number),
            prompt_ids=prompt_ids,
            num_context=len(prompt_ids) - max(1, len(prompt_ids) // 5),
            max_new_tokens=NEW_TOKENS,
            stop_ids=frozenset(),
            seed=number,
        )
        for number, prompt_ids in enumerate(prompts())
    ]
    return [replace(request, **changes) for request in plain]


@dataclass
class Engine:
    """An engine, the model it listens to, and what it said."""

    backend: TransformersBackend
    listener: Listener

    def run(self, wanted: Iterable[Request]) -> dict[str, list[TokenEvent]]:
        """Everything at once, to the end."""
        wanted = list(wanted)
        events: dict[str, list[TokenEvent]] = {request.uid: [] for request in wanted}
        self.logits: dict[str, list[Tensor]] = {request.uid: [] for request in wanted}
        self.backend.submit(wanted)
        while self.backend.busy:
            self.step(events)
        return events

    def step(self, events: Mapping[str, list[TokenEvent]]) -> None:
        """One step; its logits are in the order of its events."""
        for event, logits_V in zip(self.backend.step(), self.listener.logits_NV, strict=False):
            events[event.uid].append(event)
            self.logits[event.uid].append(logits_V)


def engine_over(
    pair: Pair,
    settings: Settings | None = None,
    budget_tokens: int | None = None,
    *,
    kernel: str = "torch",
    fast_frames: int | None = None,
) -> Engine:
    """The engine that the harness would assemble."""
    settings = settings or settings_of("dense", max_batch=SLOTS)
    algorithm: Algorithm = fitted_to(algorithm_with(settings, budget_tokens), pair.info)
    plan = plan_for(settings, algorithm, pair.info, MAX_TOKENS, torch.device("cpu"))
    if fast_frames is not None:
        plan = replace(plan, frames=plan.frames | {settings.tier.levels[0]: fast_frames})
    chosen = choose_kernel(
        kernel,
        device="cpu",
        dtype=torch.float32,
        head_dim=pair.info.head_dim,
        page_size=plan.geometry.page_tokens,
    )
    listener = Listener(pair.plugged)
    return Engine(assemble(settings, algorithm, plan, pair.info, listener, chosen), listener)


def tokens(events: Mapping[str, Sequence[TokenEvent]]) -> dict[str, list[int]]:
    """Token ids by request."""
    return {uid: [event.token_id for event in said] for uid, said in events.items()}


@torch.inference_mode()
def own_logits(pair: Pair, prompt_ids: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Logits of the library's own attention for each token of an answer, [A, V]."""
    ids = torch.tensor([[*prompt_ids, *answer[:-1]]])
    return pair.own(input_ids=ids).logits[0, len(prompt_ids) - 1 :]


def save_config(config: Any, folder: Path) -> str:
    """A folder that holds a model's config and no weights."""
    config.save_pretrained(folder)
    return str(folder)
