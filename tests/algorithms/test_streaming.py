"""StreamingLLM keeps exactly its sinks and its window."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_algos.evict.streaming import Streaming
from sparse_algos.evictor import Held

NUM_SLOTS = 64
examples = settings(max_examples=100)


def kept(streaming: Streaming, lengths: list[int], coming: int) -> torch.Tensor:
    live_RT = torch.arange(NUM_SLOTS) < torch.tensor(lengths).unsqueeze(1)
    room_R = torch.full((len(lengths),), streaming.most_tokens(NUM_SLOTS) - coming)
    return streaming.keep(
        Held(live_RT=live_RT, scores_RT=None, room_R=room_R, coming=coming, num_heads=1)
    )


@examples
@given(
    lengths=st.lists(st.integers(0, NUM_SLOTS), min_size=1, max_size=4),
    budget=st.integers(6, 80),
    sinks=st.integers(0, 4),
    share=st.floats(0, 1),
)
def test_it_keeps_sinks_and_window_and_nothing_else(lengths, budget, sinks, share):
    streaming = Streaming(budget_tokens=budget, sinks=sinks)
    coming = max(1, round(share * streaming.most_rows(NUM_SLOTS)))
    kept_RT = kept(streaming, lengths, coming)
    for length, kept_T in zip(lengths, kept_RT, strict=True):
        window = budget - sinks - coming
        expected = {*range(min(sinks, length)), *range(max(0, length - window), length)}
        assert set(kept_T.nonzero().squeeze(1).tolist()) == expected
        assert len(expected) + coming <= budget


@pytest.mark.parametrize("budget", [6, 7, 64, 256])
def test_a_step_never_pushes_out_its_whole_window(budget):
    streaming = Streaming(budget_tokens=budget, sinks=4)
    kept_1T = kept(streaming, [60], streaming.most_rows(60))
    assert kept_1T[0, 4:60].any()


def test_a_budget_that_holds_everything_drops_nothing():
    assert kept(Streaming(budget_tokens=128, sinks=4), [64], 60).all()
