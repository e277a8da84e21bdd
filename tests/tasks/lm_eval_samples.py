"""Small tasks of lm-eval in files of our own: one of each kind, over the same four documents."""

import json
from pathlib import Path
from random import Random

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
QUESTION = (
    "\nWhat is the special magic number for plain-tree mentioned in the provided text?"
    " The special magic number for plain-tree mentioned in the provided text is"
)
SHARED = """\
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
fewshot_split: test
doc_to_text: "{{{{text}}}}"
task: {name}
"""
KINDS = {
    "local_gen": """\
output_type: generate_until
doc_to_target: " {{answer}}"
generation_kwargs: {until: [".", "\\n"], max_gen_toks: 16, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "local_choice": """\
output_type: multiple_choice
doc_to_target: label
doc_to_choice: choices
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "local_likelihood": """\
output_type: loglikelihood
doc_to_target: " {{answer}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "local_text": """\
output_type: loglikelihood_rolling
doc_to_target: "{{text}}"
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
}
GROUP = """\
group: local_group
task: [local_choice, local_likelihood]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
"""
CHAT_TEMPLATE = (
    "{% for one in messages %}<{{ one['role'] }}> {{ one['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_chat_model(folder: Path, model: Path) -> Path:
    """A model's files, with a chat template."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name != "tokenizer_config.json":
            (folder / path.name).symlink_to(path)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = CHAT_TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def write_tasks(folder: Path) -> Path:
    """The folder, with a YAML for each kind and the data they share."""
    folder.mkdir()
    rng = Random(0)
    data = folder / "documents.jsonl"
    data.write_text("\n".join(json.dumps(document(rng)) for _ in range(4)))
    for name, rest in KINDS.items():
        text = SHARED.format(data=data, name=name) + rest
        (folder / f"{name}.yaml").write_text(text)
    (folder / "local_group.yaml").write_text(GROUP)
    return folder


def document(rng: Random) -> dict[str, object]:
    """A number in a haystack of 200 tokens, and one that is not there."""
    wrong, right = (str(rng.randrange(10**6, 10**7)) for _ in range(2))
    needle = f"\nOne of the special magic numbers for plain-tree is: {right}.\n"
    text = FILLER * 4 + needle + FILLER * 4 + QUESTION
    return {"text": text, "answer": right, "choices": [wrong, right], "label": 1}
