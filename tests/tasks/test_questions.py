"""Several questions of one context, as tasks build them and as workloads split them."""

import pytest

from harness.build import build
from harness.composing import settings_from
from harness.tasks.questions import chains
from harness.workload import make_workload
from tests.tasks.ruler_settings import prompt, settings

SMALL = {"tasks": ["niah_multikey_1"], "length": 512, "num_samples": 3, "max_new_tokens": 16}


def asking(num_questions: int, **changes):
    return settings("ruler", **SMALL | changes).asking(num_questions)


def workload_of(task, tokenizer, protocol: str):
    return make_workload(task, tokenizer, protocol=protocol, temperature=0, stop_ids=frozenset())


def test_questions_of_a_context_ask_for_different_keys_of_the_same_text(tokenizer):
    requests = asking(3).requests(tokenizer)
    assert [len(chain) for chain in chains(requests)] == [3, 3, 3]
    for chain in chains(requests):
        assert len({one.context for one in chain}) == 1
        assert len({one.question for one in chain}) == 3
        assert len({one.references for one in chain}) == 3
        for number, one in enumerate(chain, start=1):
            assert one.question_number == number
            assert one.task == f"niah_multikey_1_question_{number}"
            assert one.metadata["query"] in one.question
            assert all(value in one.context for value in one.references)
            assert len(tokenizer.encode(prompt(one))) + one.max_new_tokens <= 512


def test_the_first_question_is_the_one_that_is_asked_alone(tokenizer):
    alone = asking(1).requests(tokenizer)
    first = [chain[0] for chain in chains(asking(2).requests(tokenizer))]
    for one, other in zip(alone, first, strict=True):
        assert (one.question, one.references) == (other.question, other.references)
        assert abs(len(one.context) - len(other.context)) < 200
        assert (one.task, one.follows, one.question_number) == ("niah_multikey_1", None, 1)


@pytest.mark.parametrize("protocol", ["question_sparse", "question_dense"])
def test_prompts_on_a_context_share_it_and_nothing_of_a_question(tokenizer, protocol):
    workload = workload_of(asking(2), tokenizer, protocol)
    assert [len(group) for group in workload.groups] == [2, 2, 2]
    for group in workload.groups:
        first, second = (item.request for item in group)
        assert (first.follows, second.follows) == (None, first.uid)
        shared = first.num_shared
        assert shared == second.num_shared > 0
        assert first.prompt_ids[:shared] == second.prompt_ids[:shared]
        said = tokenizer.decode(first.prompt_ids[shared:])
        assert said.lstrip("\n").startswith("What is the special magic")
        for request in (first, second):
            sparse_from = shared if protocol == "question_sparse" else len(request.prompt_ids)
            assert request.num_context == sparse_from


def test_a_context_that_is_asked_once_shares_nothing(tokenizer):
    for item in workload_of(asking(1), tokenizer, "question_sparse").items:
        assert (item.request.follows, item.request.num_shared) == (None, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task.tasks=[niah_single_1]",), "can be asked 1; use 1, or task.tasks=[niah_multikey_1]"),
        (("task.tasks=[vt,niah_multikey_1]",), "or task.tasks=[niah_multikey_1]"),
        (("task.tasks=[niah_multikey_1]",), None),
        (("task=random",), "asks one question of each context"),
        (("task=longbench",), "asks one question of each context"),
        (("task=ruler13",), "asks one question of each context"),
    ],
)
def test_a_task_that_cannot_ask_again_says_so_in_one_line(words, said):
    task = build(settings_from(list(words)).task, "task")
    if said is None:
        assert task.asking(4)
        with pytest.raises(ValueError, match=r"can be asked 4; use 4$"):
            task.asking(5)
        return
    with pytest.raises(ValueError, match=r"^protocol\.num_questions=2: [^\n]*$") as refusal:
        task.asking(2)
    assert said in str(refusal.value)


def test_a_departure_in_the_number_of_keys_is_named(tokenizer):
    (request,) = asking(1, num_samples=1, num_keys=6).requests(tokenizer)
    assert "num_keys=6" in request.metadata["variant"]
    assert len(request.metadata["keys"]) == 6
