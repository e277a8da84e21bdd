"""Samples that hide `key: value` needles in noise and ask for some of them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from models.training.dialect import Dialect, KeyKind, NoiseKind, ValueKind, weighted
from models.training.ingredients import (
    SPACED,
    draw_keys,
    draw_noise,
    draw_opener,
    draw_value,
    opening,
    preface_ids,
)
from models.training.prompts import PREFACE_MANY, PREFACE_ONE
from models.training.questions import answered, ask_many, ask_one
from models.training.sample import Language, Mark, Sample, Segment, Source
from models.training.tokenizer import BOS

LIST_TASKS = frozenset({"multiquery", "multivalue"})


@dataclass(frozen=True, kw_only=True)
class NeedleRequest:
    """What one sample shall be; None is drawn from the dialect."""

    task: str
    num_tokens: int
    num_questions: int
    num_needles: int | None = None
    keys: KeyKind | None = None
    values: ValueKind | None = None
    noise: NoiseKind | None = None


@dataclass(frozen=True, kw_only=True)
class NeedlePlan:
    """Kinds and counts of one sample, made to fit its length."""

    task: str
    keys: KeyKind
    values: ValueKind
    noise: NoiseKind
    opener: str
    num_questions: int
    num_keys: int
    num_asked: int
    num_values: int
    num_context_tokens: int


def needle_sample(source: Source, request: NeedleRequest, rng: random.Random) -> Sample:
    """A sample of about `request.num_tokens` tokens."""
    language = source.language
    plan = plan_needles(source, request, rng)
    keys = draw_keys(language, plan.keys, plan.num_keys, rng)
    values = {
        key: [
            draw_value(language, plan.values, source.dialect.pool_word_share, rng)
            for _ in range(plan.num_values)
        ]
        for key in keys
    }
    asked = _draw_asked(plan, keys, source.dialect, rng)
    needles = _needles(language, plan, values, asked, rng)
    preface = (PREFACE_MANY if plan.task in LIST_TASKS else PREFACE_ONE).format(t=plan.values)
    return Sample(
        [
            Segment(ids=(BOS,)),
            Segment(ids=preface_ids(language, preface, plan.opener)),
            *scatter(language, plan.noise, needles, plan.num_context_tokens, rng, plan.opener),
            *(_question(source, plan, group, values, rng) for group in asked),
        ]
    )


def scatter(
    language: Language,
    noise: NoiseKind,
    items: Sequence[Segment],
    num_tokens: int,
    rng: random.Random,
    opener: str = SPACED,
) -> list[Segment]:
    """The items in their order, with noise between them up to `num_tokens` tokens in all."""
    num_left = num_tokens - sum(len(item.ids) for item in items)
    noises: list[Segment] = []
    while len(ids := draw_noise(language, noise, rng, opener)) <= num_left:
        noises.append(Segment(ids=ids, mark=Mark.NOISE))
        num_left -= len(ids)
    num_places = len(noises) + len(items)
    places = set(rng.sample(range(num_places), len(items)))
    items_left, noises_left = iter(items), iter(noises)
    return [next(items_left if place in places else noises_left) for place in range(num_places)]


def plan_needles(source: Source, request: NeedleRequest, rng: random.Random) -> NeedlePlan:
    """Draw the kinds, then the largest counts that leave room for the questions."""
    kinds = _draw_kinds(source.dialect, request, rng)
    room = _Room.of(kinds)
    num_asked, num_values = kinds.num_asked, kinds.num_values
    if request.task in LIST_TASKS:
        num_asked = room.fit_asked(num_asked, request.num_tokens)
        num_values = room.fit_values(num_values, request.num_tokens)
    num_question_tokens = room.question(request.task, num_asked, num_values)
    budget = request.num_tokens - 28 - num_question_tokens * request.num_questions
    num_fitting = max(1, budget // room.needle)
    num_values = min(num_values, num_fitting) if request.task == "multivalue" else 1
    num_keys = min(_wanted_keys(request, num_fitting), num_fitting)
    if kinds.keys == KeyKind.POOL:
        num_keys = min(num_keys, len(source.language.pools.keys))
    if request.task == "multivalue":
        num_keys = min(num_keys, max(1, budget // (room.needle * num_values)))
    return NeedlePlan(
        task=request.task,
        keys=kinds.keys,
        values=kinds.values,
        noise=kinds.noise,
        opener=draw_opener(source.dialect, rng),
        num_questions=request.num_questions,
        num_keys=num_keys,
        num_asked=num_asked,
        num_values=num_values,
        num_context_tokens=budget,
    )


@dataclass(frozen=True, kw_only=True)
class _Kinds:
    """What was drawn or asked for, before it is made to fit."""

    noise: NoiseKind
    values: ValueKind
    keys: KeyKind
    num_asked: int
    num_values: int


def _draw_kinds(dialect: Dialect, request: NeedleRequest, rng: random.Random) -> _Kinds:
    noise = request.noise or weighted(dialect.noises, rng)
    drawn_values = _draw_value_kind(dialect, rng)
    values = request.values or drawn_values
    keys = request.keys or weighted(dialect.keys, rng)
    num_asked = _list_length(dialect, rng) if request.task == "multiquery" else 4
    num_values = _list_length(dialect, rng) if request.task == "multivalue" else 4
    if request.task in LIST_TASKS:
        # Short samples have room for four needles only with one-token keys and plain values.
        if request.keys is None and request.num_tokens < 300 and rng.random() < 0.7:
            keys = KeyKind.POOL
        if values == ValueKind.UUID and request.num_tokens < 400:
            values = ValueKind.NUMBER
    return _Kinds(noise=noise, values=values, keys=keys, num_asked=num_asked, num_values=num_values)


@dataclass(frozen=True)
class _Room:
    """Tokens that one key, one value and one needle take, estimated from their kinds."""

    key: int
    value: int

    @classmethod
    def of(cls, kinds: _Kinds) -> Self:
        key_sizes = {KeyKind.POOL: 2, KeyKind.ENGLISH: 3}
        return cls(key_sizes.get(kinds.keys, 8), 14 if kinds.values == ValueKind.UUID else 5)

    @property
    def needle(self) -> int:
        return 8 + self.key + self.value

    def question(self, task: str, num_asked: int, num_values: int) -> int:
        if task == "multiquery":
            return 20 + num_asked * (3 * self.key + self.value + 4)
        if task == "multivalue":
            return 20 + 2 * self.key + num_values * (self.value + 1)
        return 18 + 2 * self.key + self.value

    def fit_asked(self, num_asked: int, num_tokens: int) -> int:
        per_key = 3 * self.key + self.value + 4 + self.needle
        while num_asked > 2 and 48 + num_asked * per_key > num_tokens:
            num_asked -= 1
        return num_asked

    def fit_values(self, num_values: int, num_tokens: int) -> int:
        per_value = self.value + 1 + self.needle
        while num_values > 2 and 48 + 2 * self.key + num_values * per_value > num_tokens:
            num_values -= 1
        return num_values


def _draw_value_kind(dialect: Dialect, rng: random.Random) -> ValueKind:
    share = rng.random()
    if share < dialect.uuid_share:
        return ValueKind.UUID
    if share < dialect.uuid_share + dialect.word_share:
        return ValueKind.WORD
    return ValueKind.NUMBER


def _list_length(dialect: Dialect, rng: random.Random) -> int:
    if dialect.full_lists and rng.random() >= 0.2:
        return 4
    return rng.randint(2, 4)


def _wanted_keys(request: NeedleRequest, num_fitting: int) -> int:
    if request.task == "needlehay":
        return num_fitting
    return request.num_needles or (1 if request.task == "multivalue" else 4)


def _draw_asked(
    plan: NeedlePlan, keys: list[str], dialect: Dialect, rng: random.Random
) -> list[list[str]]:
    """The keys of each question."""
    if plan.task == "multiquery":
        num_asked = min(len(keys), plan.num_asked)
        num_questions = 1 if dialect.asks_once else plan.num_questions
        return [rng.sample(keys, num_asked) for _ in range(num_questions)]
    if dialect.asks_once:
        return [[key] for key in rng.sample(keys, min(len(keys), plan.num_questions))]
    return [[rng.choice(keys)] for _ in range(plan.num_questions)]


def _needles(
    language: Language,
    plan: NeedlePlan,
    values: Mapping[str, list[str]],
    asked: list[list[str]],
    rng: random.Random,
) -> list[Segment]:
    queried = {key for group in asked for key in group}
    order = [key for key in values for _ in values[key]]
    rng.shuffle(order)
    values_left = {key: iter(values[key]) for key in values}
    return [
        Segment(
            ids=language.encode_all(
                *opening(plan.opener, f"One of the special magic {plan.values}s for"),
                " " + key,
                " is:",
                " " + next(values_left[key]),
                ".",
            ),
            mark=Mark.PLAIN if key in queried else Mark.DISTRACTOR,
        )
        for key in order
    ]


def _question(
    source: Source,
    plan: NeedlePlan,
    keys: list[str],
    values: Mapping[str, list[str]],
    rng: random.Random,
) -> Segment:
    language, dialect = source.language, source.dialect
    if plan.task == "multiquery":
        template = "{key}: {value}" if dialect.answers_name_keys else "{value}"
        answers = [template.format(key=key, value=values[key][0]) for key in keys]
        return answered(language, ask_many(language, plan.values, keys), answers)
    if plan.task == "multivalue":
        answers = list(values[keys[0]])
        if dialect.any_order:
            rng.shuffle(answers)
        prompt = ask_many(language, plan.values, keys)
        return answered(language, prompt, answers, any_order=dialect.any_order)
    return answered(language, ask_one(language, plan.values, keys[0]), values[keys[0]])
