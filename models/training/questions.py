"""Questions and their answers, in token ids; every part is encoded, and cached, on its own."""

from collections.abc import Sequence

from models.training.dialect import ValueKind
from models.training.sample import Ids, Language, Segment
from models.training.tokenizer import EOS


def answered(
    language: Language, prompt: Ids, answers: Sequence[str], *, any_order: bool = False
) -> Segment:
    """A prompt and its answers, comma-separated; in any order, each may open with any one left."""
    ids = list(prompt)
    alternatives: dict[int, Ids] = {}
    for index, answer in enumerate(answers):
        ids += language.encode(",") if index else ()
        if any_order:
            firsts = {language.encode(" " + other)[0] for other in answers[index:]}
            alternatives[len(ids)] = tuple(sorted(firsts))
        ids += language.encode(" " + answer)
    ids += (*language.encode("."), EOS)
    return Segment(ids=tuple(ids), num_answer=len(ids) - len(prompt), alternatives=alternatives)


def ask_one(language: Language, values: ValueKind, key: str) -> Ids:
    """The question for the value of one key."""
    return language.encode_all(
        f"\nWhat is the special magic {values} for",
        " " + key,
        f" mentioned in the provided text? The special magic {values} for",
        " " + key,
        " mentioned in the provided text is",
    )


def ask_many(language: Language, values: ValueKind, keys: Sequence[str]) -> Ids:
    """The question for all values of several keys, or of one."""
    listed: list[str] = []
    for index, key in enumerate(keys):
        listed += [","] if index else []
        listed += [" and"] if 0 < index == len(keys) - 1 else []
        listed.append(" " + key)
    return language.encode_all(
        f"\nWhat are all the special magic {values}s for",
        *listed,
        f" mentioned in the provided text? The special magic {values}s for",
        *listed,
        " mentioned in the provided text are",
    )


def ask_chain(
    language: Language,
    chain: Sequence[str],
    value: str,
    *,
    open_end: bool = False,
    ends: bool = True,
) -> Segment:
    """The question for all variables of one chain, with its answer.

    `open_end`: a space stands between prompt and answer; `ends`: the answer ends the text.
    """
    prompt = language.encode_all(
        "\nQuestion: Find all variables that are assigned the value",
        " " + value,
        " in the text above. Answer: According to the chain(s) of variable assignment in the "
        "text above,",
        f" {len(chain)}",
        " variables are assigned the value",
        " " + value,
        ", they are:",
        *((" ",) if open_end else ()),
    )
    names = language.encode_all(*(" " + name for name in chain))
    answer = (*names, *language.encode("."), EOS) if ends else names
    return Segment(ids=prompt + answer, num_answer=len(answer))
