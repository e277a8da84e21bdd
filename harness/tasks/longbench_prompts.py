"""LongBench's prompts: read where they are installed or given, never kept here."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.tasks.longbench_table import SUBSETS

CONTEXT, INPUT = "{context}", "{input}"
# Where lm-eval 0.4.13 departs from the original: one newline for two, and ends that are stripped.
ONE_NEWLINE = ("triviaqa", "samsum")
STRIPPED_ENDS = {
    "passage_count": " ", "passage_retrieval_en": " ", "lcc": "\n", "repobench-p": "\n",
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A prompt around a context and, behind it, an input.

    middle: between the two, or all that follows where no input does, when end is None; original:
    whether these are the bytes of the benchmark's own file.
    """

    head: str
    middle: str
    end: str | None
    original: bool

    def question(self, asked: str) -> str:
        """What follows the context."""
        return self.middle if self.end is None else self.middle + asked + self.end

    def prompt(self, context: str, asked: str) -> str:
        """The whole of it."""
        return self.head + context + self.question(asked)


def templates(path: str | None, names: Sequence[str]) -> Mapping[str, Template]:
    """Of these tasks, from a `dataset2prompt.json` or from lm-eval; ValueError where absent."""
    if path is not None:
        texts = _of_file(Path(path), names)
    else:
        folder = _lm_eval_folder()
        texts = {name: _of_lm_eval(folder / f"{name}.yaml", name) for name in names}
    return {name: _template(name, text) for name, text in texts.items()}


def corrected(name: str, text: str) -> str:
    """The original's whitespace where lm-eval's differs; nothing changes where it does not."""
    if name in ONE_NEWLINE:
        return text.replace(f"{CONTEXT}\n{INPUT}", f"{CONTEXT}\n\n{INPUT}")
    end = STRIPPED_ENDS.get(name, "")
    return text.removesuffix(end) + end


def _lm_eval_folder() -> Path:
    """Of its LongBench tasks; found and not imported, which would take seconds."""
    spec = find_spec("lm_eval")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(place) / "tasks" / "longbench").is_dir():
            return folder
    raise ValueError(
        "task=longbench reads its prompts from lm-eval, which is not installed: "
        "pip install 'kvloom[eval]', or give task.prompts=FILE, a copy of the benchmark's "
        "dataset2prompt.json"
    )


def _of_lm_eval(path: Path, name: str) -> str:
    """The template of one of its task files, whose tags for Python functions mean nothing here."""
    try:
        content = OmegaConf.create(path.read_text(encoding="utf-8").replace("!function ", ""))
    except (OSError, OmegaConfBaseException) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}; give task.prompts=FILE") from None
    text = str(OmegaConf.select(content, "doc_to_text"))
    text = text.replace("{{context}}", CONTEXT).replace("{{question}}", INPUT)
    return corrected(name, text)


def _of_file(path: Path, names: Sequence[str]) -> dict[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"task.prompts={path}: line {error.lineno}: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"task.prompts={path}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"task.prompts={path}: must be an object of prompts by task name")
    for name in names:
        if not isinstance(content.get(name), str):
            raise ValueError(f"task.prompts={path}: has no prompt of {name}")
    return {name: content[name] for name in names}


def _template(name: str, text: str) -> Template:
    head, context, rest = text.partition(CONTEXT)
    middle, asked, end = rest.partition(INPUT)
    if not context or CONTEXT in rest or INPUT in head + end:
        raise ValueError(
            f"the prompt of {name} must hold {CONTEXT} once, and {INPUT} at most once behind it"
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    original = digest.startswith(SUBSETS[name].prompt)
    return Template(head, middle, end if asked else None, original)
