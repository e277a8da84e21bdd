"""Made-up questions and documents, ours: they stand for SQuAD and HotpotQA where those are absent.

Towns, their founders, years and rivers, so that no model knows an answer beforehand.
"""

from collections.abc import Sequence
from functools import cache
from random import Random

from harness.tasks.needles import distinct
from harness.tasks.question_answering import QASet, Question

NUM_TOWNS = 1500
_SYLLABLES = (
    "bar bel cas dor del fen gor gil hal hes kes kor lim lun mok mer pel pol quin ras riv sel sar "
    "tor tal ul und ven vok wes wim yar yol zel"
).split()
_TRADES = "glass rope salt wool paper copper honey timber pottery lace".split()
_KINDS = ("bridge", "library", "market hall", "lighthouse", "theatre", "mill")


@cache
def towns_asked_once() -> QASet:
    """One document answers a question, which may be put in several ways."""
    documents, questions = [], []
    for number, (town, founder, river) in enumerate(_names()):
        rng = Random(f"town:{number}")
        year, trade, kind = rng.randint(1100, 1899), rng.choice(_TRADES), rng.choice(_KINDS)
        documents += [
            f"{town} is a town on the river {river}. It was founded in {year} by {founder}, who "
            f"had come there with forty families. For a long time {town} lived on {trade}.",
            f"The {kind} of {town} is older than most of the houses around it. Visitors come for "
            f"the view over the {river}, and stay for the fair that is held every autumn.",
        ]
        needed, near = 2 * number, 2 * number + 1
        answers = (str(year), f"in {year}", f"the year {year}")
        questions.append(Question(f"When was {town} founded?", answers, (needed,), (near,)))
        questions.append(Question(f"Who founded {town}?", (founder,), (needed,), (near,)))
    return QASet(tuple(documents), tuple(questions))


@cache
def towns_asked_twice() -> QASet:
    """Two documents together answer a question; eight others come with it, as in HotpotQA."""
    documents, names = [], _names()
    for town, founder, river in names:
        documents += [
            f"{town}\n{town} is a town that was founded by {founder}. It has a harbour.",
            f"{founder}\n{founder} was born on a farm beside the river {river}.",
        ]
    questions = [
        Question(
            f"Beside which river was the founder of {town} born?",
            (river,),
            (2 * number, 2 * number + 1, *_others(number, len(documents))),
        )
        for number, (town, _, river) in enumerate(names)
    ]
    return QASet(tuple(documents), tuple(questions))


def _others(number: int, num_documents: int) -> Sequence[int]:
    own = range(2 * number, 2 * number + 2)
    rng = Random(f"others:{number}")
    drawn = distinct(8, lambda: str(rng.randrange(num_documents)), [str(index) for index in own])
    return [int(index) for index in drawn]


@cache
def _names() -> tuple[tuple[str, str, str], ...]:
    rng = Random("names")

    def draw() -> str:
        return "".join(rng.choices(_SYLLABLES, k=3)).capitalize()

    names = distinct(4 * NUM_TOWNS, draw)
    people = [
        f"{first} {last}"
        for first, last in zip(
            names[2 * NUM_TOWNS : 3 * NUM_TOWNS], names[3 * NUM_TOWNS :], strict=True
        )
    ]
    return tuple(zip(names[:NUM_TOWNS], people, names[NUM_TOWNS : 2 * NUM_TOWNS], strict=True))
