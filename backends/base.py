"""What a backend is: requests in, timed tokens out, counters beside; it computes no metric."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from backends.finish import Finish
from memory_tiers.counters import Counters


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to be continued.

    prompt_ids: the whole prompt; num_context: its leading tokens that are prefilled densely, the
    others are the question and go through the sparse path; temperature 0 is greedy, and what is
    sampled depends on `seed` alone, not on the batch mates; ends: told the answer after each token,
    whether it is complete; scored_ids: tokens whose log-probabilities are asked for, the last of
    which would follow the prompt, while those before it are the last ones of the prompt. follows:
    the request before it on the same context, of which the `num_shared` leading tokens of both
    prompts are left when it begins; the last request on a context has `num_shared` too.
    """

    uid: str
    prompt_ids: tuple[int, ...]
    num_context: int
    max_new_tokens: int
    stop_ids: frozenset[int]
    temperature: float = 0.0
    seed: int = 0
    ends: Callable[[Sequence[int]], bool] | None = None
    scored_ids: tuple[int, ...] = ()
    follows: str | None = None
    num_shared: int = 0

    def __post_init__(self) -> None:
        """The harness splits prompts; a split that is off is our bug."""
        assert 0 <= self.num_context <= len(self.prompt_ids), self
        assert self.prompt_ids, "an empty prompt has nothing to attend to"
        assert self.max_new_tokens > 0, self
        assert len(self.scored_ids) <= len(self.prompt_ids), self
        assert self.prompt_ids[self.first_scoring_row + 1 :] == self.scored_ids[:-1], self
        assert self.follows is None or self.num_shared > 0, self
        assert self.num_shared <= min(self.num_context, len(self.prompt_ids) - 1), self

    @property
    def first_scoring_row(self) -> int:
        """The prompt token that the first of the scored ones follows."""
        return len(self.prompt_ids) - max(1, len(self.scored_ids))

    @property
    def most_tokens(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return len(self.prompt_ids) + self.max_new_tokens

    @property
    def num_ended(self) -> int:
        """Tokens after which an evictor has acted on the context: all that comes later stays."""
        return self.num_context if self.follows is None else self.num_shared


class TokenScore(NamedTuple):
    """How likely a given token was, and whether none was likelier."""

    log_probability: float
    is_greedy: bool


@dataclass(frozen=True)
class TokenEvent:
    """One token, and when it was there: `time.perf_counter` seconds."""

    uid: str
    token_id: int
    time_s: float
    finish: Finish | None


class KVRead(NamedTuple):
    """Pages that the decode steps of one request read, and what dense attention reads in them."""

    pages: int
    dense_pages: int


class RefusedError(ValueError):
    """An engine cannot be started as it was asked for; the message says why, in one line."""


class Backend(ABC):
    """Runs a model over requests, continuously batched."""

    provides: ClassVar[frozenset[str]]
    counters: Counters

    @abstractmethod
    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests, in order."""

    @abstractmethod
    def step(self) -> list[TokenEvent]:
        """One forward pass; the tokens it yielded, which a prefill step may not have."""

    @abstractmethod
    def take_failures(self) -> dict[str, str]:
        """Requests that ended without an answer since the last call, by uid, and why."""

    @abstractmethod
    def take_scores(self) -> dict[str, tuple[TokenScore, ...]]:
        """Scores of the scored tokens of requests that have all of them since the last call."""

    def take_reads(self) -> dict[str, KVRead]:
        """What was read for requests that ended since the last call; none where it cannot tell."""
        return {}

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a request is queued or running."""

    @abstractmethod
    def peak_bytes(self) -> dict[str, int]:
        """Most bytes taken at one time: KV pages by tier, `index`, `evictor`, `page_tables`."""

    @property
    @abstractmethod
    def num_preempted(self) -> int:
        """How often a request had to wait once it ran."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What was really set up and what happened, for the record.

        At least `tiers`, facts of each; `page_tables`, bytes by level and part; and `preempted`.
        """

    @abstractmethod
    def reset_counters(self) -> None:
        """Count from zero, after a warm-up."""
