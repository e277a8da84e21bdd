"""RULER's two metrics (NVIDIA/RULER, scripts/eval/synthetic/constants.py), of one sample."""

import re
from collections.abc import Sequence


def match_all(answer: str, references: Sequence[str]) -> float:
    """string_match_all: the fraction of the references that are in the answer."""
    found = _found(answer, references)
    return sum(found) / len(found)


def match_part(answer: str, references: Sequence[str]) -> float:
    """string_match_part: whether any of the references is in the answer."""
    return float(any(_found(answer, references)))


def _found(answer: str, references: Sequence[str]) -> list[bool]:
    said = re.sub(r"[\x00-\x1f]", "\n", answer.strip()).strip().lower()
    return [reference.lower() in said for reference in references]
