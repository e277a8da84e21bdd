"""What RULER reads: essays and two QA sets, from a path, the hub, or ours where that is asked for.

Raises ValueError of one line where something is absent, with what fetches it and where to put it.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.tasks import hub, offline_qa
from harness.tasks.haystacks import Essay, Prose, Text, sentences_by_rule
from harness.tasks.json_rows import field_of, read_json, read_rows
from harness.tasks.question_answering import QASet, Question

HUB, OFFLINE = "hub", "offline"
SPLITTERS = ("punkt", "rule")
Rows = Iterable[tuple[str, Any]]


def essays(source: str, splitter: str, task: str) -> Essay:
    """The haystack of the essay tasks; splitter: RULER's own sentences, or ours by a rule."""
    if source == OFFLINE:
        return Prose()
    text = " ".join(field_of(row, "text", str, at) for at, row in _rows("essays", source, task))
    if not text.split():
        raise ValueError(f"task.essays={source}: holds no text")
    sentences = _by_punkt(text) if splitter == "punkt" else sentences_by_rule(text)
    by = "haystack=essay" if splitter == "punkt" else "haystack=essay, sentences=rule"
    return Essay(Text.of(sentences), by)


def qa_set(name: str, source: str, task: str) -> QASet:
    """name: squad or hotpotqa."""
    if source == OFFLINE:
        return _OURS[name]()
    qa = _READERS[name](_rows(name, source, task))
    if not qa.questions:
        raise ValueError(f"task.{name}={source}: holds no question that has an answer")
    return qa


def digest_of(source: str) -> str:
    """What tells one content from another: of a path, SHA-256 of its files; else its name."""
    if source in (HUB, OFFLINE):
        return source
    digest = hashlib.sha256()
    for path in _files(Path(source)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _rows(name: str, source: str, task: str) -> Iterator[tuple[str, Any]]:
    how = (
        f"fetch it by '{hub.COMMAND} {name} data/{name}.jsonl' and set "
        f"task.{name}=data/{name}.jsonl, or set task.{name}={OFFLINE} for texts of ours, "
        "which are recorded as ruler_offline"
    )
    if source == HUB:
        try:
            yield from hub.rows_of(name)
        except ValueError as error:
            raise ValueError(f"task.{name}={HUB}: {task} needs {name}: {error}; {how}") from None
    elif not _files(Path(source)):
        raise ValueError(f"task.{name}={source}: {task} needs {name}, there is no such file; {how}")
    else:
        yield from (row for path in _files(Path(source)) for row in _rows_in(path))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(one for one in path.iterdir() if one.suffix in (".txt", ".json", ".jsonl"))
    return [path] if path.is_file() else []


def _rows_in(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".txt":
        yield str(path), {"text": path.read_text(encoding="utf-8")}
    elif path.suffix == ".jsonl":
        yield from read_rows(path)
    else:
        yield from _original(read_json(path), str(path))


def _original(content: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Rows as on the hub from a benchmark's own JSON: SQuAD's, HotpotQA's, or a text's."""
    if isinstance(content, Mapping) and "data" in content:
        yield from _squad_rows(content, where)
    elif isinstance(content, list):
        for number, row in enumerate(content):
            at = f"{where}, entry {number}"
            documents = field_of(row, "context", list, at)
            if not all(isinstance(one, list) and len(one) == 2 for one in documents):
                raise ValueError(f"{at}: field 'context' is no list of [title, sentences]")
            titles, sentences = [one[0] for one in documents], [one[1] for one in documents]
            yield at, {**row, "context": {"title": titles, "sentences": sentences}}
    else:
        yield where, content


def _squad_rows(content: Any, where: str) -> Iterator[tuple[str, Any]]:
    for number, article in enumerate(field_of(content, "data", list, where)):
        at = f"{where}, article {number}"
        for paragraph in field_of(article, "paragraphs", list, at):
            context = field_of(paragraph, "context", str, at)
            for asked in field_of(paragraph, "qas", list, at):
                texts = [field_of(one, "text", str, at) for one in asked.get("answers", [])]
                answers = [] if asked.get("is_impossible") else texts
                question = field_of(asked, "question", str, at)
                yield (
                    at,
                    {
                        "title": article.get("title", str(number)),
                        "context": context,
                        "question": question,
                        "answers": {"text": answers},
                    },
                )


def _read_squad(rows: Rows) -> QASet:
    """RULER's read_squad: every answer of a question, and the rest of its article as near."""
    asked, articles = [], dict[str, dict[str, None]]()
    for at, row in rows:
        title, context = field_of(row, "title", str, at), field_of(row, "context", str, at)
        articles.setdefault(title, {})[context] = None
        answers = field_of(field_of(row, "answers", dict, at), "text", list, at)
        if answers:
            asked.append((field_of(row, "question", str, at), tuple(answers), title, context))
    documents = sorted({context for contexts in articles.values() for context in contexts})
    index_of = {document: index for index, document in enumerate(documents)}
    indexes = {title: [index_of[one] for one in own] for title, own in articles.items()}
    questions = [
        Question(
            text,
            answers,
            (index_of[context],),
            tuple(index for index in indexes[title] if index != index_of[context]),
        )
        for text, answers, title, context in asked
    ]
    return QASet(tuple(documents), tuple(questions))


def _read_hotpotqa(rows: Rows) -> QASet:
    """RULER's read_hotpotqa: title and sentences of ten documents a question."""
    asked = []
    for at, row in rows:
        context = field_of(row, "context", dict, at)
        titles = field_of(context, "title", list, at)
        sentences = field_of(context, "sentences", list, at)
        pairs = zip(titles, sentences, strict=False)
        documents = [f"{title}\n{''.join(own)}" for title, own in pairs]
        if not documents:
            raise ValueError(f"{at}: field 'context' holds no document")
        text = field_of(row, "question", str, at)
        asked.append((text, field_of(row, "answer", str, at), documents))
    documents = sorted({document for *_, own in asked for document in own})
    index_of = {document: index for index, document in enumerate(documents)}
    questions = [
        Question(text, (answer,), tuple(dict.fromkeys(index_of[one] for one in own)))
        for text, answer, own in asked
    ]
    return QASet(tuple(documents), tuple(questions))


def _by_punkt(text: str) -> list[str]:
    missing = (
        'task.sentences=punkt: {} absent; run "pip install nltk && python -m nltk.downloader '
        'punkt_tab", or set task.sentences=rule'
    )
    if importlib.util.find_spec("nltk") is None:
        raise ValueError(missing.format("package nltk is"))
    from nltk import sent_tokenize

    try:
        return [str(sentence) for sentence in sent_tokenize(" ".join(text.split()))]
    except LookupError:
        raise ValueError(missing.format("nltk's punkt_tab is")) from None


_READERS: Mapping[str, Callable[[Rows], QASet]] = {
    "squad": _read_squad,
    "hotpotqa": _read_hotpotqa,
}
_OURS: Mapping[str, Callable[[], QASet]] = {
    "squad": offline_qa.towns_asked_once,
    "hotpotqa": offline_qa.towns_asked_twice,
}
