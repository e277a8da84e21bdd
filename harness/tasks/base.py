"""The contract of a task: requests that depend on a seed alone, and a score per answer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from harness.metric import Metric
from harness.outcome import Outcome


class Tokenizer(Protocol):
    """What a task needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens included as the model expects them."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of tokens."""


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """One prompt, split where the protocol splits it, and what the answer is scored against.

    The prompt is `context + question`, nothing between them. `metadata` holds JSON values that
    say how the request was built (needle depths, names, values). stop_strings end an answer and are
    no part of it; continuation: scored after the prompt instead of an answer; is_text: it is a text
    by itself, with the special tokens that the tokenizer gives it; question_tokens: so many of the
    last tokens of `context` belong to the question; most_tokens: of prompt and answer, a longer
    prompt loses its beginning; follows: the request before this one on the same context, which is
    read once for all of them; question_number: which of them it is.
    """

    uid: str
    task: str
    context: str
    question: str
    references: tuple[str, ...]
    max_new_tokens: int
    metadata: dict[str, Any] = field(default_factory=dict)
    stop_strings: tuple[str, ...] = ()
    continuation: str | None = None
    is_text: bool = False
    question_tokens: int = 0
    most_tokens: int | None = None
    follows: str | None = None
    question_number: int = 1


class Task(ABC):
    """A frozen dataclass of settings that yields requests and scores answers."""

    @property
    def name(self) -> str:
        """What records call the benchmark."""
        return type(self).__name__.lower()

    def limited_to(self, max_tokens: int) -> Self:
        """The task for a model of that many tokens, the same where its settings say how long."""
        return self

    def asking(self, num_questions: int) -> Self:
        """The task with so many questions of each context; raises ValueError where it has fewer.

        Requests on one context come one after the other, and each question number is a task of its
        own: see `questions`.
        """
        if num_questions > 1:
            raise ValueError(
                f"protocol.num_questions={num_questions}: task {self.name} asks one question of "
                "each context; use 1, or task=ruler task.tasks=[niah_multikey_1]"
            )
        return self

    @abstractmethod
    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """All requests; the same seed and tokenizer give the same requests on every machine."""

    @abstractmethod
    def score(self, request: TaskRequest, answer: str) -> float | None:
        """The score of one answer, in [0, 1]; None where answers are not scored."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know of the task to read its scores right."""
        return ()

    def settled(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """The outcomes of one arm, with scores that take several of them to tell."""
        return outcomes

    def metrics(self, outcomes: Sequence[Outcome]) -> Mapping[str, Metric]:
        """Numbers of one arm, by name, that are no mean of scores."""
        return {}
