"""What a probe says of each algorithm, against plain sums over raw queries, keys and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from backends.attention.base import Attended
from backends.attention.reference import Reference
from backends.probe import Probe
from harness.build import build_algorithm
from sparse_algos.base import Algorithm
from sparse_algos.index_data import Estimate, Read
from sparse_algos.retrieve.oracle_topk import OracleTopK
from sparse_algos.selection import Selection
from tests.laws.configs import HIERARCHIES, PLACEMENTS, settings_of
from tests.laws.laws import TIGHT_BUDGET, TOLERANCE, frames_of
from tests.laws.system import Shape, System, build_system, stream_of

SHAPE = Shape()
GROUPS = {
    "one query head per kv head": Shape(group=1, kv_heads=3),
    "four": Shape(group=4, layers=2),
    "a window on layer 1": Shape(windowed=frozenset({1}), window=20),
}
STEPS = [("long",), ("long", "short"), ("short", "long"), ("short", "middle"), ("middle",)]


def probe_of(system: System, every: int = 1) -> Probe:
    """A probe with a kernel of its own: that of the system notes what it is told to read."""
    return Probe(system.memory.table, Reference(), every)


def converse(system: System, probe: Probe | None) -> list[Tensor]:
    """Sequences come, ask and answer; what each of STEPS should have said, float64 [B, L, H, 2]."""
    system.attention.probe = probe
    said, selected = [], selections_of(system)
    for uid, context, question in (("long", 121, 9), ("short", 3, 1), ("middle", 87, 20)):
        system.context(uid, context)
        system.question(uid, question)
    system.memory.counters.enter("decode")
    for uids in STEPS:
        system.reads.clear()
        system.decode(*uids)
        said.append(expected(system, uids, selected))
    return said


def selections_of(system: System) -> dict[int, Selection]:
    """By layer, what was selected last, from now on."""
    found: dict[int, Selection] = {}
    index = system.attention.index
    if index is not None:
        select = index.select

        def noting(layer: int, *rest: Any) -> Any:
            selected = select(layer, *rest)
            found.pop(layer, None)
            if selected is not None:
                found[layer] = selected.partitions
            return selected

        index.select = noting
    return found


def tokens_read(times_T: Tensor, selection: Selection | None, row: int, nth: int) -> Tensor:
    """What the `nth` query head of a row read, bool [T]; where logits are biased, heads differ."""
    if selection is None or selection.bias_RGC is None:
        return times_T > 0
    counts_C = selection.bias_RGC[row, nth] > -torch.inf
    if selection.valid_RC is not None:
        counts_C &= selection.valid_RC[row]
    read_T = torch.zeros_like(times_T, dtype=torch.bool)
    read_T[selection.partitions_RC[row, counts_C]] = True
    return read_T


def expected(system: System, uids: tuple[str, ...], selected: Mapping[int, Selection]) -> Tensor:
    """Mass recalled and error in the last step, float64 [B, L, H, 2], one head at a time."""
    shape = system.shape
    found = torch.empty(
        len(uids), shape.layers, shape.kv_heads * shape.group, 2, dtype=torch.float64
    )
    for read in system.reads:
        for b, uid in enumerate(uids):
            for head in range(shape.kv_heads * shape.group):
                row, nth = b * shape.kv_heads + head // shape.group, head % shape.group
                read_T = tokens_read(read.times_RT[row], selected.get(read.layer), row, nth)
                found[b, read.layer, head] = plainly(system, uid, read.layer, head, read_T)
    return found


def plainly(system: System, uid: str, layer: int, head: int, read_T: Tensor) -> Tensor:
    """Mass on the tokens that were read, and how far the answer is off."""
    shape, stream, last = system.shape, stream_of(uid, system.shape), system.stored[uid] - 1
    first = max(0, last + 1 - shape.window) if layer in shape.windowed else 0
    key_TD, value_TD = (
        one[layer, first : last + 1, head // shape.group].double()
        for one in (stream.key, stream.value)
    )
    weight_T = torch.exp(key_TD @ stream.query[layer, last, head].double() * shape.scale)
    share_T = weight_T / weight_T.sum()
    dense_D = share_T @ value_TD
    answer_D = system.answers[uid][last][layer, head].double()
    recalled = share_T[read_T[first : last + 1]].sum()
    return torch.stack((recalled, (answer_D - dense_D).norm() / dense_D.norm()))


def assert_says_what_is(system: System, probe: Probe) -> Tensor:
    """The probe's numbers are those of plain sums; what it said, [N, L, H, 2]."""
    wanted_NLH2 = torch.cat(converse(system, probe))
    said_NLH2 = torch.stack((probe.recalled_NLH, probe.error_NLH), dim=-1)
    assert said_NLH2.shape == wanted_NLH2.shape
    torch.testing.assert_close(said_NLH2.double(), wanted_NLH2, atol=TOLERANCE, rtol=0)
    return said_NLH2


@pytest.mark.parametrize(("algo", "partition"), PLACEMENTS)
def test_a_probe_says_what_plain_sums_say(algo: str, partition: str) -> None:
    system = build_system(settings_of(algo, partition), SHAPE, TIGHT_BUDGET)
    said_NLH2 = assert_says_what_is(system, probe_of(system))
    if system.attention.algorithm.reads_all:
        assert (said_NLH2[..., 0] == 1).all() and (said_NLH2[..., 1] == 0).all()
    else:
        assert (said_NLH2[..., 0] < 0.99).any() and (said_NLH2[..., 1] > 0.01).any()


@pytest.mark.parametrize("shape", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("algo", ["quest", "streaming"])
def test_a_probe_knows_groups_and_windows(algo: str, shape: Shape) -> None:
    system = build_system(settings_of(algo), shape, TIGHT_BUDGET)
    said_NLH2 = assert_says_what_is(system, probe_of(system))
    for layer in shape.windowed:
        assert (said_NLH2[:, layer, :, 0] > 1 - TOLERANCE).all()


@dataclass(frozen=True, kw_only=True)
class Guessing(OracleTopK):
    """Adds a guess of the rest, as heavy as what was read."""

    estimates: ClassVar[bool] = True

    def estimate(self, read: Read) -> Estimate:
        return Estimate(torch.ones_like(read.query_RGD), read.lse_RG)


def test_what_is_guessed_is_not_recalled() -> None:
    settings = settings_of("oracle_topk")
    plain = build_algorithm(settings).retrieve
    assert plain is not None
    names = ("sinks", "recents", "group_reduce")
    retrieve = Guessing(
        budget_tokens=TIGHT_BUDGET, **{name: getattr(plain, name) for name in names}
    )
    algorithm = Algorithm(name="toy", evict=None, retrieve=retrieve)
    system = build_system(settings, SHAPE, algorithm=algorithm)
    said_NLH2 = assert_says_what_is(system, probe_of(system))
    assert (said_NLH2[..., 1] > 0.3).any(), "the answers are those of plain top-k"


@pytest.mark.parametrize("tier", HIERARCHIES)
def test_a_probe_leaves_no_trace_in_tiers_and_counters(tier: str) -> None:
    pages = 3 * SHAPE.kv_heads * TIGHT_BUDGET // 16 + 8
    settings = settings_of("quest", tier=tier, fast_bytes=pages * 2 * 16 * SHAPE.head_dim * 4)
    alone, watched = (build_system(settings, SHAPE, TIGHT_BUDGET) for _ in range(2))
    converse(alone, None)
    converse(watched, probe_of(watched))
    assert alone.memory.counters.decode.pages_evicted > 0
    for one in (alone, watched):
        one.memory.counters.decode.exposed_s = 0
        one.memory.counters.decode.transfer_s.clear()
    assert alone.memory.counters.decode == watched.memory.counters.decode
    assert torch.equal(frames_of(alone.memory), frames_of(watched.memory))
    for uid, said in alone.answers.items():
        assert all(torch.equal(said[at], watched.answers[uid][at]) for at in said)


def test_every_nth_step_is_compared_from_the_first_on() -> None:
    system = build_system(settings_of("quest"), SHAPE, TIGHT_BUDGET)
    probe = probe_of(system, every=2)
    wanted = torch.cat(converse(system, probe)[::2])
    torch.testing.assert_close(probe.recalled_NLH.double(), wanted[..., 0], atol=2e-5, rtol=0)


def test_a_probe_without_steps_says_nothing() -> None:
    probe = probe_of(build_system(settings_of("quest"), SHAPE, TIGHT_BUDGET))
    assert len(probe.recalled_NLH) == len(probe.error_NLH) == 0


class LosesTheFirstKey(Probe):
    def store(self, layer: int, batch: Any, key_ND: Tensor, value_ND: Tensor) -> None:
        super().store(layer, batch, torch.cat((0 * key_ND[:1], key_ND[1:])), value_ND)


class CountsTheAnswerTwice(Probe):
    def compare(self, layer: int, query: Tensor, answer: Attended, *rest: Any) -> None:
        super().compare(layer, query, Attended(answer.out, answer.lse + 0.01), *rest)


class MixesTheHeads(Probe):
    def compare(self, layer: int, query: Tensor, answer: Attended, *rest: Any) -> None:
        super().compare(layer, query, Attended(answer.out.flip(1), answer.lse), *rest)


@pytest.mark.parametrize("broken", [LosesTheFirstKey, CountsTheAnswerTwice, MixesTheHeads])
def test_a_broken_probe_is_seen(broken: type[Probe]) -> None:
    system = build_system(settings_of("quest"), SHAPE, TIGHT_BUDGET)
    with pytest.raises(AssertionError):
        assert_says_what_is(system, broken(system.memory.table, Reference(), 1))
