"""All sample generators by name: a task is "multikey", or "multikey/english" with a key kind."""

import random

from models.training.chains import variable_tracking
from models.training.dialect import Dialect, KeyKind, NoiseKind, ValueKind
from models.training.ingredients import draw_hex, draw_keys, draw_noise, draw_number
from models.training.needles import NeedleRequest, needle_sample
from models.training.sample import Ids, Language, Mark, Sample, Segment, Source
from models.training.tokenizer import BOS, NUM_ORDINARY

NEEDLE_TASKS = frozenset({"multikey", "needlehay", "multiquery", "multivalue"})
TASKS = NEEDLE_TASKS | {"vt", "repeat", "copy"}


def draw_sample(source: Source, task: str, num_tokens: int, rng: random.Random) -> Sample:
    """One sample of about `num_tokens` tokens."""
    name, _, keys = task.partition("/")
    if name in NEEDLE_TASKS:
        request = _needle_request(
            source.dialect, name, num_tokens, KeyKind(keys) if keys else None, rng
        )
        return needle_sample(source, request, rng)
    match name:
        case "vt":
            return variable_tracking(source, num_tokens, rng)
        case "repeat":
            return repeated_needles(source, num_tokens, rng)
        case "copy":
            return repeated_runs(source.language, num_tokens, rng)
        case _:
            raise ValueError(f"task {task!r} is unknown; take one of {sorted(TASKS)}")


def repeated_needles(source: Source, num_tokens: int, rng: random.Random) -> Sample:
    """A stream of needles whose keys come back; the value of every return carries loss."""
    language, dialect = source.language, source.dialect
    kinds = [ValueKind.NUMBER, ValueKind.NUMBER, ValueKind.WORD]
    kind = rng.choice([*kinds, ValueKind.UUID] if dialect.uuid_share else kinds)
    num_keys = rng.randint(2, 8)
    keys = draw_keys(language, rng.choice(list(dialect.keys)), num_keys, rng)
    values = {key: _repeated_value(language, kind, rng) for key in keys}
    segments = [Segment(ids=(BOS,))]
    num_left = num_tokens - 1
    seen: set[str] = set()
    while num_left > 16:
        key = rng.choice(keys)
        as_needle = rng.random() < 0.5 or key not in seen
        prompt = _repeat_prompt(language, kind, key, as_needle=as_needle)
        answer = language.encode_all(" " + values[key], ".")
        if len(prompt) + len(answer) > num_left:
            break
        num_answer = len(answer) if key in seen else 0
        segments.append(Segment(ids=prompt + answer, num_answer=num_answer))
        seen.add(key)
        if rng.random() < 0.15:
            noise = draw_noise(language, NoiseKind.SHUFFLED, rng)
            segments.append(Segment(ids=noise, mark=Mark.NOISE))
            num_left -= len(noise)
        num_left -= len(prompt) + len(answer)
    return Sample(segments)


def repeated_runs(language: Language, num_tokens: int, rng: random.Random) -> Sample:
    """Runs of random tokens that come back; all but the first token of a return carry loss."""
    runs: list[Ids] = [
        tuple(rng.randint(NUM_ORDINARY, language.num_tokens - 1) for _ in range(rng.randint(4, 8)))
        for _ in range(rng.randint(2, 5))
    ]
    segments = [Segment(ids=(BOS,)), *(Segment(ids=run) for run in runs)]
    num_left = num_tokens - 1 - sum(map(len, runs))
    while len(run := rng.choice(runs)) <= num_left:
        segments.append(Segment(ids=run, num_answer=len(run) - 1))
        num_left -= len(run)
    return Sample(segments)


def _needle_request(
    dialect: Dialect, task: str, num_tokens: int, keys: KeyKind | None, rng: random.Random
) -> NeedleRequest:
    num_questions = max(1, min(8, num_tokens // 100))
    num_needles: int | None = None
    if task == "multikey":
        num_questions = max(2, num_questions)
        num_needles = rng.randint(2, max(2, num_tokens // 32))
    if task == "multiquery":
        num_questions = max(1, min(4, num_tokens // (260 if dialect.full_lists else 150)))
        num_needles = (
            rng.choice([4, 4, rng.randint(4, max(4, num_tokens // 60))])
            if dialect.full_lists
            else rng.randint(2, max(3, num_tokens // 60))
        )
    if task == "multivalue":
        num_questions = max(1, min(4, num_tokens // (190 if dialect.full_lists else 128)))
        num_needles = rng.randint(1, max(1, num_tokens // 100))
        num_needles = rng.choice([1, num_needles]) if dialect.full_lists else num_needles
    return NeedleRequest(
        task=task,
        num_tokens=num_tokens,
        num_questions=num_questions,
        num_needles=num_needles,
        keys=keys,
    )


def _repeated_value(language: Language, kind: ValueKind, rng: random.Random) -> str:
    if kind == ValueKind.NUMBER:
        return draw_number(rng)
    if kind == ValueKind.UUID:
        return draw_hex(rng, full=False)
    return rng.choice(language.pools.keys)


def _repeat_prompt(language: Language, kind: ValueKind, key: str, *, as_needle: bool) -> Ids:
    if as_needle:
        return language.encode_all(f" One of the special magic {kind}s for", " " + key, " is:")
    return language.encode_all(
        f" The special magic {kind} for", " " + key, " mentioned in the provided text is"
    )
