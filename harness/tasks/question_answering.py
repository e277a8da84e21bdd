"""RULER's question answering: the documents that answer a question, among others."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import ClassVar, Self

from harness.tasks.drafts import CountTokens, Draft, Generator
from harness.tasks.haystacks import Haystack
from harness.tasks.ruler_templates import DOCUMENT, QA


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
        """See Haystack; the heading of a document is a piece of its own."""
        while len(self._order) < size:
            self._order[self._rng.randrange(len(self.qa.documents))] = None
        texts = [self.qa.documents[index] for index in islice(self._order, size)]
        Random(self.shuffle_seed).shuffle(texts)
        pieces = []
        for number, text in enumerate(texts, 1):
            pieces += [DOCUMENT.format(number=number, text=""), text + "\n\n"]
        return [*pieces[:-1], texts[-1]]


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Generator):
    """Sample i asks question i."""

    haystack: Documents

    num_new_tokens: ClassVar[int] = QA.num_new_tokens

    def draft(self, seed: str, count_tokens: CountTokens) -> Draft:
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
