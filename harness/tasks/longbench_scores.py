"""LongBench's scores, with the semantics and the quirks of its `metrics.py`, in [0, 1].

The benchmark reports their means times 100. The libraries that decide them are imported when the
first score that needs them is, since they are an extra.
"""

import logging
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

Score = Callable[[str, str, Sequence[str]], float]
LIBRARIES = {
    "qa_f1_zh": "jieba", "rouge": "rouge", "rouge_zh": "jieba, rouge", "code_sim": "fuzzywuzzy",
}  # fmt: skip
# What names the paragraph in a right answer.
PARAGRAPH = {"retrieval": r"Paragraph (\d+)", "retrieval_zh": "\u6bb5\u843d(\\d+)"}
# Marks of comments and fences: a line that holds one is not taken for code.
NO_CODE = ("`", "#", "//")
# All that the original strips in Chinese beside ASCII's; it forgets U+300A, the opening bracket.
CHINESE_PUNCTUATION = (
    "\uff01\uff1f\uff61\u3002\uff02\uff03\uff04\uff05\uff06\uff07\uff08\uff09\uff0a\uff0b\uff0c"
    "\uff0d\uff0f\uff1a\uff1b\uff1c\uff1d\uff1e\uff20\uff3b\uff3c\uff3d\uff3e\uff3f\uff40\uff5b"
    "\uff5c\uff5d\uff5e\uff5f\uff60\uff62\uff63\uff64\u3001\u3003\u300b\u300c\u300d\u300e\u300f"
    "\u3010\u3011\u3014\u3015\u3016\u3017\u3018\u3019\u301a\u301b\u301c\u301d\u301e\u301f\u3030"
    "\u303e\u303f\u2013\u2014\u2018\u2019\u201b\u201c\u201d\u201e\u201f\u2026\u2027\ufe4f"
)


def require(metrics: Collection[str]) -> None:
    """Raise ValueError of one line where a library of these metrics is not installed."""
    needed = {name for metric in metrics for name in LIBRARIES.get(metric, "").split(", ") if name}
    if absent := sorted(name for name in needed if find_spec(name) is None):
        raise ValueError(
            f"task=longbench scores with {', '.join(absent)}, not installed here: "
            f"pip install 'kvloom[eval]', or pip install {' '.join(absent)}"
        )


def best_score(
    metric: str, answer: str, references: Sequence[str], classes: Sequence[str], *, first_line: bool
) -> float:
    """The best over the references; first_line: only that of the answer counts, as in few-shots."""
    if first_line:
        answer = answer.lstrip("\n").split("\n")[0]
    return max(0.0, *(METRICS[metric](answer, reference, classes) for reference in references))


def qa_f1(answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """F1 of bags of words, without case, punctuation and English articles."""
    return _f1(_words(answer), _words(reference))


def qa_f1_zh(answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """F1 of bags of the words that jieba cuts, without punctuation."""
    return _f1(_words_zh(answer), _words_zh(reference))


def rouge(answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """ROUGE-L's F of the package `rouge`; 0 where that fails, as it does on empty texts."""
    try:
        return float(_rouge().get_scores([answer], [reference], avg=True)["rouge-l"]["f"])
    except Exception:
        return 0.0


def rouge_zh(answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """ROUGE-L of the words that jieba cuts."""
    return rouge(" ".join(_cut(answer)), " ".join(_cut(reference)))


def classification(answer: str, reference: str, classes: Sequence[str]) -> float:
    """One by the number of classes that the answer names, if the right one is among them.

    Those that are a part of the right one's name do not count, but for a quirk: the original
    removes from the list that it walks, so what follows a removed name is passed over.
    """
    named = [name for name in classes if name in answer]
    place = 0
    while place < len(named):
        if named[place] in reference and named[place] != reference:
            named.remove(named[place])
        place += 1
    return 1 / len(named) if reference in named else 0.0


def count(answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """The share of the answer's numbers that are the right one, digit by digit."""
    numbers = re.findall(r"\d+", answer)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def code_sim(answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """The similarity of the first line that holds no mark of a comment, be it empty."""
    lines = answer.lstrip("\n").split("\n")
    code = next((line for line in lines if not any(mark in line for mark in NO_CODE)), "")
    return float(_ratio()(code, reference)) / 100


def _retrieval(pattern: str, answer: str, reference: str, classes: Sequence[str] = ()) -> float:
    """The share of the answer's numbers that are the right paragraph's."""
    return count(answer, re.findall(pattern, reference)[0])


METRICS: Mapping[str, Score] = {
    "qa_f1": qa_f1,
    "qa_f1_zh": qa_f1_zh,
    "rouge": rouge,
    "rouge_zh": rouge_zh,
    "classification": classification,
    "count": count,
    "code_sim": code_sim,
    **{name: partial(_retrieval, pattern) for name, pattern in PARAGRAPH.items()},
}


def _f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    num_same = sum((Counter(answer) & Counter(reference)).values())
    if num_same == 0:
        return 0.0
    precision, recall = num_same / len(answer), num_same / len(reference)
    return 2 * precision * recall / (precision + recall)


def _words(text: str) -> list[str]:
    plain = "".join(one for one in text.lower() if one not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _words_zh(text: str) -> list[str]:
    stripped = set(string.punctuation + CHINESE_PUNCTUATION)
    words = ("".join(one for one in word.lower() if one not in stripped) for word in _cut(text))
    return [bare for word in words if (bare := "".join(word.split()))]


def _cut(text: str) -> list[str]:
    import jieba

    # It tells on stderr that it reads its dictionary.
    jieba.setLogLevel(logging.WARNING)
    return list(jieba.cut(text, cut_all=False))


@cache
def _rouge() -> Any:
    from rouge import Rouge

    return Rouge()


@cache
def _ratio() -> Callable[[str, str], int]:
    with warnings.catch_warnings():
        # It recommends python-Levenshtein, with which scores would be others.
        warnings.simplefilter("ignore")
        from fuzzywuzzy import fuzz

    ratio: Callable[[str, str], int] = fuzz.ratio
    return ratio
