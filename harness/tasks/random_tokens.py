"""Prompts of random words, which nobody scores: a load for speed and memory."""

import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from harness.tasks.base import Task, TaskRequest, Tokenizer
from harness.tasks.checks import at_least

WORDS = ("river", "stone", "window", "market", "garden", "letter", "winter", "copper", "bread")


@dataclass(frozen=True, kw_only=True)
class RandomTokens(Task):
    """`num_samples` prompts of `length` tokens, the last `question_tokens` of them the question.

    Token counts hold up to the tokenizer's merging at the joints.
    """

    length: int
    question_tokens: int
    num_samples: int
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        """Check the settings."""
        at_least("task.question_tokens", self.question_tokens, 1)
        at_least("task.num_samples", self.num_samples, 1)
        at_least("task.max_new_tokens", self.max_new_tokens, 1)
        at_least("task.length", self.length, self.question_tokens + self.max_new_tokens + 16)

    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """See Task."""
        return [self._request(tokenizer, index) for index in range(self.num_samples)]

    def score(self, request: TaskRequest, answer: str) -> None:
        """No answer is right or wrong."""
        return

    def _request(self, tokenizer: Tokenizer, index: int) -> TaskRequest:
        draw = random.Random(f"random_tokens/{self.seed}/{index}")
        words = [f" {draw.choice(WORDS)}" for _ in range(self.length)]
        context_tokens = self.length - self.question_tokens - self.max_new_tokens
        middle = _words_for(tokenizer, words, context_tokens)
        rest = words[middle:] + words
        question = rest[: _words_for(tokenizer, rest, self.question_tokens)]
        return TaskRequest(
            uid=f"random_tokens/{self.length}/{index}",
            task="random_tokens",
            context="".join(words[:middle]),
            question="".join(question),
            references=(),
            max_new_tokens=self.max_new_tokens,
        )


def _words_for(tokenizer: Tokenizer, words: Sequence[str], tokens: int) -> int:
    """How many of the words make at most that many tokens, at least one."""
    counts = range(1, len(words))
    return max(1, bisect(counts, tokens, key=lambda n: len(tokenizer.encode("".join(words[:n])))))
