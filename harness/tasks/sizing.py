"""How much haystack fits into the length of a task, by tokens of pieces or of whole prompts."""

from dataclasses import dataclass

from harness.tasks.drafts import PROBE_UNITS, Draft, fitting_size
from harness.tasks.token_counts import TokenCounts


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """`length` counts the prompt and `num_new_tokens`."""

    task: str
    length: int
    num_new_tokens: int
    counts: TokenCounts

    def size(self, draft: Draft, *, guess: int | None = None, in_pieces: bool = True) -> int:
        """The size of a draft's haystack; raises ValueError where none fits.

        guess: where the search begins; in_pieces: tokens are counted by pieces.
        """

        def of_whole(size: int) -> int:
            return self.counts.whole(draft.prompt(size))

        num_tokens = draft.counter(self.counts) if in_pieces else of_whole
        guess = draft.smallest_size + PROBE_UNITS if guess is None else guess
        try:
            return fitting_size(draft, num_tokens, self.length - self.num_new_tokens, guess)
        except ValueError:
            least = num_tokens(draft.smallest_size) + self.num_new_tokens
            raise ValueError(
                f"task.length={self.length}: too short for prompt and new tokens of {self.task}; "
                f"it takes at least {least}"
            ) from None

    def is_exact(self, draft: Draft, size: int) -> bool:
        """Whether the pieces of a prompt have as many tokens as the whole."""
        return draft.counter(self.counts)(size) == self.counts.whole(draft.prompt(size))
