"""The contract of a task: requests that depend on a seed alone, and a score per answer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Tokenizer(Protocol):
    """What a task needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens included as the model expects them."""


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """One prompt, split where the protocol splits it, and what the answer is scored against.

    The prompt is `context + question`, nothing between them. `metadata` holds JSON values that
    say how the request was built (needle depths, names, values).
    """

    uid: str
    task: str
    context: str
    question: str
    references: tuple[str, ...]
    max_new_tokens: int
    metadata: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """A frozen dataclass of settings that yields requests and scores answers."""

    @property
    def name(self) -> str:
        """What records call the benchmark."""
        return type(self).__name__.lower()

    @abstractmethod
    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """All requests; the same seed and tokenizer give the same requests on every machine."""

    @abstractmethod
    def score(self, request: TaskRequest, answer: str) -> float | None:
        """The score of one answer, in [0, 1]; None where answers are not scored."""
