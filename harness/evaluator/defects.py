"""What is known to be off in lm-eval 0.4.13, by the names of the tasks that it is off in."""

from collections.abc import Iterable
from fnmatch import fnmatch

DEFECTS = {
    "ruler_cwe": "its solved example is sized for but never shown: the task is 0-shot",
    "ruler_qa_*": "an answer is scored by the share of its references; RULER takes the best one",
    "ruler_vt": "a word of the prompt, `assigned`, is misspelt",
    "ruler_fwe": "prompts fill all of the length and leave no room for the answer in it, and the "
    "vocabulary is that of the whole length",
    "niah_*": "the beginning of the answer is not counted: prompts are longer by it than was asked",
    **dict.fromkeys(
        ("niah_single_[23]", "niah_multikey_1", "niah_multivalue", "niah_multiquery"),
        "an essay haystack ends with its corpus; RULER repeats the corpus",
    ),
    "longbench_*": "prompts have lost spaces and newlines at their ends, and long ones are not cut "
    "in the middle as the original does",
    "longbench_trec*": "the answer is empty where a model begins with a newline",
    "longbench_samsum*": "the answer is empty where a model begins with a newline",
}


def defects(names: Iterable[str]) -> list[str]:
    """One sentence for each defect that one of these tasks has."""
    names = list(names)
    return [
        f"lm-eval's {pattern} is not the original: {what}"
        for pattern, what in DEFECTS.items()
        if any(fnmatch(name, pattern) for name in names)
    ]
