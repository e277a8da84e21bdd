"""Data that is absent or malformed: exit 2 before the model loads, and one line says what to do."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness.cli_runs import run

TASK = """\
task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
metric_list: [{{metric: exact_match}}]
"""
GROUP = "group: ours\ntask: [mine]\n"
ESSAYS = ("task=ruler13", "task.tasks=[niah_multikey_1]")
SQUAD = ("task=ruler13", "task.tasks=[qa_1]")
LOCAL = ("task=lm_eval", "task.include={folder}/tasks", "task.builtin=false")
needs_lm_eval = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'kvloom[eval]'"
)


def refused(
    words: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """The last line on stderr of a run that must not load its model."""
    monkeypatch.setattr("harness.embedded.load", None)
    given = tuple(word.format(folder=folder) for word in words)
    assert run(given, folder / "results", monkeypatch) == (2, [])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("kvloom: ")
    return line


def tasks_of(folder: Path, content: str | None) -> None:
    """A task of lm-eval in a folder, a group of it, and its data if there is some."""
    (folder / "tasks").mkdir()
    (folder / "tasks" / "mine.yaml").write_text(TASK.format(path=folder / "mine.jsonl"))
    (folder / "tasks" / "ours.yaml").write_text(GROUP)
    if content is not None:
        (folder / "mine.jsonl").write_text(content)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            (*ESSAYS, "task.essays={folder}/none"),
            ("niah_multikey_1 needs essays", "tasks.hub essays data/essays.jsonl"),
        ),
        (
            (*SQUAD, "task.squad={folder}/none"),
            ("qa_1 needs squad", "tasks.hub squad data/squad.jsonl"),
        ),
        ((*ESSAYS,), ("task.essays=hub", "tasks.hub essays", "task.essays=data/essays.jsonl")),
        (
            ("model=hf", "model.path={folder}/none"),
            ("/none' is no folder", "hf download ID --local-dir FOLDER"),
        ),
        (
            ("model=hf", "model.path=some/model"),
            ("'some/model' is no folder", "hf download ID", "model.download=true"),
        ),
    ],
)
def test_what_is_absent_is_named_with_its_place_and_the_command(
    words: tuple[str, ...],
    parts: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(words, tmp_path, monkeypatch, capsys)
    for part in parts:
        assert part in line


@pytest.mark.parametrize("key", ["essays", "squad"])
def test_a_malformed_line_of_rulers_data_is_named(
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.jsonl").write_text('\n{"text": "bro')
    words = (*(ESSAYS if key == "essays" else SQUAD), f"task.{key}={{folder}}/a.jsonl")
    line = refused(words, tmp_path, monkeypatch, capsys)
    assert f"{tmp_path}/a.jsonl, line 2: Unterminated string" in line


@needs_lm_eval
@pytest.mark.parametrize("name", ["mine", "ours"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file {folder}/mine.jsonl; put it there"),
        ('{"q": "1+1=", "a": "2"}\n{"q": "1+\n', "{folder}/mine.jsonl, line 2: Unterminated"),
        ('{"q": "1+1=", "a": "2"}\n\n[3]\n', "{folder}/mine.jsonl, line 3: is no JSON object"),
    ],
)
def test_absent_or_malformed_data_of_a_task_for_lm_eval_is_named(
    name: str,
    content: str | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tasks_of(tmp_path, content)
    line = refused((*LOCAL, f"task.names=[{name}]"), tmp_path, monkeypatch, capsys)
    assert said.format(folder=tmp_path) in line


@needs_lm_eval
def test_a_hub_task_without_a_network_names_what_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tasks").mkdir()
    content = TASK.format(path="x").replace("dataset_path: json", "dataset_path: some/data")
    kept = [line for line in content.splitlines() if "dataset_kwargs" not in line]
    (tmp_path / "tasks" / "mine.yaml").write_text("\n".join(kept))
    # Read by `datasets` once, when it is first imported.
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    line = refused((*LOCAL, "task.names=[mine]"), tmp_path, monkeypatch, capsys)
    assert "task.names=['mine']: its data cannot be read here" in line
    assert "kvloom-lm-eval run --model dummy --tasks mine --limit 1" in line
