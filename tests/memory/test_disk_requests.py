"""How a batch of pages becomes requests, and what a checksum tells."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers.tiers.disk_requests import REQUEST_BYTES, batch_of, checksums


def test_a_checksum_tells_every_flipped_bit_and_swapped_words():
    page_B = torch.randint(0, 256, (128,), dtype=torch.uint8)
    bits = torch.arange(8 * 128)
    damaged_NB = page_B.repeat(len(bits), 1)
    damaged_NB[bits, bits // 8] ^= (1 << bits % 8).to(torch.uint8)
    swapped_NB = page_B.view(16, 8).roll(1, 0).view(1, 128)
    both_signs_B = page_B.clone()
    both_signs_B[[7, 15]] ^= 128
    everything = torch.cat((page_B[None], damaged_NB, swapped_NB, both_signs_B[None]))
    assert len(checksums(everything).unique()) == len(everything)


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 300), max_size=150, unique=True),
    st.sampled_from([4, 4096, REQUEST_BYTES // 2, 2 * REQUEST_BYTES]),
)
def test_requests_are_runs_of_frames_and_cover_the_batch(frames, page_bytes):
    frames_N = torch.tensor(frames, dtype=torch.int64)
    batch = batch_of(frames_N, frames_N * 2, page_bytes)
    assert batch.frames_N.tolist() == sorted(frames)
    assert torch.equal(batch.places_N, batch.frames_N * 2)
    bounds = batch.bounds_Q1.tolist()
    assert bounds[-1] == len(frames) and (not frames or bounds[0] == 0)
    runs = [batch.frames_N[a:b] for a, b in pairwise(bounds)]
    assert all((run.diff() == 1).all() and len(run) for run in runs)
    assert all(len(run) == 1 or len(run) * page_bytes <= REQUEST_BYTES for run in runs)
    gaps = sum(1 for one in frames if one - 1 not in frames)
    assert len(runs) == gaps or any(len(run) * page_bytes >= REQUEST_BYTES for run in runs)
