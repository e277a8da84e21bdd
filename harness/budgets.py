"""Budgets as people write them: tokens, a share of the context, or bytes of KV of one request."""

from math import prod

from backends.transformers.loading import ModelInfo
from harness.build import build
from harness.settings import AlgoSettings, Component, Settings
from harness.sizes import format_size, parse_size
from sparse_algos.base import Algorithm

AMOUNTS = "give whole tokens (2048), a share of the context (0.05), or bytes of KV (4MiB)"
# More than any sequence has: what an algorithm is built with to ask for its least budget.
PLENTY = 1 << 40


def in_tokens(settings: Settings, info: ModelInfo) -> Settings:
    """The settings with budgets in bytes turned into tokens; raises ValueError of one line.

    Bytes are those of one request over the layers and kv heads that the algorithm serves: a token
    takes a key and a value in each. Whole tokens, rounded down.
    """
    algo = settings.algo
    roles = {
        role: _role_in_tokens(component, f"algo.{role}", info, algo)
        for role, component in (("evict", algo.evict), ("retrieve", algo.retrieve))
        if component is not None
    }
    return settings.model_copy(update={"algo": algo.model_copy(update=roles)})


def effective_tokens(algorithm: Algorithm, context: int) -> dict[str, int]:
    """Tokens of each role's budget, by role, in a sequence of `context` tokens."""
    roles = {"evict": algorithm.evict, "retrieve": algorithm.retrieve}
    return {
        name: min(role.most_tokens(context), context)
        for name, role in roles.items()
        if role is not None
    }


def _role_in_tokens(
    component: Component, key: str, info: ModelInfo, algo: AlgoSettings
) -> Component:
    wished = component.arguments.get("budget_tokens")
    if not isinstance(wished, str):
        return component
    key_of_budget = f"{key}.budget_tokens"
    num_bytes = _bytes(wished, key_of_budget)
    layers = set(range(algo.dense_layers, info.num_layers)) - info.windowed_layers
    # No layer to serve is refused by the preflight.
    shape = max(1, len(layers)), info.num_kv_heads, 2, info.head_dim, info.dtype.itemsize
    tokens = num_bytes // prod(shape)
    least = build(_with_budget(component, PLENTY), key).least_budget
    if tokens < least:
        raise ValueError(
            f"{key_of_budget}={wished} holds {tokens} tokens of a request in {shape[0]} layers x "
            f"{shape[1]} kv heads, the least is {least}; raise it to "
            f"{format_size(least * prod(shape))}"
        )
    return _with_budget(component, tokens)


def _bytes(wished: str, key: str) -> int:
    try:
        size = parse_size(wished)
    except ValueError:
        size = "auto"
    if not isinstance(size, int):
        raise ValueError(f"{key}={wished!r} is no amount; {AMOUNTS}")
    return size


def _with_budget(component: Component, tokens: int) -> Component:
    return component.model_copy(update={"budget_tokens": tokens})
