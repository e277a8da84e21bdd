"""LongBench's requests: truncation, splits, groups, chat templates, and data that is off."""

import json
from copy import deepcopy

import pytest

from harness.tasks.longbench import HEADROOM, cut_middle
from harness.tasks.longbench_data import from_rows, unformatted
from harness.tasks.longbench_hub import table_rows
from harness.tasks.longbench_prompts import templates
from harness.tasks.longbench_table import IN_EVEN, SUBSETS, TASKS, bucket
from tests.tasks.byte_tokenizer import ByteTokenizer
from tests.tasks.longbench_settings import FOLDER, PROMPTS, settings

WITHOUT_CHAT = {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
APART = {"code_sim", "count", "retrieval", "retrieval_zh"}
ROW = {"context": "C", "input": "Q", "answers": ["A"], "all_classes": None, "length": 1}


def row(**changes):
    return json.dumps(ROW | changes)


def rows_of(task):
    return [json.loads(line) for line in (FOLDER / f"{task}.jsonl").read_text().splitlines()]


def test_every_task_is_asked_with_its_prompt_and_its_answers(tokenizer):
    requests = settings().requests(tokenizer)
    of_names = templates(str(PROMPTS), list(SUBSETS))
    assert len(requests) == 3 * 21
    assert len({request.uid for request in requests}) == len(requests)
    for request in requests:
        name, number = request.task, int(request.uid.rpartition("-")[2])
        told = rows_of(name)[number]
        prompt = of_names[name].prompt(told["context"], told["input"])
        assert request.context + request.question == prompt
        assert request.context.endswith(told["context"])
        assert request.question.count(told["input"]) == 1 or told["input"] == ""
        assert request.references == tuple(told["answers"])
        assert request.max_new_tokens == SUBSETS[name].num_new_tokens


def test_a_right_answer_scores_one(tokenizer):
    task = settings()
    for request in task.requests(tokenizer):
        assert task.score(request, request.references[-1]) == pytest.approx(1, abs=1e-6)
        assert task.score(request, "") == 0


def test_of_a_few_shot_answer_the_first_line_counts(tokenizer):
    task = settings()
    for request in task.requests(tokenizer):
        answer = f"\n{request.references[0]}\nand more words of many classes: Food"
        first_line_counts = task.score(request, answer) == pytest.approx(1, abs=1e-6)
        few_shot = request.task in {"trec", "triviaqa", "samsum", "lsht"}
        # Code and numbers stand apart from words anyway.
        assert first_line_counts == (few_shot or SUBSETS[request.task].metric in APART)


def test_the_options_name_the_tasks_of_the_benchmark():
    assert settings("longbench").tasks == list(SUBSETS)
    assert settings("longbench_e").tasks == [f"{name}_e" for name in IN_EVEN]
    assert len(TASKS) == 21 + 13


def test_the_first_samples_of_each_task_are_taken(tokenizer):
    requests = settings(num_samples=2, tasks=["lcc", "trec"]).requests(tokenizer)
    assert [request.uid.removeprefix("longbench-") for request in requests] == [
        "lcc-0", "lcc-1", "trec-0", "trec-1",
    ]  # fmt: skip


def test_requests_of_longbench_e_are_grouped_by_length(tokenizer):
    requests = settings(tasks=["trec_e", "lcc"]).requests(tokenizer)
    assert [request.task for request in requests] == [
        "trec_e_0-4k", "trec_e_4-8k", "trec_e_8k+", "lcc", "lcc", "lcc",
    ]  # fmt: skip
    assert requests[0].metadata["subset"] == "trec"
    assert [bucket(length) for length in (7999, 8000)] == ["4-8k", "8k+"]


def test_what_is_not_original_is_told(tokenizer):
    (request,) = settings(tasks=["lcc"], num_samples=1, max_new_tokens=8).requests(tokenizer)
    assert request.metadata["variant"] == "prompt, max_new_tokens=8"
    assert request.max_new_tokens == 8


@pytest.mark.parametrize("length", [200, 201])
def test_a_long_prompt_loses_its_middle(tokenizer, length):
    (whole,) = settings(tasks=["qasper"], num_samples=1).requests(tokenizer)
    (cut,) = settings(tasks=["qasper"], num_samples=1, length=length).requests(tokenizer)
    token_ids = tokenizer.encode(whole.context + whole.question)
    assert len(token_ids) > length
    ends = token_ids[:100], token_ids[-100:]
    text = "".join(tokenizer.decode(part, skip_special_tokens=True) for part in ends)
    assert cut.context + cut.question == text
    assert cut.question == whole.question
    assert cut.metadata["tokens_cut"] == len(token_ids) - 200
    assert whole.metadata["tokens_cut"] == 0


def test_a_cut_through_the_question_leaves_its_end():
    context, question, num_cut = cut_middle("c" * 90, "q" * 40, ByteTokenizer(), 60)
    assert (context, question, num_cut) == ("c" * 30, "q" * 30, 70)
    context, question, _ = cut_middle("c" * 9, "Q" + "q" * 40, ByteTokenizer(), 30)
    assert context + question == "c" * 9 + "Q" + "q" * 20
    assert question == "q" * 15


def test_a_prompt_that_fits_is_not_touched():
    assert cut_middle("cc", "q", ByteTokenizer(), 3) == ("cc", "q", 0)
    assert cut_middle("cc", "q", ByteTokenizer(), None) == ("cc", "q", 0)


def test_without_a_length_prompts_fill_what_the_model_takes():
    assert settings(length=None).limited_to(4096).length == 4096 - HEADROOM == 3500
    task = settings(length=300, tasks=["lcc"])
    assert task.limited_to(364) is task
    with pytest.raises(ValueError, match=r"task.length=300: .* lower it to 299, or use null"):
        task.limited_to(363)


def test_six_tasks_never_take_a_chat_template(tokenizer):
    chatting = deepcopy(tokenizer)
    chatting.chat_template = (
        "{{ bos_token }}[U]{{ messages[0]['content'] | trim }}[/U]{{ date_string }}"
    )
    plain = settings(num_samples=1).requests(chatting)
    wrapped = settings(num_samples=1, chat_template=True).requests(chatting)
    assert {request.task for request in wrapped if not request.context.startswith("[U]")} == (
        WITHOUT_CHAT
    )
    for bare, request in zip(plain, wrapped, strict=True):
        prompt = bare.context + bare.question
        # A template that strips would take the blank that ends some prompts.
        around = prompt if bare.task in WITHOUT_CHAT else f"[U]{prompt}[/U]26 Jul 2024"
        assert request.context + request.question == around


def test_a_chat_template_that_is_absent_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"^task.chat_template=true: .* use false$"):
        settings(chat_template=True).requests(tokenizer)
    assert settings(chat_template=True, tasks=["trec"]).requests(tokenizer)


@pytest.mark.parametrize("name", SUBSETS)
def test_a_row_of_the_mirror_is_the_same_prompt_wherever_it_is_broken(name):
    template = templates(str(PROMPTS), [name])[name]
    told = rows_of(name)[0]
    prompt = template.prompt(told["context"], told["input"])
    start = len(template.head + told["context"])
    for place in range(start, start + len(template.middle) + 1):
        found = unformatted(prompt[:place], prompt[place:], template)
        assert found == (told["context"], told["input"])
    with pytest.raises(ValueError, match="are not the prompt of this task"):
        unformatted(f"?{prompt[1:place]}", prompt[place:], template)


def test_a_table_of_the_mirror_gives_the_samples_of_the_benchmark(tmp_path):
    datasets = pytest.importorskip("datasets")
    template = templates(str(PROMPTS), ["trec"])["trec"]
    told = rows_of("trec")
    tables = [
        {
            "context": template.head + one["context"] + "\n",
            "question": "\n" + one["input"].removesuffix("Type:"),
            "answer_prefix": "Type:",
            **{key: one[key] for key in ("answers", "all_classes", "length")},
        }
        for one in told
    ]
    (tmp_path / "trec").mkdir()
    datasets.Dataset.from_list(tables).to_parquet(tmp_path / "trec" / "test-00000-of-00001.parquet")
    samples = from_rows(table_rows(tmp_path, "trec"), "mirror", "trec", template, 2)
    assert [sample.asked for sample in samples] == [one["input"] for one in told[:2]]
    assert [sample.context for sample in samples] == [one["context"] for one in told[:2]]
    assert samples[0].all_classes == tuple(told[0]["all_classes"])


@pytest.mark.parametrize(
    ("task", "line", "reason"),
    [
        ("lcc", '{"context": ', "2: not JSON, Expecting value at column 13"),
        ("lcc", "[1]", "2: must be an object"),
        ("lcc", row(context=None), "2: context=None must be a string"),
        ("lcc", row(answers=[]), "2: answers is empty"),
        ("lcc", row(answers="A"), "2: answers='A' must be a list of strings"),
        ("lcc", row(answers=[1]), "2: answers=[1] must be a list of strings"),
        ("lcc", row(length="1"), "2: length='1' must be an integer"),
        ("lcc_e", row(length=None), "2: length is missing, which LongBench-E groups by"),
        ("trec", row(), "2: all_classes is empty"),
        ("passage_retrieval_en", row(), "2: answers=['A'] name no paragraph"),
    ],
)
def test_a_line_that_is_off_is_named_with_its_file_and_the_reason(
    tokenizer, tmp_path, task, line, reason
):
    good = row(all_classes=["A"], answers=["Paragraph 1"])
    path = tmp_path / f"{task}.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError) as refused:
        settings(tasks=[task], path=str(tmp_path)).requests(tokenizer)
    assert str(refused.value) == f"{path}:{reason}"
    # What is not asked for is not read.
    assert settings(tasks=[task], path=str(tmp_path), num_samples=1).requests(tokenizer)


@pytest.mark.parametrize(("content", "reason"), [(b"\n", "no samples"), (b"\xff", "utf-8")])
def test_a_file_without_text_is_refused(tokenizer, tmp_path, content, reason):
    (tmp_path / "lcc.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        settings(tasks=["lcc"], path=str(tmp_path)).requests(tokenizer)


def test_data_lies_where_the_archive_puts_it(tokenizer, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lcc.jsonl").write_text(row())
    assert len(settings(tasks=["lcc"], path=str(tmp_path)).requests(tokenizer)) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tasks": ["lsht_e"]}, "task.tasks"),
        ({"length": 3}, "task.length=3"),
        ({"num_samples": 0}, "task.num_samples=0"),
        ({"max_new_tokens": 0}, "task.max_new_tokens=0"),
        ({"path": ""}, "task.path=''"),
        ({"prompts": 1}, "task.prompts=1"),
        ({"download": "yes"}, "task.download='yes'"),
        ({"chat_template": 1}, "task.chat_template=1"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_key(changes, reason):
    with pytest.raises(ValueError) as refused:
        settings(**changes)
    assert str(refused.value).startswith(reason)
