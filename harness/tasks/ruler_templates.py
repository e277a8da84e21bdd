"""The wording of RULER's tasks, to the byte: benchmark data.

Source: NVIDIA/RULER, scripts/data/synthetic/constants.py and scripts/synthetic.yaml (main, 2026).
Licence: Apache-2.0, Copyright (c) 2024, NVIDIA CORPORATION.
"""

from dataclasses import dataclass

NEEDLE = "One of the special magic {value_names} for {key} is: {value}."
NOISE_LINE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
)
DOCUMENT = "Document {number}:\n{text}"


@dataclass(frozen=True)
class Wording:
    """One kind of prompt: `head` + context + `question` + `answer_prefix`.

    `num_new_tokens` is RULER's `tokens_to_generate`.
    """

    head: str
    question: str
    answer_prefix: str
    num_new_tokens: int


NIAH = Wording(
    head=(
        "Some special magic {value_names} are hidden within the following text. Make sure to "
        "memorize it. I will quiz you about the {value_names} afterwards.\n"
    ),
    question=(
        "\nWhat are all the special magic {value_names} for {query} mentioned in the provided text?"
    ),
    answer_prefix=(
        " The special magic {value_names} for {query} mentioned in the provided text are"
    ),
    num_new_tokens=128,
)
VARIABLE_TRACKING = Wording(
    head="Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n",
    question=(
        "\nQuestion: Find all variables that are assigned the value {query} in the text above."
    ),
    answer_prefix=(
        " Answer: According to the chain(s) of variable assignment in the text above,"
        " {num_names} variables are assigned the value {query}, they are: "
    ),
    num_new_tokens=30,
)
COMMON_WORDS = Wording(
    head=(
        "Below is a numbered list of words. In these words, some appear more often than others. "
        "Memorize the ones that appear most often.\n"
    ),
    question="\nQuestion: What are the 10 most common words in the above list?",
    answer_prefix=" Answer: The top 10 words that appear most often in the list are:",
    num_new_tokens=120,
)
FREQUENT_WORDS = Wording(
    head=(
        "Read the following coded text and track the frequency of each coded word. "
        "Find the three most frequently appeared coded words. "
    ),
    question=(
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text?"
    ),
    answer_prefix=(
        " Answer: According to the coded text above, the three most frequently appeared words are:"
    ),
    num_new_tokens=50,
)
_ONLY_ANSWER = (
    "Answer the question based on the given documents. "
    "Only give me the answer and do not output any other words.\n\n"
)
QA = Wording(
    head=f"{_ONLY_ANSWER}The following are given documents.\n\n",
    question=f"\n\n{_ONLY_ANSWER}Question: {{query}}",
    answer_prefix=" Answer:",
    num_new_tokens=32,
)


def for_one_answer(wording: Wording) -> Wording:
    """RULER's edits of the whole template where a single value is asked for."""
    return Wording(
        head=_singular(wording.head),
        question=_singular(wording.question),
        answer_prefix=_singular(wording.answer_prefix),
        num_new_tokens=wording.num_new_tokens,
    )


def _singular(text: str) -> str:
    for plural, singular in (
        ("Some", "A"),
        ("are all", "is"),
        ("are", "is"),
        ("answers", "answer"),
    ):
        text = text.replace(plural, singular)
    return text
