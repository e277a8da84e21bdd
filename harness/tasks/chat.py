"""A model's chat template around a prompt, as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

# Any text that no template holds: some strip what they are given, so the prompt goes in later.
_PLACE = "KVLOOM-PROMPT"
# Templates that tell the date would make another prompt each day; they fall back to this one.
_DATE = "26 Jul 2024"


@dataclass(frozen=True)
class Turn:
    """What stands before and after a user's words, when the model is to answer."""

    before: str
    after: str


NO_CHAT = Turn("", "")


def user_turn(tokenizer: Any, key: str) -> Turn:
    """Of the tokenizer's template, without the token that it begins every text with itself."""
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"{key}=true: the model's tokenizer has no chat template; use false")
    words = [{"role": "user", "content": _PLACE}]
    text = tokenizer.apply_chat_template(
        words, tokenize=False, add_generation_prompt=True, date_string=_DATE
    )
    before, _, after = text.partition(_PLACE)
    begins = tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    return Turn(before.removeprefix(tokenizer.bos_token) if begins else before, after)


def conversation(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
) -> str:
    """A conversation as the tokenizer's own template writes it, as lm-eval's `hf` model does.

    A template that refuses a system message is given the others.
    """

    def rendered(history: Sequence[Mapping[str, str]]) -> str:
        return str(
            tokenizer.apply_chat_template(
                list(history),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    try:
        return rendered(messages)
    except TemplateError:
        return rendered([one for one in messages if one["role"] != "system"])
