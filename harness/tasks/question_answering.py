"""RULER's question answering: the documents that answer a question, among others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from random import Random
from typing import ClassVar, Self

from harness.tasks.drafts import Counter, Draft, Generator
from harness.tasks.haystacks import Haystack, Parts
from harness.tasks.ruler_templates import DOCUMENT, QA
from harness.tasks.token_counts import RunningSum, TokenCounts

_END = "\n\n"


@dataclass(frozen=True)
class Question:
    """A question, its answers, the documents it needs, and those that distract most (indexes)."""

    text: str
    answers: tuple[str, ...]
    needed: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class QASet:
    """Questions over common documents."""

    documents: tuple[str, ...]
    questions: tuple[Question, ...]

    @cached_property
    def ended(self) -> tuple[str, ...]:
        """The documents, each with the lines that part it from the next."""
        return tuple(document + _END for document in self.documents)


class Documents(Haystack):
    """Needed documents, then near ones, then any, in random order; a unit is a document."""

    joiner = ""

    def __init__(self, qa: QASet, setting: str, shuffle_seed: int) -> None:
        self.qa = qa
        self.setting = setting
        self.shuffle_seed = shuffle_seed
        self._question: Question | None = None
        self._rng = Random()
        self._order: dict[int, None] = {}

    def asked(self, question: Question, seed: str) -> Self:
        """The documents of one question; which of them come in does not depend on how many."""
        mine = type(self)(self.qa, self.setting, self.shuffle_seed)
        mine._question, mine._rng = question, Random(f"{seed}:documents")
        near = mine._rng.sample(question.near, len(question.near))
        mine._order = dict.fromkeys((*question.needed, *near))
        return mine

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        assert self._question is not None
        return len(self._question.needed)

    def largest_size(self) -> int:
        """See Haystack."""
        return len(self.qa.documents)

    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack."""
        texts = [self.qa.documents[index] for index in self._drawn(0, size)]
        Random(self.shuffle_seed).shuffle(texts)
        numbered = [DOCUMENT.format(number=n, text=text) for n, text in enumerate(texts, 1)]
        return [*(document + _END for document in numbered[:-1]), numbered[-1]]

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """See Haystack."""
        assert parts.question.startswith(_END), "the question ends the last document"
        fixed = parts.head_tokens(counts) + counts.lines(parts.question.removeprefix(_END))
        headings = counts.running(_headings(len(self.qa.documents)))
        ended = self.qa.ended
        texts = RunningSum(
            lambda start, stop: counts.each([ended[index] for index in self._drawn(start, stop)])
        )
        return lambda size: fixed + headings.upto(size) + texts.upto(size)

    def _drawn(self, start: int, stop: int) -> list[int]:
        while len(self._order) < stop:
            self._order[self._rng.randrange(len(self.qa.documents))] = None
        return list(islice(self._order, start, stop))


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Generator):
    """Sample i asks question i."""

    haystack: Documents

    num_new_tokens: ClassVar[int] = QA.num_new_tokens

    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """See Generator."""
        index = int(seed.rpartition(":")[2])
        question = self.haystack.qa.questions[index]
        return Draft(
            head=QA.head,
            haystack=self.haystack.asked(question, seed),
            statements=(),
            places_seed="",
            question=QA.question.format(query=question.text) + QA.answer_prefix,
            references=question.answers,
            metadata={"query": question.text},
        )


@cache
def _headings(count: int) -> tuple[str, ...]:
    return tuple(DOCUMENT.format(number=number, text="") for number in range(1, count + 1))
