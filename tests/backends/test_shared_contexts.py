"""A context that is asked several questions: read once, then asked as if for the first time."""

from dataclasses import replace

import pytest
import torch

from backends.base import Request
from backends.stored_keys import stored_keys
from harness.settings import Settings
from tests.backends.engines import SLOTS, VOCAB, Engine, engine_over, pair_of, requests, tokens
from tests.laws.configs import settings_of
from tests.laws.groups import EVICTORS, RETRIEVING

CONTEXT, BUDGET, PLENTY = 150, 64, 400
# Off page edges and block edges, of unequal lengths.
QUESTIONS = (23, 9, 14)
SPARSE, DENSE = "question_sparse", "question_dense"
protocols = pytest.mark.parametrize("protocol", [SPARSE, DENSE])


def questions(protocol: str, name: str = "") -> list[Request]:
    """Requests on one context, each but the first following the one before it."""
    generator = torch.Generator().manual_seed(len(name) + 5)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (count,), generator=generator).tolist())

    context, chain = draw(CONTEXT), []
    for number, count in enumerate(QUESTIONS):
        prompt_ids = (*context, *draw(count))
        asked = replace(
            requests()[0],
            uid=f"{name}{number}",
            prompt_ids=prompt_ids,
            num_context=CONTEXT if protocol == SPARSE else len(prompt_ids),
            num_shared=CONTEXT,
            follows=chain[-1].uid if chain else None,
        )
        chain.append(asked)
    return chain


def alone(request: Request) -> Request:
    """The same request on a context of its own."""
    return replace(request, follows=None)


def settings_for(algo: str, **sizes) -> Settings:
    """Settings of an algorithm, or of an evictor and a retriever: snapkv+quest."""
    evictor, _, retriever = algo.partition("+")
    settings = settings_of(evictor, max_batch=SLOTS, **sizes)
    if retriever in ("", "none"):
        return settings
    retrieve = settings_of(retriever).algo.retrieve
    algo_settings = settings.algo.model_copy(update={"retrieve": retrieve})
    return settings.model_copy(update={"algo": algo_settings})


def engine_of(algo: str, budget: int | None = BUDGET, **sizes) -> Engine:
    return engine_over(pair_of("qwen3"), settings_for(algo, **sizes), budget)


def answers(algo: str, wanted: list[Request], budget: int | None = BUDGET) -> dict[str, list[int]]:
    """Answers of requests that run one at a time, or one after the other on one context."""
    engine, said = engine_of(algo, budget), {}
    for group in [wanted] if wanted[-1].follows else [[one] for one in wanted]:
        said |= tokens(engine.run(group))
    return said


@protocols
@pytest.mark.parametrize("algo", ["dense", *RETRIEVING])
def test_a_question_that_follows_is_answered_as_if_it_were_the_first(algo, protocol):
    chain = questions(protocol)
    fresh = answers(algo, [alone(one) for one in chain])
    assert answers(algo, chain) == fresh
    assert len({tuple(said) for said in fresh.values()}) > 1, "all questions have one answer"


@pytest.mark.parametrize("algo", ["quest", "magicpig", "retroinfer"])
def test_the_compiled_kernel_answers_a_question_that_follows_as_if_it_were_the_first(algo):
    said = []
    for chain in (questions(SPARSE), [alone(one) for one in questions(SPARSE)]):
        engine = engine_over(
            pair_of("qwen3"), settings_of(algo, max_batch=1), BUDGET, kernel="cpu-cpp"
        )
        said.append(tokens(engine.run(chain)))
    assert said[0] == said[1]


@protocols
@pytest.mark.parametrize("algo", ["quest", "oracle_topk", "sparq"])
def test_a_full_budget_answers_every_question_as_dense_attention_does(algo, protocol):
    assert answers(algo, questions(protocol), PLENTY) == answers("dense", questions(protocol))


@protocols
def test_a_shared_context_is_prefilled_once(protocol):
    engine = engine_of("quest")
    engine.run(questions(protocol))
    counters = engine.backend.counters
    in_question = sum(QUESTIONS) * (protocol == SPARSE)
    assert counters.question.rows == in_question
    assert counters.prefill.rows == CONTEXT + sum(QUESTIONS) - in_question


@pytest.mark.parametrize("retriever", ["none", "quest", "sparq", "magicpig", "twilight"])
@pytest.mark.parametrize("evictor", ["snapkv", "adakv", "pyramidkv"])
def test_an_evictor_that_saw_the_context_alone_answers_each_question_as_the_first(
    evictor, retriever
):
    chain = questions(SPARSE)
    composed = f"{evictor}+{retriever}"
    assert answers(composed, chain) == answers(composed, [alone(one) for one in chain])


@pytest.mark.parametrize("evictor", EVICTORS)
@protocols
def test_what_an_evictor_dropped_is_not_there_for_later_questions(evictor, protocol):
    chain, engine = questions(protocol), engine_of(evictor)
    events = {one.uid: [] for one in chain}
    engine.logits = {one.uid: [] for one in chain}
    engine.backend.submit(chain)
    keys = []
    for request in chain:
        while engine.backend.scheduler.running[:1] == [] or running(engine) != request.uid:
            keys_before = kept_keys(engine) if engine.backend.scheduler.running else None
            engine.step(events)
        if request.follows is not None:
            keys.append((keys_before, kept_keys(engine)))
    assert len(keys) == len(QUESTIONS) - 1
    for before, after in keys:
        assert all(held < CONTEXT for held in map(len, after))
        assert all(now <= then for now, then in zip(after, before, strict=True))
    while engine.backend.busy:
        engine.step(events)
    if protocol == DENSE and evictor == "snapkv":
        fresh = answers(evictor, [alone(one) for one in chain])
        assert tokens(events)["0"] == fresh["0"]
        assert tokens(events) != fresh, "nothing that a later question needs was dropped"


def running(engine: Engine) -> str:
    """The request that runs."""
    (one,) = engine.backend.scheduler.running
    return one.request.uid


def kept_keys(engine: Engine) -> list[set[tuple[float, ...]]]:
    """Keys that each row still holds, by value."""
    memory = engine.backend.attention.memory
    table, eviction = memory.table, engine.backend.attention.eviction
    (one,) = engine.backend.scheduler.running
    rows_K = table.rows_of(torch.tensor([one.slot]))
    found = []
    for layer in range(memory.geometry.num_layers):
        used_K = eviction.slots.used_LR[layer, rows_K]
        stretch = stored_keys(memory, table.first_page(layer, rows_K), range(int(used_K.max())))
        for key_TD, held_T, used in zip(*stretch, used_K.tolist(), strict=True):
            found.append(set(map(tuple, key_TD[:used][held_T[:used]].tolist())))
    return found


@pytest.mark.parametrize("tier", ["hbm", "hbm+cpu"])
@pytest.mark.parametrize("algo", ["dense", "quest", "snapkv", "h2o", "snapkv+quest"])
def test_a_shared_context_is_blind_to_its_batch_mates_and_leaves_nothing_behind(algo, tier):
    groups = [questions(SPARSE, name) for name in ("a", "bb", "ccc", "dddd")]
    engine = engine_of(algo, tier=tier)
    memory = engine.backend.attention.memory
    together = tokens(engine.run([one for group in groups for one in group]))
    assert engine.backend.counters.decode.rows > engine.backend.counters.decode.steps
    for group in groups:
        assert {one.uid: together[one.uid] for one in group} == answers(algo, group)
    assert memory.tiers[-1].num_free == memory.tiers[-1].num_frames
    if memory.table.dead_P is not None:
        assert not memory.table.dead_P.any()


@pytest.mark.parametrize("algo", ["quest", "infllm", "sparq", "shadowkv", "twilight"])
def test_summaries_of_a_context_that_is_asked_again_are_those_of_one_that_was_not(algo):
    chain = questions(SPARSE)[:2]
    asked, fresh = engine_of(algo), engine_of(algo)
    events = {one.uid: [] for one in chain}
    asked.logits = {one.uid: [] for one in chain}
    asked.backend.submit(chain)
    while not asked.backend.scheduler.running or running(asked) != chain[1].uid:
        asked.step(events)
    fresh.backend.submit([alone(chain[0])])
    while not (now := fresh.backend.scheduler.running) or now[0].stored < CONTEXT:
        fresh.backend.step()
    for one, other in zip(summaries_of(asked), summaries_of(fresh), strict=True):
        assert torch.equal(one, other)


def summaries_of(engine: Engine) -> list[torch.Tensor]:
    """What a retriever keeps of the context: partitions, the last queries, and sums of values."""
    index, table = engine.backend.attention.index, engine.backend.attention.memory.table
    (one,) = engine.backend.scheduler.running
    waits, size = index.retrieve.waits, index.retrieve.partition_size
    count = -(-CONTEXT // size) if waits is None else (CONTEXT - waits) // size
    found = []
    for layer in range(engine.backend.attention.memory.geometry.num_layers):
        rows_K = table.rows_of(torch.tensor([one.slot])) + layer * table.num_rows
        found += index.store.read(rows_K, count).values()
        if index.retrieve.needs_queries:
            found.append(index._summariser._queries.of(rows_K))
        if index.retrieve.needs_value_mean:
            found.append(index._values._sum_RD[rows_K])
    return found


def test_memory_is_promised_for_the_longest_question_of_a_context():
    chain = questions(SPARSE)
    longest = replace(chain[1], max_new_tokens=90)
    engine = engine_of("dense")
    scheduler = engine.backend.scheduler
    engine.backend.submit([chain[0], longest])
    scheduler.prepare()
    assert scheduler._promised_pages == {0: scheduler._pages_for(longest)}


@pytest.mark.parametrize("partition", ["packed", "padded"])
def test_clusters_of_a_shared_context_stay_wherever_they_lie(partition):
    chain = questions(SPARSE)
    fresh = [alone(one) for one in chain]
    said = []
    for wanted in (chain, fresh):
        engine = engine_over(
            pair_of("qwen3"), settings_of("retroinfer", partition, max_batch=1), BUDGET
        )
        said.append(tokens(engine.run(wanted)))
        assert engine.backend.counters.question.slots_placed > 0
    assert said[0] == said[1]
