"""Ordinary English for the tokenizer's merges, for keys and for prose filler."""

import collections
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TEXT_SUFFIXES = (".txt", ".md")
HTML_SUFFIXES = (".html", ".htm")
SKIPPED_PAGES = frozenset({"print.html", "toc.html", "404.html"})
MIN_SENTENCE_CHARS = 20
MAX_SENTENCE_CHARS = 240
MIN_WORD_COUNT = 2


@dataclass(frozen=True)
class Corpus:
    """Sentences in reading order, and the sorted lower-case words seen at least twice."""

    sentences: tuple[str, ...]
    words: tuple[str, ...]


def read_corpus(paths: Sequence[Path]) -> Corpus:
    """Sentences and words of plain-text or HTML files; a folder stands for all such files in it."""
    files = [file for path in paths for file in _files_of(path)]
    sentences = [
        sentence
        for file in files
        for paragraph in _paragraphs(file)
        for sentence in _sentences(paragraph)
    ]
    if not sentences:
        raise ValueError(
            f"no sentence of {MIN_SENTENCE_CHARS} to {MAX_SENTENCE_CHARS} characters in "
            f"{[str(path) for path in paths]}; give plain English text or HTML with --corpus"
        )
    counts = collections.Counter(
        word for sentence in sentences for word in re.findall(r"\b[a-z]{3,12}\b", sentence)
    )
    words = sorted(word for word, count in counts.items() if count >= MIN_WORD_COUNT)
    if not words:
        raise ValueError(f"no word occurs twice in {[str(path) for path in paths]}; give more text")
    return Corpus(tuple(sentences), tuple(words))


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            file
            for file in path.rglob("*")
            if file.suffix in TEXT_SUFFIXES + HTML_SUFFIXES and file.name not in SKIPPED_PAGES
        )
    if not path.is_file():
        raise ValueError(f"corpus {path} does not exist; give a file or folder with --corpus")
    return [path]


def _paragraphs(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8", errors="ignore")
    if file.suffix not in HTML_SUFFIXES:
        return re.split(r"\n\s*\n", text)
    main = re.search(r"<main>(.*?)</main>", text, re.DOTALL)
    body = re.sub(r"<pre>.*?</pre>", "", main.group(1) if main else text, flags=re.DOTALL)
    paragraphs = re.findall(r"<p>(.*?)</p>", body, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", paragraph)) for paragraph in paragraphs]


def _sentences(paragraph: str) -> list[str]:
    flat = re.sub(r"\s+", " ", paragraph).strip()
    return [
        sentence
        for sentence in re.split(r"(?<=[.!?]) ", flat)
        if MIN_SENTENCE_CHARS < len(sentence) < MAX_SENTENCE_CHARS
    ]
