"""What LongBench (arXiv:2308.14508) fixes for each of its tasks: score, length, prompt."""

from collections.abc import Mapping
from dataclasses import dataclass

# LongBench-E: data sets of the same tasks, evenly spread over lengths.
EVEN = "_e"


@dataclass(frozen=True, kw_only=True)
class Subset:
    """One task; prompt: the first half of its original template's SHA-256, in hexadecimal."""

    metric: str
    num_new_tokens: int
    prompt: str
    chat: bool = True
    first_line: bool = False


_PASSAGES = "9ec4ae308865bd0c"
SUBSETS: Mapping[str, Subset] = {
    "narrativeqa": Subset(metric="qa_f1", num_new_tokens=128, prompt="aada7ed24b06abac"),
    "qasper": Subset(metric="qa_f1", num_new_tokens=128, prompt="0fbdd123fe7f83d6"),
    "multifieldqa_en": Subset(metric="qa_f1", num_new_tokens=64, prompt="20b4666a2de8a1f7"),
    "multifieldqa_zh": Subset(metric="qa_f1_zh", num_new_tokens=64, prompt="344b3a4e557cd547"),
    "hotpotqa": Subset(metric="qa_f1", num_new_tokens=32, prompt=_PASSAGES),
    "2wikimqa": Subset(metric="qa_f1", num_new_tokens=32, prompt=_PASSAGES),
    "musique": Subset(metric="qa_f1", num_new_tokens=32, prompt=_PASSAGES),
    "dureader": Subset(metric="rouge_zh", num_new_tokens=128, prompt="ae53329f51b17908"),
    "gov_report": Subset(metric="rouge", num_new_tokens=512, prompt="91c25d585b189ced"),
    "qmsum": Subset(metric="rouge", num_new_tokens=512, prompt="dca23b678fe0183b"),
    "multi_news": Subset(metric="rouge", num_new_tokens=512, prompt="2af3f28c40b902e6"),
    "vcsum": Subset(metric="rouge_zh", num_new_tokens=512, prompt="3e5d8241bc9b512e"),
    "trec": Subset(
        metric="classification", num_new_tokens=64, prompt="0eff8bebdba99d91",
        chat=False, first_line=True,
    ),
    "triviaqa": Subset(
        metric="qa_f1", num_new_tokens=32, prompt="00a802e6377e72fc", chat=False, first_line=True,
    ),
    "samsum": Subset(
        metric="rouge", num_new_tokens=128, prompt="a68d884234907eef", chat=False, first_line=True,
    ),
    "lsht": Subset(
        metric="classification", num_new_tokens=64, prompt="f3edabdf7fae53d6",
        chat=False, first_line=True,
    ),
    "passage_count": Subset(metric="count", num_new_tokens=32, prompt="986550b6c61009c6"),
    "passage_retrieval_en": Subset(
        metric="retrieval", num_new_tokens=32, prompt="39b96b7fa52bdd2a"
    ),
    "passage_retrieval_zh": Subset(
        metric="retrieval_zh", num_new_tokens=32, prompt="c1e2346e245eb365"
    ),
    "lcc": Subset(metric="code_sim", num_new_tokens=64, prompt="6a1f24cf0bb83cd9", chat=False),
    "repobench-p": Subset(
        metric="code_sim", num_new_tokens=64, prompt="ee9ec182ea5ffeb7", chat=False
    ),
}  # fmt: skip
IN_EVEN = (
    "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec",
    "triviaqa", "samsum", "passage_count", "passage_retrieval_en", "lcc", "repobench-p",
)  # fmt: skip
TASKS = (*SUBSETS, *(f"{name}{EVEN}" for name in IN_EVEN))


def subset_of(task: str) -> str:
    """The task whose prompt and score a data set takes: that without the mark of LongBench-E."""
    return task.removesuffix(EVEN)


def bucket(length: int) -> str:
    """LongBench-E's group of a length in words."""
    if length < 4000:
        return "0-4k"
    return "4-8k" if length < 8000 else "8k+"
