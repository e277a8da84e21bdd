"""Where the texts of RULER come from, and what is said where they are absent or malformed."""

import json
import sys

import pytest

from harness.tasks import hub
from harness.tasks.haystacks import sentences_by_rule
from tests.tasks.byte_tokenizer import ByteTokenizer
from tests.tasks.ruler13_settings import settings13

ESSAY = "First things first. Then came the second! Was there a third? Nobody knows. " * 30
SQUAD = {
    "data": [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": f"{title} paragraph {part}. It is about {title}.",
                    "qas": [
                        {
                            "question": f"Which part of {title} is {part}?",
                            "is_impossible": part == 2,
                            "answers": [] if part == 2 else [{"text": "it"}, {"text": f"{part}."}],
                        }
                    ],
                }
                for part in range(3)
            ],
        }
        for title in ("Apples", "Pears", "Plums")
    ]
}
HOTPOT = [
    {
        "question": f"Who made {number}?",
        "answer": f"maker {number}",
        "context": [[f"T{number}-{part}", ["One. ", f"Two {number}."]] for part in range(10)],
    }
    for number in range(4)
]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def build(**changes):
    return settings13(**{"length": 4000, "sentences": "rule", **changes}).requests(ByteTokenizer())


def test_essays_of_a_folder_are_the_haystack_in_their_order(tmp_path):
    write(tmp_path / "a.txt", "Opening words.\n\n  " + ESSAY)
    write(tmp_path / "b.jsonl", '{"text": "Last \\n words."}\n\n{"text": "Truly last."}\n')
    (one, _) = build(tasks=["niah_single_2"], essays=str(tmp_path))
    assert "\nOpening words. First things first. Then" in one.context
    assert one.task == "niah_single_2"
    assert one.metadata["variant"] == "haystack=essay, sentences=rule"
    (one, _) = build(tasks=["niah_single_2"], essays=str(tmp_path), length=9000)
    assert one.context.count("Last words. Truly last. Opening words.") >= 2, "repeated, not capped"


def test_the_questions_of_squad_take_all_answers_and_their_article_first(tmp_path):
    path = write(tmp_path / "dev-v2.0.json", SQUAD)
    requests = build(tasks=["qa_1"], squad=path, num_samples=6, length=550)
    questions = [one.metadata["query"] for one in requests]
    assert questions[:3] == [
        "Which part of Apples is 0?",
        "Which part of Apples is 1?",
        "Which part of Pears is 0?",
    ]
    for one in requests:
        title = one.metadata["query"].split()[3]
        assert one.references[0] == "it"
        assert len(one.references) == 2
        assert one.context.count(f"about {title}") >= 2
        assert one.context.count("It is about ") - one.context.count(f"about {title}") <= 1
    fewest = build(tasks=["qa_1"], squad=path, num_samples=6, length=480)
    assert {one.context.count("Document ") for one in fewest} <= {1, 2}
    for one in fewest:
        title, part = one.metadata["query"].rstrip("?").split()[3::2]
        assert f"{title} paragraph {part}." in one.context
    everything = build(tasks=["qa_1"], squad=path)[0]
    assert everything.context.count("Document ") == 9
    assert everything.metadata["variant"] == "haystack exhausted"


def test_the_questions_of_hotpotqa_keep_their_ten_documents(tmp_path):
    requests = build(tasks=["qa_2"], hotpotqa=write(tmp_path / "dev.json", HOTPOT), length=1200)
    for number, one in enumerate(requests):
        assert one.references == (f"maker {number}",)
        for part in range(10):
            assert f":\nT{number}-{part}\nOne. Two {number}." in one.context
        assert one.metadata["variant"] == "original"


def test_rows_of_the_hub_make_the_same_questions(tmp_path):
    rows = [
        {
            **row,
            "context": {
                "title": [title for title, _ in row["context"]],
                "sentences": [sentences for _, sentences in row["context"]],
            },
        }
        for row in HOTPOT
    ]
    lines = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    original = write(tmp_path / "dev.json", HOTPOT)
    assert build(tasks=["qa_2"], hotpotqa=lines) == build(tasks=["qa_2"], hotpotqa=original)


@pytest.mark.parametrize(
    ("task", "key"), [("niah_multivalue", "essays"), ("qa_1", "squad"), ("qa_2", "hotpotqa")]
)
def test_absent_data_is_named_with_the_place_and_the_command(tmp_path, task, key):
    with pytest.raises(ValueError, match=key) as info:
        build(tasks=["vt", task], **{key: str(tmp_path / "nowhere")})
    said = str(info.value)
    assert said.startswith(f"task.{key}={tmp_path}/nowhere: {task} needs {key}, ")
    assert f"'python -m harness.tasks.hub {key} data/{key}.jsonl'" in said
    assert f"task.{key}=data/{key}.jsonl" in said
    assert f"task.{key}=offline" in said
    assert "\n" not in said


def test_without_a_network_or_the_package_the_hub_is_absent_data(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"^task\.squad=hub: qa_1 needs squad: package datasets"):
        build(tasks=["qa_1"], squad="hub")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "fine."}\n\n{"text": "bro', ", line 3: Unterminated string"),
        ("a.jsonl", '{"text": "fine."}\n["text"]\n', ", line 2: is no JSON object"),
        ("a.jsonl", '{"text": "fine."}\n{"txt": ""}\n', ", line 2: field 'text' is absent"),
        ("a.jsonl", '{"text": 5}\n', ", line 1: field 'text' is of type int, not str"),
        ("a.json", '{\n"text": "a"\n"b": 1}', ", line 3: Expecting ',' delimiter"),
    ],
)
def test_malformed_lines_are_told_by_file_line_and_reason(tmp_path, name, content, said):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=name) as info:
        build(tasks=["niah_single_2"], essays=path)
    assert str(info.value).startswith(path + said)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"question": "?", "answer": "a"}], "entry 0: field 'context' is absent"),
        ([{"question": "?", "answer": "a", "context": [["t"]]}], "entry 0: "),
        ([{"question": "?", "answer": "a", "context": []}], "entry 0: "),
    ],
)
def test_a_malformed_entry_is_told_by_its_number(tmp_path, content, said):
    with pytest.raises(ValueError, match=said):
        build(tasks=["qa_2"], hotpotqa=write(tmp_path / "dev.json", content))


def test_more_samples_than_questions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"task\.num_samples=5: qa_2 has 4 questions"):
        build(tasks=["qa_2"], hotpotqa=write(tmp_path / "dev.json", HOTPOT), num_samples=5)


def test_a_set_is_kept_as_lines_that_are_read_again(tmp_path):
    rows = [{"text": "One. Two."}, {"text": ESSAY}]
    path = tmp_path / "data" / "essays.jsonl"
    assert hub.main(["essays", str(path)], lambda name: iter((name, row) for row in rows)) == 0
    assert "One. Two. First things" in build(tasks=["niah_single_2"], essays=str(path))[0].context
    assert hub.main(["novels", str(path)]) == 2


def test_sentences_end_where_the_rule_says():
    assert sentences_by_rule("A b.  C?\nD! e") == ["A b.", "C?", "D!", "e"]
