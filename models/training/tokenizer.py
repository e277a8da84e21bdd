"""Three tokenizers: whole words, byte-level BPE grown around them, and capitals cut in pairs.

The byte tokenizer keeps every word of the word tokenizer as one token under its old id
(`ignore_merges`, as Llama 3 does) and spells anything else with merges, down to the 256 bytes.
The last cuts every run of capitals in pairs, so that RULER's variables, five random capitals, are
three tokens each; its pairs take the ids of the variables that were one token before.
"""

import itertools
import json
import random
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from models.training.prompts import ALL_PROMPTS, NOISE_SENTENCES
from models.training.text import Corpus
from models.training.wordpools import WordPools

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
NUM_ORDINARY = len(SPECIAL_TOKENS)
SPACE = "\u0120"
NEWLINE = "\u010a"
HEX_DIGITS = "0123456789abcdef"

WORD_PATTERN = r" ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]|\s"
# A run of hex digits that holds a decimal digit splits in pairs: a uuid is then 20 tokens.
HEX_TAIL = r"(?=(?:[0-9a-f]{2})*(?![0-9A-Za-z]))"
HEX_PATTERN = rf" ?(?=[0-9a-f]*[0-9])[0-9a-f]{{2}}{HEX_TAIL}|(?<=[0-9a-f\-])[0-9a-f]{{2}}{HEX_TAIL}"
# A run of capitals, but for the word VAR, splits in pairs: a name of five is then three tokens.
CAPITALS_PATTERN = (
    r" ?VAR(?![A-Za-z])| ?[A-Z]{2}(?=[A-Z]*(?![A-Za-z]))|(?<=[A-Z]{2})[A-Z](?![A-Za-z])"
)
# Words that stand behind a line break in RULER's noise: one token without a space, too.
LINE_OPENERS = ("VAR", "One", "The")


def word_tokenizer(pools: WordPools) -> Tokenizer:
    """One token per word of the prompts and pools, digits in pairs; any other word is <unk>."""
    splitter = _pre_tokenizer(WORD_PATTERN)
    pieces = [
        *SPECIAL_TOKENS,
        *_prompt_pieces(splitter),
        *_interleaved(str(digit) for digit in range(10)),
        *_interleaved(f"{pair:02d}" for pair in range(100)),
        *(SPACE + word for word in pools.keys + pools.fillers + pools.variables + pools.codes),
        *(SPACE, ".", NEWLINE),
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return _finished(models.WordLevel(vocabulary, unk_token="<unk>"), splitter)


def byte_tokenizer(
    known: Mapping[str, int],
    corpus: Corpus,
    *,
    num_merges: int = 1700,
    num_pairs: int = 60_000,
    seed: int = 0,
) -> Tokenizer:
    """Byte-level BPE that keeps the ids of `known`; `num_pairs` joined words teach it keys."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    splitter = _pre_tokenizer(f"{HEX_PATTERN}|{WORD_PATTERN}")
    trained = _train_merges(
        corpus, splitter, alphabet, num_merges, _key_pairs(corpus, num_pairs, seed)
    )
    hex_pairs = (high + low for high in HEX_DIGITS for low in HEX_DIGITS)
    pieces = [
        *sorted(known, key=known.__getitem__),
        *alphabet,
        *sorted(trained["vocab"], key=trained["vocab"].__getitem__),
        *(piece for pair in hex_pairs for piece in (pair, SPACE + pair)),
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(merge) for merge in trained["merges"]]
    return _finished(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True), splitter)


def capitals_tokenizer(tokenizer: Tokenizer, pools: WordPools) -> Tokenizer:
    """A byte tokenizer whose variables give their ids to spaced pairs of capitals.

    Pairs that are left over are appended, the spaced ones first; then what opens a line.
    """
    spec = json.loads(tokenizer.to_str())["model"]
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_uppercase, repeat=2)]
    freed = [SPACE + name for name in pools.variables]
    known = set(spec["vocab"]) - set(freed)
    every = (*(SPACE + pair for pair in pairs), *pairs, *LINE_OPENERS)
    wanted = [piece for piece in every if piece not in known]
    renamed = dict(zip(freed, wanted, strict=False))
    ordered = sorted(spec["vocab"], key=spec["vocab"].__getitem__)
    pieces = [*(renamed.get(piece, piece) for piece in ordered), *wanted[len(freed) :]]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in spec["merges"]]
    splitter = _pre_tokenizer(f"{CAPITALS_PATTERN}|{HEX_PATTERN}|{WORD_PATTERN}")
    return _finished(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True), splitter)


def _pre_tokenizer(pattern: str) -> pre_tokenizers.Sequence:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _finished(model: models.Model, splitter: pre_tokenizers.Sequence) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def _prompt_pieces(splitter: pre_tokenizers.Sequence) -> list[str]:
    kinds = ("word", "number")
    blank = {"q": "", "k": "", "v": "", "n": "5"}
    loose = "VAR = ,. words numbers word number and 1 ."
    everything = (
        " ".join(NOISE_SENTENCES)
        + " "
        + " ".join([*ALL_PROMPTS, loose])
        + "".join(NOISE_SENTENCES)
        + " ".join(prompt.format(t=kind, **blank) for prompt in ALL_PROMPTS for kind in kinds)
        + " , and"
    )
    texts = [
        prompt.format(t=kind, **blank) for prompt in (*ALL_PROMPTS, everything) for kind in kinds
    ]
    return [piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)]


def _interleaved(digits: Iterable[str]) -> list[str]:
    return [piece for digit in digits for piece in (digit, SPACE + digit)]


def _key_pairs(corpus: Corpus, num_pairs: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f" {rng.choice(corpus.words)}-{rng.choice(corpus.words)}" for _ in range(num_pairs)]


def _train_merges(
    corpus: Corpus,
    splitter: pre_tokenizers.Sequence,
    alphabet: list[str],
    num_merges: int,
    pairs: list[str],
) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + num_merges, initial_alphabet=alphabet, show_progress=False
    )
    letters = [re.sub(r"[^A-Za-z ,.\-]", "", sentence) for sentence in corpus.sentences]
    tokenizer.train_from_iterator(letters + pairs, trainer)
    trained: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return trained
