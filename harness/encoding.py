"""From texts to token ids, by the rules of lm-eval's `hf` model, and where an answer ends."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Tokens looked at again for a stop string that spans several of them, beside its own length.
MARGIN_TOKENS = 8


class ScoredPair(NamedTuple):
    """Ids of a context and of the continuation that is scored after it."""

    context_ids: list[int]
    continuation_ids: list[int]


def encode(tokenizer: Any, text: str, *, add_bos: bool | None = None) -> list[int]:
    """Ids of a prompt; a text that begins with the tokenizer's own beginning gets no second one.

    add_bos: whether special tokens are added, None leaves it to the tokenizer.
    """
    bos = getattr(tokenizer, "bos_token", None)
    special = False if bos and text.startswith(bos) else add_bos
    if special is None:
        return list(tokenizer.encode(text))
    return list(tokenizer.encode(text, add_special_tokens=special))


def prefix_id(tokenizer: Any) -> int:
    """The token that stands before a text without a context; raises ValueError without one."""
    first = tokenizer.bos_token_id
    found = tokenizer.eos_token_id if first is None else first
    if found is None:
        raise ValueError("the tokenizer has neither a beginning nor an end of text to score after")
    return int(found)


def encode_scored(
    tokenizer: Any, context: str, continuation: str, *, add_bos: bool | None = None
) -> ScoredPair:
    """Context and continuation, split where the tokens of the context alone end.

    Spaces at the end of the context go to the continuation, as most tokenizers put them there.
    """
    if not context:
        ids = list(tokenizer.encode(continuation, add_special_tokens=False))
        first = prefix_id(tokenizer)
        return ScoredPair(ids[:1], ids[1:]) if ids[:1] == [first] else ScoredPair([first], ids)
    bare = context.rstrip()
    whole_ids = encode(tokenizer, context + continuation, add_bos=add_bos)
    context_ids = encode(tokenizer, bare, add_bos=add_bos)
    return ScoredPair(context_ids, whole_ids[len(context_ids) :])


def ends_at(tokenizer: Any, stops: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
    """Tells from the ids of an answer whether one of the strings has just appeared in it."""
    wanted = [stop for stop in stops if stop]
    if not wanted:
        return None
    window = max(len(stop.encode()) for stop in wanted) + MARGIN_TOKENS

    def complete(answer: Sequence[int]) -> bool:
        said = tokenizer.decode(list(answer[-window:]), skip_special_tokens=True)
        return any(stop in said for stop in wanted)

    return complete


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the strings."""
    for stop in stops:
        if stop:
            text = text.split(stop)[0]
    return text
