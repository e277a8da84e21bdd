"""The table of algorithms, from `conf/algo` and the classes: what each is, chooses and keeps."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from sys import modules
from typing import Any

import torch

from harness.build import build
from harness.composing import composed
from harness.listing import CONF, ROLES, defaults_of, read_option
from harness.settings import Component
from sparse_algos.evictor import Evictor
from sparse_algos.pattern import PrefillPattern
from sparse_algos.retriever import Retriever

# The shape that bytes are told for: a token takes 512 bytes of KV in each kv head.
HEAD_DIM, KV_HEADS, DTYPE = 128, 8, torch.bfloat16
TITLES = ("algorithm", "role", "idea", "unit", "trained", "bytes", "default", "source")
NONE = "-"
DENSE = ("`dense`", NONE, "every token is read", *(NONE,) * 4, "the baseline of each run")
ARXIV = re.compile(r"arXiv:\d{4}\.\d{5}")
BRACKET = re.compile(r"\(([^)]+)\):")
# Settings of a prefill pattern that every pattern has.
OF_ALL_PATTERNS = ("block_tokens", "dense_tokens")


@dataclass(frozen=True)
class Facts:
    """What the class of a role says. unit: what it chooses; kept: bytes per token and kv head."""

    unit: str
    trained: str
    kept: float
    default: str


def markdown() -> str:
    """The table, and a line that says what its columns mean."""
    lines = [TITLES, ("---",) * len(TITLES), *rows()]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"{table}\n\n*bytes*: kept beside KV per token and kv head, at {KV_HEADS} kv heads x "
        f"{HEAD_DIM} in bf16, where KV itself takes {2 * HEAD_DIM * DTYPE.itemsize}, on layers "
        "that select; *default*: of the option's YAML, whose comments tell the paper's.\n"
    )


def rows() -> Iterator[tuple[str, ...]]:
    """Dense, then the options of each role, then what composes several of them."""
    yield DENSE
    for role in ("retrieve", "evict", "prefill"):
        for path in sorted((CONF / "algo" / role).glob("*.yaml")):
            if path.stem != "none":
                content = composed(["algo=dense", f"algo/{role}={path.stem}"])["algo"][role]
                yield role_row(path.stem, role, content)
    for path in sorted((CONF / "algo").glob("*.yaml")):
        named = defaults_of(read_option(path))
        chosen = {role: named[role] for role in ROLES if named.get(role, "none") != "none"}
        if len(chosen) > 1:
            parts = " + ".join(f"`{name}`" for name in chosen.values())
            yield (f"`{path.stem}`", " + ".join(chosen), parts, *(NONE,) * 5)


def role_row(name: str, role: str, content: Mapping[str, Any]) -> tuple[str, ...]:
    """One option of one role."""
    key = f"algo.{role}"
    built = build(Component.model_validate(dict(content)), key)
    described = (modules[type(built).__module__].__doc__ or "").splitlines()[0].rstrip(".")
    sources = [match.group() for match in ARXIV.finditer(described)]
    # Where no arXiv id closes what is cited, the first bracket holds it.
    cited = sources or BRACKET.findall(described)[:1]
    idea = described.rpartition(cited[-1])[2].partition(": ")[2] if cited else described
    facts = FACTS[role](built)
    what = (facts.unit, facts.trained, f"{facts.kept:.3g}", facts.default)
    return (f"`{name}`", role, idea, *what, ", ".join(cited) or NONE)


def of_retriever(retrieve: Retriever, num_kv_heads: int = KV_HEADS) -> Facts:
    """Summaries are kept per partition."""
    size = retrieve.typical_partition
    unit = f"{retrieve.kind}s" if retrieve.kind == "token" else f"{retrieve.kind}s of {size}"
    kept = retrieve.kept_bytes(HEAD_DIM, num_kv_heads, DTYPE)
    return Facts(unit, retrieve.trained or NONE, kept, budget(retrieve.budget_tokens))


def of_evictor(evict: Evictor) -> Facts:
    """What it remembers is kept per token."""
    return Facts("tokens", NONE, evict.state_bytes, budget(evict.budget_tokens))


def of_pattern(prefill: PrefillPattern) -> Facts:
    """Nothing is kept; the settings that are its own stand for a budget."""
    own = {
        name: value
        for name, value in vars(prefill).items()
        if name not in OF_ALL_PATTERNS and name[0] != "_"
    }
    default = ", ".join(f"{name} {value}" for name, value in own.items())
    return Facts(f"blocks of {prefill.block_tokens}", NONE, 0, default)


FACTS: Mapping[str, Callable[[Any], Facts]] = {
    "retrieve": of_retriever,
    "evict": of_evictor,
    "prefill": of_pattern,
}


def budget(amount: float) -> str:
    """Tokens, or a share of the context."""
    return f"{amount:,} tokens" if isinstance(amount, int) else f"{100 * amount:g} % of the context"
