"""What the memory system does to requests of a real engine: waiting, whole prompts, damage."""

import os

import pytest

from backends.scheduler import Running
from tests.backends.engines import (
    MAX_TOKENS,
    SLOTS,
    Engine,
    engine_over,
    pair_of,
    requests,
    tokens,
)
from tests.laws.configs import settings_of

BUDGET = 64


def with_backend(settings, **changes):
    backend = settings.backend.model_copy(update=changes)
    return settings.model_copy(update={"backend": backend})


def with_preemption(settings, preempt: bool):
    budget = settings.budget.model_copy(update={"preempt": preempt})
    return settings.model_copy(update={"budget": budget})


def plain_answers(algo: str) -> dict[str, list[int]]:
    engine = engine_over(pair_of("qwen3"), settings_of(algo, max_batch=SLOTS), budget_of(algo))
    return tokens(engine.run(longer()))


def budget_of(algo: str) -> int | None:
    return None if algo == "dense" else BUDGET


def longer():
    """Requests that decode for long enough to have working sets."""
    room = MAX_TOKENS - max(len(one.prompt_ids) for one in requests())
    return requests(max_new_tokens=min(30, room))


@pytest.mark.parametrize("algo", ["dense", "quest"])
def test_requests_that_wait_answer_alike_and_move_less(algo):
    moved, preempted = {}, {}
    for preempt in (True, False):
        settings = with_preemption(
            settings_of(algo, tier="hbm+cpu", max_batch=SLOTS, fast_bytes=130 * 2048), preempt
        )
        engine = engine_over(pair_of("qwen3"), settings, budget_of(algo))
        assert tokens(engine.run(longer())) == plain_answers(algo)
        moved[preempt] = engine.backend.counters.decode.bytes_moved["cpu->hbm"]
        preempted[preempt] = engine.backend.scheduler.num_preempted
    assert preempted[False] == 0
    if algo == "dense":
        assert preempted[True] > 0, "nobody waited: the law is empty"
        assert moved[True] < moved[False]


def test_a_whole_prompt_in_one_pass_brings_nothing_back_up():
    prompt = max(requests(), key=lambda one: len(one.prompt_ids))
    alone = [type(prompt)(**{**vars(prompt), "num_context": len(prompt.prompt_ids)})]
    seen = {}
    for prefill in ("chunked", "layer_segmented"):
        pages = 2 * -(-len(prompt.prompt_ids) // 16) + 2
        settings = settings_of("dense", tier="hbm+cpu", max_batch=1, fast_bytes=pages * 2048)
        settings = with_backend(settings, prefill=prefill)
        # Preflight counts with the longest request that there may be.
        engine = (
            engine_over(
                pair_of("qwen3"),
                settings_of("dense", tier="hbm+cpu", max_batch=1),
                fast_frames=pages,
            )
            if prefill == "chunked"
            else whole_prompt_engine(settings, pages)
        )
        seen[prefill] = tokens(engine.run(alone))
        count = engine.backend.counters.prefill
        geometry = engine.backend.attention.memory.geometry
        one_layer = pages * geometry.page_bytes
        assert engine.backend.peak_bytes()["hbm"] <= one_layer
        if prefill == "layer_segmented":
            assert count.bytes_moved["cpu->hbm"] == 0 < count.bytes_moved["hbm->cpu"]
        else:
            assert count.bytes_moved["cpu->hbm"] > 0, "the law is empty"
    assert seen["chunked"] == seen["layer_segmented"]


def whole_prompt_engine(settings, pages: int) -> Engine:
    roomy = settings.model_copy(
        update={"tier": settings_of("dense", tier="hbm+cpu", max_batch=1, fast_bytes=2**30).tier}
    )
    return engine_over(pair_of("qwen3"), roomy, fast_frames=pages)


def test_a_damaged_page_fails_its_request_and_no_other():
    settings = settings_of("dense", tier="hbm+cpu+disk", max_batch=SLOTS, fast_bytes=60 * 2048)
    settings = with_preemption(settings, False)
    engine = engine_over(pair_of("qwen3"), settings)
    wanted = longer()
    events = {one.uid: [] for one in wanted}
    engine.logits = {one.uid: [] for one in wanted}
    engine.backend.submit(wanted)
    while not (in_file := [one for one in engine.backend.scheduler.decoding if filed(engine, one)]):
        engine.step(events)
    victim = in_file[0]
    damage(engine, victim.slot)
    failed = {}
    while engine.backend.busy:
        for event in engine.backend.step():
            events[event.uid].append(event)
        failed |= engine.backend.take_failures()
    assert set(failed) == {victim.request.uid}
    assert "do not come back as they were written" in failed[victim.request.uid]
    said, expected = tokens(events), plain_answers("dense")
    for uid in set(expected) - set(failed):
        assert said[uid] == expected[uid], uid
    memory = engine.backend.attention.memory
    assert all(tier.num_free == tier.num_frames for tier in memory.tiers)


def filed(engine: Engine, running: Running) -> bool:
    """Whether some of a sequence is in the file alone."""
    memory = engine.backend.attention.memory
    pages_N = memory.table.pages_of_sequence(running.slot)
    above_N = (memory.levels[0].frames(pages_N) >= 0) | (memory.levels[1].frames(pages_N) >= 0)
    return bool(((memory.levels[2].frames(pages_N) >= 0) & ~above_N).any())


def damage(engine: Engine, slot: int) -> None:
    """Flip a bit in every page of a sequence that lies in the file."""
    memory = engine.backend.attention.memory
    disk = memory.levels[-1]
    frames_N = disk.frames(memory.table.pages_of_sequence(slot))
    frames_N = frames_N[frames_N >= 0]
    size = disk.tier.frame_bytes
    for frame in frames_N.tolist():
        old = os.pread(disk.tier._file.fd, 1, frame * size)
        os.pwrite(disk.tier._file.fd, bytes([old[0] ^ 1]), frame * size)
