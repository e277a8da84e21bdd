"""Variable tracking: chains of assignments in noise, and the question for all names of one."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.training.dialect import Dialect, NameKind, NoiseKind, happens, weighted
from models.training.ingredients import (
    ON_LINES,
    draw_name,
    draw_number,
    draw_opener,
    opening,
    preface_ids,
)
from models.training.needles import scatter
from models.training.prompts import PREFACE_CHAINS
from models.training.questions import ask_chain
from models.training.sample import Ids, Language, Mark, Sample, Segment, Source
from models.training.tokenizer import BOS

LINK_TOKENS = {NameKind.POOL: 6, NameKind.LETTERS: 12}
NUM_EXAMPLE_LINKS = 5
NUM_EXAMPLE_TOKENS = 150


@dataclass(frozen=True, kw_only=True)
class _Page:
    """How the assignments of one sample are set: noise, openers, and whether prompts end open."""

    language: Language
    noise: NoiseKind
    opener: str
    open_end: bool

    @property
    def preface(self) -> Ids:
        return preface_ids(self.language, PREFACE_CHAINS, self.opener)


def variable_tracking(source: Source, num_tokens: int, rng: random.Random) -> Sample:
    """Chains of assignments in noise; the answer names every variable of one chain."""
    language, dialect = source.language, source.dialect
    page = _Page(
        language=language,
        noise=weighted(dialect.noises, rng),
        opener=draw_opener(dialect, rng),
        open_end=happens(dialect.open_end_share, rng),
    )
    num_questions = max(1, min(4, num_tokens // 128))
    num_links = 5 if happens(dialect.full_chain_share, rng) else rng.randint(1, 4) + 1
    with_example = num_tokens >= 3 * NUM_EXAMPLE_TOKENS and happens(dialect.example_share, rng)
    example = _example(page, dialect, rng) if with_example else []
    num_tokens -= sum(len(segment.ids) for segment in example)
    budget = num_tokens - 20 - 60 * num_questions
    most_chains = max(1, budget // (LINK_TOKENS[dialect.names] * num_links))
    if dialect.asks_once:
        # A chain asked for again could be answered by copying the answer before.
        num_chains = rng.randint(1, max(1, min(num_questions + 1, most_chains)))
        picks = rng.sample(range(num_chains), min(num_questions, num_chains))
    else:
        num_chains = max(1, min(rng.randint(1, 3), most_chains))
        picks = []
    chains = _draw_chains(language, dialect.names, num_chains, num_links, rng)
    values = [draw_number(rng, num_digits=5) for _ in chains]
    context = scatter(
        language, page.noise, _links(page, chains, values, rng), budget, rng, page.opener
    )
    picks = picks or [rng.randrange(num_chains) for _ in range(num_questions)]
    return Sample(
        [
            Segment(ids=(BOS,)),
            *example,
            Segment(ids=page.preface),
            *context,
            *(
                ask_chain(language, chains[pick], values[pick], open_end=page.open_end)
                for pick in picks
            ),
        ]
    )


def _example(page: _Page, dialect: Dialect, rng: random.Random) -> list[Segment]:
    """RULER's solved example: a short prompt about a chain of three-letter names, answered."""
    names = _distinct(lambda: draw_name(page.language, dialect.names, rng, 3), NUM_EXAMPLE_LINKS)
    value = draw_number(rng, num_digits=5)
    links = _links(page, [names], [value], rng)
    context = scatter(page.language, page.noise, links, NUM_EXAMPLE_TOKENS, rng, page.opener)
    asked = ask_chain(page.language, names, value, open_end=page.open_end, ends=False)
    return [
        Segment(ids=page.preface),
        *context,
        asked,
        Segment(ids=page.language.encode_all("\n", "\n"), mark=Mark.NOISE),
    ]


def _draw_chains(
    language: Language, kind: NameKind, num_chains: int, num_links: int, rng: random.Random
) -> list[list[str]]:
    num_names = num_chains * num_links
    if kind == NameKind.POOL:
        names = rng.sample(language.pools.variables, num_names)
    else:
        names = _distinct(lambda: draw_name(language, kind, rng), num_names)
    return [names[start : start + num_links] for start in range(0, num_names, num_links)]


def _links(
    page: _Page, chains: Sequence[Sequence[str]], values: Sequence[str], rng: random.Random
) -> list[Segment]:
    """The assignments of all chains, each chain's in order, the chains shuffled together."""
    left = [iter(_chain(page, *pair)) for pair in zip(chains, values, strict=True)]
    order = [index for index, chain in enumerate(chains) for _ in chain]
    rng.shuffle(order)
    return [Segment(ids=page.language.encode_all(*next(left[index]))) for index in order]


def _chain(page: _Page, chain: Sequence[str], value: str) -> list[tuple[str, ...]]:
    """On lines of their own, assignments end as RULER's: the first at once, others in a space."""
    start = opening(page.opener, "VAR")
    on_lines = page.opener == ON_LINES
    first = (*start, " " + chain[0], " =", " " + value, *(() if on_lines else (".",)))
    end = " " if on_lines else "."
    later = [
        (*start, " " + name, " =", " VAR", " " + before, end)
        for before, name in itertools.pairwise(chain)
    ]
    return [first, *later]


def _distinct(draw: Callable[[], str], num_names: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < num_names:
        names[draw()] = None
    return list(names)
