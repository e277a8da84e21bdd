"""The laws, each a function that raises AssertionError when it is broken."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from memory_tiers.base import Rows
from memory_tiers.manager import CacheManager
from sparse_algos.base import Algorithm
from tests.laws.state import differing, state_of
from tests.laws.system import Read, System, stream_of

TOLERANCE = 2e-5
Answers = dict[str, dict[int, Tensor]]

LENGTHS = {"long": 121, "short": 3, "middle": 87}
FULL_BUDGET = 512
TIGHT_BUDGET = 64


def frames_of(memory: CacheManager) -> Tensor:
    """Frame of every page on every level, int64 [levels, P]."""
    pages_P = torch.arange(memory.table.num_pages)
    return torch.stack([level.frames(pages_P) for level in memory.levels])


def converse(system: System) -> System:
    """Three sequences of unequal length that come, ask, answer and leave at different times."""
    system.context("long", LENGTHS["long"])
    system.question("long", 9)
    system.context("short", LENGTHS["short"])
    system.question("short", 1)
    system.decode("long", "short")
    system.context("middle", LENGTHS["middle"])
    system.question("middle", 20)
    for _ in range(5):
        system.decode("long", "short", "middle")
    system.release("long")
    system.decode("middle", "short")
    return system


def exact_answers(system: System, uid: str, layer: int, seen_KTT: Tensor | None = None) -> Tensor:
    """Attention in float64 over the raw keys and values, one row per stored token: [T, H, D].

    seen_KTT: which tokens each row sees; None is all before it that are in the layer's window.
    """
    stream, shape, stored = stream_of(uid, system.shape), system.shape, system.stored[uid]
    query_TKGD = stream.query[layer, :stored].unflatten(1, (shape.kv_heads, -1)).double()
    key_TKD, value_TKD = (one[layer, :stored].double() for one in (stream.key, stream.value))
    if seen_KTT is None:
        gap_TT = torch.arange(stored).unsqueeze(1) - torch.arange(stored)
        window = shape.window if layer in shape.windowed else stored
        seen_KTT = ((gap_TT >= 0) & (gap_TT < window)).expand(shape.kv_heads, -1, -1)
    logits_KGTT = torch.einsum("tkgd,skd->kgts", query_TKGD, key_TKD) * shape.scale
    weights_KGTT = logits_KGTT.masked_fill(~seen_KTT.unsqueeze(1), -torch.inf).softmax(-1)
    return torch.einsum("kgts,skd->tkgd", weights_KGTT, value_TKD).flatten(1, 2)


def assert_full_budget_is_dense(system: System) -> None:
    """Every answer is dense attention over the raw keys and values."""
    for layer in range(system.shape.layers):
        assert_layer_is_dense(system, layer)


def assert_layer_is_dense(system: System, layer: int) -> None:
    """The answers of one layer are dense attention, inside the layer's window if it has one."""
    for uid, answers in system.answers.items():
        exact_THD = exact_answers(system, uid, layer)
        for position, out_LHD in answers.items():
            assert_close(out_LHD[layer], exact_THD[position], f"{uid} at {position}")


def assert_answers_are_exact_over_what_was_read(system: System) -> None:
    """Each answer of the sparse path is float64 attention over exactly the tokens it read."""
    for (uid, layer), seen_KTT in tokens_read(system).items():
        rows = seen_KTT.any(dim=2).all(dim=0)
        assert rows.any(), "nothing was read: the law is empty"
        exact_THD = exact_answers(system, uid, layer, seen_KTT)
        for position in rows.nonzero().squeeze(1).tolist():
            out_HD = system.answers[uid][position][layer]
            assert_close(out_HD, exact_THD[position], f"{uid} at {position}")


def tokens_read(system: System) -> dict[tuple[str, int], Tensor]:
    """By sequence and layer, which tokens each row of the sparse path read: bool [K, T, T]."""
    found: dict[tuple[str, int], Tensor] = {}
    for read in system.reads:
        seen_BKM = read.seen_R.view(len(read.uids), system.shape.kv_heads, -1)
        times_BKMT = read.times_RT.view(*seen_BKM.shape, -1)
        for uid, seen_KM, times_KMT in zip(read.uids, seen_BKM, times_BKMT, strict=True):
            stored = system.stored[uid]
            empty_KTT = torch.zeros(len(seen_KM), stored, stored, dtype=torch.bool)
            seen_KTT = found.setdefault((uid, read.layer), empty_KTT)
            seen_KTT[:, seen_KM[0] - 1] = times_KMT[..., :stored].bool()
    return found


def assert_close(one: Tensor, other: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Equal within a tolerance, and NaN nowhere."""
    off = (one - other).abs().amax()
    assert off <= tolerance, f"{what} is off by {off:.1e}"


def assert_same_answers(one: Answers, other: Answers, tolerance: float = TOLERANCE) -> None:
    """Both answered the same questions alike."""
    assert one.keys() == other.keys()
    for uid in one:
        assert one[uid].keys() == other[uid].keys(), uid
        for position in one[uid]:
            pair = one[uid][position], other[uid][position]
            assert_close(*pair, f"{uid} at {position}", tolerance)


def assert_moved(system: System) -> None:
    """Pages really left the fast tier and came back, and it was never larger than agreed."""
    count = system.memory.counters.current
    assert count.pages_evicted > 0
    assert count.bytes_moved[f"{names(system)[0]}->{names(system)[1]}"] > 0
    assert count.pages_hit < count.pages_wanted
    for lower, upper in pairwise(reversed(names(system))):
        assert count.bytes_moved[f"{lower}->{upper}"] > 0, f"nothing came up from {lower}"


def assert_within_budget(system: System) -> None:
    """No row reads too many tokens, none twice, none of another row, and some are skipped."""
    algorithm, skipped = system.attention.algorithm, 0
    for read in system.reads:
        assert read.strays == 0, "a page of another row or layer was read"
        assert read.times_RT.amax() <= 1, "a token was read twice"
        taken_R = read.times_RT.sum(1)
        assert (taken_R > 0).all(), "a row read nothing"
        if system.attention.acts_on(read.layer) and not reads_all(algorithm, read.layer):
            if algorithm.retrieve is not None:
                most = algorithm.retrieve.most_tokens
                assert_within(taken_R, torch.tensor([most(int(seen)) for seen in read.seen_R]))
            if algorithm.evict is not None:
                assert_within_what_is_held(system, read, taken_R)
        skipped += int((taken_R < read.seen_R).sum())
    assert skipped > 0 or algorithm.reads_all, "nothing was skipped: the law is empty"


def reads_all(algorithm: Algorithm, layer: int) -> bool:
    """Whether the retriever declares that this layer is dense."""
    return algorithm.retrieve is not None and algorithm.retrieve.reads_all(layer)


def assert_within(taken_R: Tensor, limit_R: Tensor) -> None:
    """None is above its limit."""
    assert (taken_R <= limit_R).all(), f"{taken_R.tolist()} of {limit_R.tolist()}"


def assert_within_what_is_held(system: System, read: Read, taken_R: Tensor) -> None:
    """No row reads more than an evictor leaves; heads that share a budget may share it out."""
    taken_BKM = taken_R.view(len(read.uids), system.shape.kv_heads, -1)
    seen_BKM = read.seen_R.view(taken_BKM.shape)
    for uid, taken_KM, seen_KM in zip(read.uids, taken_BKM, seen_BKM, strict=True):
        limits = [held_at_most(system, read.layer, uid, int(seen)) for seen in seen_KM[0]]
        assert_within(by_budget(system, taken_KM), torch.tensor(limits))


def by_budget(system: System, held_KM: Tensor) -> Tensor:
    """What is compared with the budget of a head: each head's tokens, or their mean."""
    pools = system.attention.algorithm.evict.pools_heads
    return held_KM.double().mean(0, keepdim=True) if pools else held_KM


def held_at_most(system: System, layer: int, uid: str, seen: int) -> int:
    """Tokens that a row may hold when its sequence has `seen`."""
    evict = system.attention.algorithm.evict
    served = [one for one in range(system.shape.layers) if system.attention.acts_on(one)]
    place = served.index(layer), len(served)
    if evict.decodes:
        return min(seen, evict.most_tokens(seen, *place))
    context = system.contexts[uid]
    return min(context, evict.most_tokens(context, *place)) + seen - context


def assert_planning_moves_nothing(system: System, wanted_N: Tensor) -> None:
    """A plan changes no tensor, no counter, no policy; and what is executed is what it says."""
    memory = system.memory
    before = state_of(memory)
    plan = memory.plan(wanted_N)
    changed = differing(before, state_of(memory))
    assert not changed, f"planning changed {changed}"
    assert differing(state_of(plan), state_of(memory.plan(wanted_N))) == []
    assert plan.victims_N.numel() > 0 and plan.loads_N.numel() > 0, "the law is empty"
    moved = Counter(memory.counters.current.bytes_moved)
    ready = memory.execute(plan)
    fast, lower = names(system)[:2]
    assert torch.equal(ready.frames_N, memory.frames(wanted_N))
    assert (ready.frames_N >= 0).all()
    assert (memory.frames(plan.victims_N) < 0).all()
    done = memory.counters.current.bytes_moved - moved
    size = memory.geometry.page_bytes
    assert done[f"{lower}->{fast}"] == plan.loads_N.numel() * size
    assert done[f"{fast}->{lower}"] == plan.dirty_N.numel() * size


def assert_blind_to_batch_mates(make: Callable[[], System]) -> None:
    """Each sequence alone, in a fresh system, answers as it does among the others."""
    together = converse(make()).answers
    for uid in LENGTHS:
        alone = make()
        replay_alone(alone, uid)
        assert_same_answers({uid: together[uid]}, alone.answers)


def replay_alone(system: System, uid: str) -> None:
    """What `converse` does with one sequence."""
    questions, decoded = {"long": 9, "short": 1, "middle": 20}, {"long": 6, "short": 7, "middle": 6}
    system.context(uid, LENGTHS[uid])
    system.question(uid, questions[uid])
    for _ in range(decoded[uid]):
        system.decode(uid)


def assert_frames_are_conserved(memory: Any) -> None:
    """Free and used frames add up in every tier, and no frame holds two pages."""
    for tier, held_N in zip(memory.tiers, frames_of(memory), strict=True):
        held_N = held_N[held_N >= 0]
        assert held_N.numel() == held_N.unique().numel(), f"{tier.name}: a frame holds two pages"
        assert held_N.numel() + tier.num_free == tier.num_frames, f"{tier.name} lost frames"
        assert tier.peak_frames <= tier.num_frames
        free_N = tier._free_F[: tier.num_free]
        assert torch.cat((held_N, free_N)).unique().numel() == tier.num_frames


def assert_summaries_are_given_back(system: System) -> None:
    """One sequence after the other, each in another slot, takes the summaries of one."""
    index, peaks = system.attention.index.store, []
    for uid in ("long", "middle-long", "the other long"):
        system.context(uid, LENGTHS["long"])
        system.question(uid, 1)
        peaks.append(index.peak_segments)
        system.release(uid)
        system.slots.insert(0, system.slots.pop())
    assert 0 < peaks[0] == peaks[-1], f"segments in use: {peaks}"


def assert_summaries_follow_each_length(system: System) -> None:
    """A short sequence takes no more of the index beside a long one."""
    index = system.attention.index.store
    peaks = []
    for lengths in ((LENGTHS["long"],), (3,), (LENGTHS["long"], 3)):
        index.peak_segments = 0
        uids = [f"{number} of {lengths}" for number in range(len(lengths))]
        for uid, length in zip(uids, lengths, strict=True):
            system.context(uid, length)
        for _ in range(8):
            system.decode(*uids)
        peaks.append(index.peak_segments)
        for uid in uids:
            system.release(uid)
    assert 0 < peaks[2] == peaks[0] + peaks[1], f"segments in use: {peaks}"


def assert_reads_are_counted(system: System) -> None:
    """Pages and bytes read are what the kernel was told to read."""
    count = system.memory.counters.current
    pages = system.past_pages + sum(read.num_pages for read in system.reads)
    assert count.pages_read == pages + system.past_halves
    assert 2 * count.bytes_read == (2 * pages + system.past_halves) * page_bytes(system)


def page_bytes(system: System) -> int:
    """Bytes of keys and values of one page, from the pool itself."""
    return system.memory.pool_FPSD[0].nbytes


def names(system: System) -> Sequence[str]:
    """Tier names, fastest first."""
    return [tier.name for tier in system.memory.tiers]


def assert_evicted_tokens_are_gone(system: System) -> None:
    """No row holds more than the evictor leaves, and pages without tokens have no frame."""
    memory, eviction = system.memory, system.attention.eviction
    table, dropped = memory.table, 0
    framed_P = (frames_of(memory) >= 0).any(0)
    for uid, slot in system.holds.items():
        rows_K = table.rows_of(torch.tensor([slot]))
        for layer in filter(system.attention.acts_on, range(system.shape.layers)):
            used_K = eviction.slots.used_LR[layer, rows_K]
            rows = Rows(table.first_page(layer, rows_K), used_K, int(used_K.max()))
            live_KT = table.live_slots(rows)
            held_K = live_KT.sum(1)
            limit = held_at_most(system, layer, uid, system.stored[uid])
            assert_within(by_budget(system, held_K), torch.tensor(limit))
            dropped += system.stored[uid] * len(held_K) - int(held_K.sum())
            live_KP = live_KT.unflatten(1, (-1, memory.geometry.page_tokens)).any(2)
            pages_KP = rows.first_page_R.unsqueeze(1) + torch.arange(table.pages_per_row)
            has_KP = torch.zeros_like(pages_KP, dtype=torch.bool)
            has_KP[:, : live_KP.shape[1]] = live_KP
            assert torch.equal(framed_P[pages_KP], has_KP)
    assert dropped > 0, "nothing was dropped: the law is empty"
