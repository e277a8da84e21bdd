"""The random parts of a sample: keys, values and noise sentences."""

import random
import string
from collections.abc import Callable

from models.training.dialect import Dialect, KeyKind, NameKind, NoiseKind, ValueKind, happens
from models.training.prompts import NOISE_SENTENCES
from models.training.sample import Ids, Language
from models.training.tokenizer import HEX_DIGITS, NUM_ORDINARY
from models.training.wordpools import pseudo_word

UUID_GROUPS = (8, 4, 4, 4, 12)
SPACED, ON_LINES = " ", "\n"


def draw_keys(language: Language, kind: KeyKind, num_keys: int, rng: random.Random) -> list[str]:
    """`num_keys` different keys of one kind."""
    draw = _key_drawer(language, kind, num_keys, rng)
    keys: dict[str, None] = {}
    num_tries = 0
    while len(keys) < num_keys:
        num_tries += 1
        # A small word list runs out of single words and of shared halves: then longer keys follow.
        exhausted = num_tries >= 3 * num_keys + 20
        keys[draw(exhausted)] = None
    return list(keys)


def draw_number(rng: random.Random, num_digits: int = 7) -> str:
    """A decimal number without leading zero."""
    return str(rng.randint(10 ** (num_digits - 1), 10**num_digits - 1))


def draw_hex(rng: random.Random, *, full: bool) -> str:
    """A uuid, or one to three shorter groups of hex digits."""
    groups = (
        UUID_GROUPS if full else [rng.choice([4, 6, 8]) for _ in range(rng.choice([1, 2, 2, 3]))]
    )
    return "-".join("".join(rng.choice(HEX_DIGITS) for _ in range(size)) for size in groups)


def draw_value(
    language: Language, kind: ValueKind, pool_word_share: float, rng: random.Random
) -> str:
    """One value; a word comes from the key pool or from the corpus."""
    if kind == ValueKind.NUMBER:
        return draw_number(rng)
    if kind == ValueKind.UUID:
        return draw_hex(rng, full=rng.random() < 0.4)
    from_pool = rng.random() < pool_word_share
    return rng.choice(language.pools.keys if from_pool else language.corpus.words)


def draw_name(language: Language, kind: NameKind, rng: random.Random, num_letters: int = 5) -> str:
    """A variable of a chain; the pool's all have five letters."""
    if kind == NameKind.POOL:
        return rng.choice(language.pools.variables)
    return "".join(rng.choices(string.ascii_uppercase, k=num_letters))


def draw_noise(
    language: Language, kind: NoiseKind, rng: random.Random, opener: str = SPACED
) -> Ids:
    """Token ids of one noise sentence behind its opener; a whole round of them for the cycle."""
    match kind:
        case NoiseKind.CYCLE:
            first, *others = NOISE_SENTENCES
            opened = language.encode_all(*opening(opener, first))
            return (*opened, *language.encode_all(*(" " + sentence for sentence in others)))
        case NoiseKind.SHUFFLED:
            return language.encode_all(*opening(opener, rng.choice(NOISE_SENTENCES)))
        case NoiseKind.PROSE:
            return language.encode_all(*opening(opener, rng.choice(language.corpus.sentences)))
        case NoiseKind.JUMBLE:
            return _jumble(language, rng)
        case NoiseKind.FILLER:
            return _filler(language, rng)


def draw_opener(dialect: Dialect, rng: random.Random) -> str:
    """What stands before each unit of a context."""
    return ON_LINES if happens(dialect.line_share, rng) else SPACED


def preface_ids(language: Language, text: str, opener: str) -> Ids:
    """A preface, whose last line break is that of the first unit where units stand on lines."""
    return language.encode(text.removesuffix("\n") if opener == ON_LINES else text)


def opening(opener: str, text: str) -> tuple[str, ...]:
    """A text behind a space, which its first word takes in, or behind a line break."""
    return (opener + text,) if opener == SPACED else (opener, text)


def _jumble(language: Language, rng: random.Random) -> Ids:
    ids: list[int] = []
    for _ in range(rng.randint(4, 14)):
        if rng.random() < 0.8:
            ids += language.encode(" " + rng.choice(language.corpus.words))
        else:
            ids.append(rng.randint(NUM_ORDINARY, language.num_tokens - 1))
    return (*ids, *language.encode("."))


def _filler(language: Language, rng: random.Random) -> Ids:
    pools = language.pools
    words = [
        rng.choice(pools.fillers if rng.random() < 0.9 else pools.keys)
        for _ in range(rng.randint(4, 14))
    ]
    return language.encode_all(*(" " + word for word in words), ".")


def _key_drawer(
    language: Language, kind: KeyKind, num_keys: int, rng: random.Random
) -> Callable[[bool], str]:
    """A function of "exhausted" that draws one key."""
    words = language.corpus.words
    match kind:
        case KeyKind.POOL:
            return lambda _: rng.choice(language.pools.keys)
        case KeyKind.ENGLISH_PAIR:
            return lambda _: _english_pair(language, rng)
        case KeyKind.ENGLISH:
            return lambda exhausted: (
                pseudo_word(rng) + pseudo_word(rng) if exhausted else rng.choice(words)
            )
        case KeyKind.PSEUDO_PAIR:
            return lambda _: _pseudo_pair(language, rng)
        case KeyKind.SHARED_PARTS:
            return _shared_parts(language, max(2, num_keys // 2), rng)


def _shared_parts(language: Language, num_parts: int, rng: random.Random) -> Callable[[bool], str]:
    words = language.corpus.words
    firsts = [rng.choice(words) for _ in range(num_parts)]
    seconds = [
        rng.choice(words) if rng.random() < 0.7 else pseudo_word(rng) for _ in range(num_parts)
    ]

    def draw(exhausted: bool) -> str:
        if exhausted:
            return _english_pair(language, rng)
        return rng.choice(firsts) + "-" + rng.choice(seconds)

    return draw


def _english_pair(language: Language, rng: random.Random) -> str:
    return rng.choice(language.corpus.words) + "-" + rng.choice(language.corpus.words)


def _pseudo_pair(language: Language, rng: random.Random) -> str:
    if rng.random() < 0.7:
        return pseudo_word(rng) + "-" + pseudo_word(rng)
    return pseudo_word(rng) + rng.choice(language.corpus.words)
