"""A training sample: marked segments of token ids, and the language they are written in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

from tokenizers import Tokenizer

from models.training.dialect import Dialect
from models.training.text import Corpus
from models.training.wordpools import WordPools

Ids = tuple[int, ...]


class Mark(IntEnum):
    """What a segment is to the question: the virtual dilution multiplies all but the plain ones."""

    PLAIN = 0
    NOISE = 1
    DISTRACTOR = 2


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens that stay contiguous; the last `num_answer` of them are what the model must say.

    `alternatives` maps an offset in the segment to every id that is right there.
    """

    ids: Ids
    num_answer: int = 0
    mark: Mark = Mark.PLAIN
    alternatives: Mapping[int, Ids] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One sequence of segments, the first of which is the <s> token."""

    segments: Sequence[Segment]

    @property
    def ids(self) -> list[int]:
        """Token ids of all segments."""
        return [token for segment in self.segments for token in segment.ids]

    @property
    def is_answer(self) -> list[bool]:
        """Which tokens carry loss."""
        flags: list[bool] = []
        for segment in self.segments:
            flags += [False] * (len(segment.ids) - segment.num_answer)
            flags += [True] * segment.num_answer
        return flags

    @property
    def marks(self) -> list[Mark]:
        """The mark of each token's segment."""
        return [segment.mark for segment in self.segments for _ in segment.ids]

    @property
    def alternatives(self) -> dict[int, Ids]:
        """Every right id at the offsets, in the whole sample, where several are right."""
        found: dict[int, Ids] = {}
        start = 0
        for segment in self.segments:
            found |= {start + offset: ids for offset, ids in segment.alternatives.items()}
            start += len(segment.ids)
        return found


class Language:
    """What samples are written with: a tokenizer, the word pools and a corpus."""

    def __init__(self, tokenizer: Tokenizer, pools: WordPools, corpus: Corpus) -> None:
        """Keep the parts; encoded strings are cached, for the same few thousand come again."""
        self.tokenizer = tokenizer
        self.pools = pools
        self.corpus = corpus
        self.num_tokens = tokenizer.get_vocab_size()
        self.encode = lru_cache(maxsize=300_000)(self._encode)

    def encode_all(self, *texts: str) -> Ids:
        """Token ids of texts that are encoded one by one, and so cached one by one."""
        return tuple(token for text in texts for token in self.encode(text))

    def _encode(self, text: str) -> Ids:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class Source:
    """What samples are drawn from: a language, and a stage's shares of it."""

    language: Language
    dialect: Dialect
