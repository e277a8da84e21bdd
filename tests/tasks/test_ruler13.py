"""RULER's 13 tasks: what each prompt holds, for two tokenizers."""

import json
import re
from itertools import pairwise

import pytest

from harness.tasks.haystacks import DEPTHS
from harness.tasks.ruler13 import TASKS
from tests.tasks.byte_tokenizer import ByteTokenizer
from tests.tasks.ruler13_settings import settings13, trained_tokenizer
from tests.tasks.ruler_settings import NOISE, ROOT, prompt

LENGTH = 4096
PROSE = " ".join((ROOT / "harness/tasks/data/prose.txt").read_text().split())
WORD, NUMBER = r"\S+-\D+?", r"\d{7}"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
# haystack, keys, needles, values asked for, key, value
NIAH = {
    "niah_single_1": ("noise", 1, 1, 1, WORD, NUMBER),
    "niah_single_2": ("essay", 1, 1, 1, WORD, NUMBER),
    "niah_single_3": ("essay", 1, 1, 1, WORD, UUID),
    "niah_multikey_1": ("essay", 4, 4, 1, WORD, NUMBER),
    "niah_multikey_2": ("needle", 1, None, 1, WORD, NUMBER),
    "niah_multikey_3": ("needle", 1, None, 1, UUID, UUID),
    "niah_multivalue": ("essay", 1, 4, 4, WORD, NUMBER),
    "niah_multiquery": ("essay", 4, 4, 4, WORD, NUMBER),
}
NEW_TOKENS = {**dict.fromkeys(NIAH, 128), "vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}


@pytest.fixture(scope="module", params=["bundled", "trained"])
def asked(request, tokenizer):
    """The tokenizer, and three requests of each task at 4k."""
    chosen = tokenizer if request.param == "bundled" else trained_tokenizer()
    requests = settings13(length=LENGTH, num_samples=3).requests(chosen)
    by_task = {task: [] for task in TASKS}
    for one in requests:
        by_task[one.task.removesuffix("_offline")].append(one)
    assert all(len(own) == 3 for own in by_task.values())
    return chosen, by_task


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_is_the_longest_that_leaves_room_for_the_answer(asked, task):
    tokenizer, by_task = asked
    # The largest unit of a haystack, in tokens: a line, a document, a word as often as it stands.
    unit = {"niah_multikey_3": 160, "qa_1": 160, "qa_2": 160}.get(task, 80)
    for one in by_task[task]:
        assert one.max_new_tokens == NEW_TOKENS[task]
        used = len(tokenizer.encode(prompt(one))) + one.max_new_tokens
        assert LENGTH - unit < used <= LENGTH


@pytest.mark.parametrize("task", NIAH)
def test_a_haystack_hides_the_needles_that_are_asked_for(asked, task):
    haystack, num_keys, num_needles, num_asked, key, value = NIAH[task]
    kind = "uuids" if value == UUID else "numbers"
    for one in asked[1][task]:
        needles = re.findall(
            rf"One of the special magic {kind} for ({key}) is: ({value})\.", one.context
        )
        if num_needles is None:
            assert len(needles) > 25
            assert sum(found in one.references for _, found in needles) == 1
        else:
            assert len(needles) == num_needles
            assert len({name for name, _ in needles}) == num_keys
        of_query = [found for name, found in needles if name in one.metadata["query"]]
        assert set(one.references) <= set(of_query)
        assert len(one.references) == len(set(one.references)) == num_asked
        _check_haystack(one, haystack, kind)
        singular = num_asked == 1
        shown, verb = (kind[:-1], "is") if singular else (kind, "are")
        every = "is the" if singular else "are all the"
        query = one.metadata["query"]
        assert one.context.startswith(
            f"{'A' if singular else 'Some'} special magic {shown} {verb} hidden within the "
            f"following text. Make sure to memorize it. I will quiz you about the {shown} "
            "afterwards.\n"
        )
        assert one.question == (
            f"\nWhat {every} special magic {shown} for {query} mentioned in the provided text?"
            f" The special magic {shown} for {query} mentioned in the provided text {verb}"
        )


def _check_haystack(one, haystack, kind):
    body = one.context.split("\n", 1)[1]
    needle = re.compile(rf"One of the special magic {kind} for .+? is: \S+\.")
    if haystack == "essay":
        rest = " ".join(needle.sub("", body).split())
        assert len(rest) > 5000
        assert (f"{PROSE} " * 3).startswith(rest)
        sentences = [len(part.split(". ")) for part in needle.split(body)]
        assert sum(sentences) > 50
    else:
        lines = body.split("\n")
        assert all(needle.fullmatch(line) or line == NOISE for line in lines)
        assert (NOISE in lines) == (haystack == "noise")
        assert not needle.fullmatch(lines[-1]) or haystack == "needle"


def test_needles_stand_at_depths_of_ruler(asked):
    for one in asked[1]["niah_multivalue"]:
        depths = one.metadata["depths"]
        assert depths == sorted(depths)
        assert len(set(depths)) == 4
        assert all(min(abs(100 * depth - d) for d in DEPTHS) < 4 for depth in depths)


def test_queries_are_listed_as_ruler_does(asked):
    for one in asked[1]["niah_multiquery"]:
        first, last = one.metadata["query"].split(", and ")
        assert {*first.split(", "), last} == set(one.metadata["keys"])


def test_a_chain_is_tracked_after_a_solved_one(asked):
    for one in asked[1]["vt"]:
        example, tracked = one.context.split("\n\nMemorize and track")
        assert re.search(r"they are:  [A-Z]{3}( [A-Z]{3}){4}$", example)
        lines = [line for line in tracked.split("\n")[2:] if line != NOISE]
        names = one.references
        assert lines[0] == f"VAR {names[0]} = {one.metadata['query']}"
        assert lines[1:] == [f"VAR {after} = VAR {before} " for before, after in pairwise(names)]
        assert one.question.endswith(
            "are assigned the value " + one.metadata["query"] + ", they are: "
        )


COMMON = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
COMMON_ASKED = (
    "\nQuestion: What are the 10 most common words in the above list?"
    " Answer: The top 10 words that appear most often in the list are:"
)


@pytest.mark.parametrize(
    ("length", "shown", "listed"), [(LENGTH, (10, 3, 40), (30, 3)), (2048, (3, 1, 20), (6, 1))]
)
def test_common_words_follow_a_solved_list(tokenizer, length, shown, listed):
    for one in settings13(tasks=["cwe"], length=length).requests(tokenizer):
        empty, example, words = one.context.split(COMMON)
        assert empty == ""
        assert one.question == COMMON_ASKED
        solved, answer = example.split(COMMON_ASKED)
        assert answer.endswith("\n")
        counted = _counts(solved)
        assert len(counted) == shown[2]
        common = _counts(answer)
        assert list(common.values()) == [1] * 10
        assert {counted.pop(word) for word in common} == {shown[0]}
        assert set(counted.values()) == {shown[1]}
        counted = _counts(words)
        assert {counted.pop(word) for word in one.references} == {listed[0]}
        assert set(counted.values()) == {listed[1]}


def _counts(text):
    found = re.findall(r"(\d+)\. (.+?)(?= \d+\. |$)", text.strip())
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    counts = {}
    for _, word in found:
        counts[word] = counts.get(word, 0) + 1
    return counts


def test_coded_words_have_zipf_frequencies(asked):
    for one in asked[1]["fwe"]:
        head = "Find the three most frequently appeared coded words. "
        words = one.context.split(head)[1].split(" ")
        counts = sorted(((words.count(word), word) for word in set(words)), reverse=True)
        assert counts[0][1] == "..."
        assert tuple(word for _, word in counts[1:4]) == one.references
        assert all(re.fullmatch("[a-z]{6}", word) for _, word in counts[1:])
        for rank in (2, 3, 4):
            assert counts[rank - 1][0] == pytest.approx(counts[0][0] / rank**2, abs=1)
        assert one.question == (
            "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
            "What are the three most frequently appeared words in the above coded text?"
            " Answer: According to the coded text above, the three most frequently appeared words"
            " are:"
        )


ONLY = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words.\n\n"
)


@pytest.mark.parametrize("task", ["qa_1", "qa_2"])
def test_the_answer_is_in_one_of_many_documents(asked, task):
    for index, one in enumerate(asked[1][task]):
        head, body = one.context.split("The following are given documents.\n\n")
        assert head == ONLY
        documents = re.split(r"(?:^|\n\n)Document \d+:\n", body)[1:]
        numbers = re.findall(r"(?:^|\n\n)Document (\d+):\n", body)
        assert numbers == [str(number) for number in range(1, len(documents) + 1)]
        assert len(documents) == len(set(documents)) > 10
        assert any(one.references[0] in document for document in documents)
        assert one.question == f"\n\n{ONLY}Question: {one.metadata['query']} Answer:"
        assert one.uid == f"ruler_offline-{task}-{LENGTH}-{index}"


def test_texts_of_ours_are_never_taken_for_the_original_ones(asked):
    for task, requests in asked[1].items():
        ours = NIAH.get(task, "?")[0] == "essay" or task in ("qa_1", "qa_2")
        for one in requests:
            assert one.task == (f"{task}_offline" if ours else task)
            assert one.uid.startswith("ruler_offline-" if ours else "ruler-")
            assert (one.metadata["variant"] == "original") == (not ours)
            assert json.loads(json.dumps(one.metadata)) == one.metadata
    assert settings13().name == "ruler_offline"
    assert settings13(tasks=["vt", "niah_multikey_2"]).name == "ruler"


@pytest.mark.parametrize("task", TASKS)
def test_more_samples_leave_a_sample_as_it_was(task):
    def build(num_samples):
        ruler = settings13(tasks=[task], length=9000, num_samples=num_samples)
        return ruler.requests(ByteTokenizer())

    few, many = build(2), build(12)
    assert few == many[:2]
    assert len({one.question + one.context for one in many}) == 12


def test_a_tokenizer_that_merges_over_pieces_still_never_exceeds_the_length():
    class Merging:
        """A token a byte, and one more for every hundred in a row."""

        def encode(self, text):
            size = len(text.encode())
            return [0] * (size + size // 100)

    for one in settings13(length=9000, num_samples=3).requests(Merging()):
        assert len(Merging().encode(prompt(one))) + one.max_new_tokens <= 9000


@pytest.mark.parametrize("task", TASKS)
def test_a_length_that_cannot_fit_ends_in_one_line(tokenizer, task):
    with pytest.raises(ValueError, match=rf"task\.length=150: too short .*{task}.* \d+$") as info:
        settings13(tasks=[task], length=150).requests(tokenizer)
    assert "\n" not in str(info.value)
