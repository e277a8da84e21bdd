"""Prompts become ids by the rules of lm-eval's `hf` model; answers end before stop strings."""

import pytest

from harness.encoding import cut_at, encode, encode_scored, ends_at, prefix_id
from harness.tasks.base import TaskRequest
from harness.tasks.random_tokens import RandomTokens
from harness.workload import make_workload


def test_a_prompt_begins_once(tokenizer):
    bos = tokenizer.bos_token_id
    for text in ("The grass is green.", f"{tokenizer.bos_token}The grass is green."):
        ids = encode(tokenizer, text)
        assert ids[0] == bos
        assert bos not in ids[1:]
    assert encode(tokenizer, "The grass", add_bos=False)[0] != bos
    assert encode(tokenizer, "The grass", add_bos=True)[0] == bos


@pytest.mark.parametrize(
    ("context", "continuation"), [("The sky is", " blue."), ("The sky is  ", "blue."), ("", "Blue")]
)
def test_context_and_continuation_are_the_tokens_of_both(tokenizer, context, continuation):
    pair = encode_scored(tokenizer, context, continuation)
    whole = encode(tokenizer, context + continuation)
    assert [*pair.context_ids, *pair.continuation_ids] == whole
    assert pair.context_ids == (encode(tokenizer, context.rstrip()) if context else whole[:1])


def test_what_has_no_context_follows_the_beginning_of_text(tokenizer):
    bos = tokenizer.bos_token
    assert encode_scored(tokenizer, "", "Blue").context_ids == [prefix_id(tokenizer)]
    assert encode_scored(tokenizer, "", f"{bos}Blue") == encode_scored(tokenizer, "", "Blue")


def test_an_answer_ends_with_the_token_that_completes_a_stop_string(tokenizer):
    ids = encode(tokenizer, "Here we go. There and back again.", add_bos=False)
    complete = ends_at(tokenizer, ["xyz", "go. There"])
    told = [complete(ids[: count + 1]) for count in range(len(ids))]
    first = told.index(True)
    assert "go. There" in tokenizer.decode(ids[: first + 1])
    assert "go. There" not in tokenizer.decode(ids[:first])
    assert ends_at(tokenizer, [""]) is None


def test_a_stop_string_is_no_part_of_the_answer():
    assert cut_at("one. two\nthree", ["\n", ".", ""]) == "one"
    assert cut_at("one", ["two"]) == "one"


class Fixed(RandomTokens):
    """Requests that are given."""

    def requests(self, tokenizer):
        return self.given


def request_of(tokenizer, protocol="question_sparse", **changes):
    plain = {"uid": "0", "task": "t", "references": (), "max_new_tokens": 1}
    plain |= {"context": "The grass is green. The sky is", "question": ""}
    task = Fixed(length=64, question_tokens=1, num_samples=1, max_new_tokens=1, seed=0)
    object.__setattr__(task, "given", [TaskRequest(**plain | changes)])
    made = make_workload(task, tokenizer, protocol=protocol, temperature=0, stop_ids=frozenset())
    return made.items[0].request


def test_the_last_tokens_of_a_context_can_be_the_question(tokenizer):
    num_tokens = len(encode(tokenizer, "The grass is green. The sky is"))
    assert request_of(tokenizer, question_tokens=3).num_context == num_tokens - 3
    assert request_of(tokenizer, question_tokens=99).num_context == 0
    assert request_of(tokenizer, "question_dense", question_tokens=3).num_context == num_tokens


def test_a_continuation_is_scored_behind_its_context(tokenizer):
    num_tokens = len(encode(tokenizer, "The grass is green. The sky is"))
    for protocol, left in (("question_sparse", 3), ("question_dense", 0)):
        request = request_of(tokenizer, protocol, continuation=" blue again", question_tokens=3)
        whole = encode(tokenizer, "The grass is green. The sky is blue again")
        assert (*request.prompt_ids, request.scored_ids[-1]) == tuple(whole)
        assert request.scored_ids == tuple(whole[num_tokens:])
        assert request.num_context == num_tokens - left


def test_a_text_by_itself_is_scored_with_the_beginning_that_its_tokenizer_gives_it(tokenizer):
    request = request_of(tokenizer, context="", continuation="The grass", is_text=True)
    assert request.scored_ids == tuple(encode(tokenizer, "The grass"))
    assert request.prompt_ids == (prefix_id(tokenizer), *request.scored_ids[:-1])
