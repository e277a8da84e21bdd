"""Every attention kernel attends a prompt as a plain float64 loop does."""

from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from backends.attention import tiled
from backends.attention.base import AttentionKernel
from backends.attention.reference import BLOCK_ROWS, Reference
from backends.attention.tiled import Tiled
from memory_tiers import native
from sparse_algos.pattern import BlockPlan, Chunk
from tests.algorithms.plain_patterns import seen_by
from tests.parity.exact import SCALE, TOLERANCE, assert_agrees, attend_exactly, prefill_exactly
from tests.parity.kernels import DTYPES, KERNELS, kernel_of


def prefill_case(dtype, num_rows, num_tokens, head_dim=64):
    torch.manual_seed(num_rows + num_tokens)
    shapes = (num_rows, num_tokens, num_tokens)
    return tuple(torch.randn(2, length, head_dim).to(dtype) for length in shapes)


def causal(num_rows: int, num_tokens: int) -> Tensor:
    """The last num_rows tokens each see all up to themselves."""
    return torch.ones(num_rows, num_tokens, dtype=torch.bool).tril(num_tokens - num_rows)


def masks(num_rows: int, num_tokens: int) -> dict[str, Tensor]:
    """Masks by what they exercise."""
    scattered = torch.rand(num_rows, num_tokens) > 0.5
    scattered[[0, num_rows // 2]] = False
    prefix = causal(num_rows, num_tokens)
    return {
        "all": torch.ones_like(prefix),
        "none": torch.zeros_like(prefix),
        "causal": prefix,
        "two heads": prefix.repeat(2, 1)[num_rows // 2 : num_rows // 2 + num_rows],
        "scattered": scattered,
        "late": scattered & (torch.arange(num_tokens) >= num_tokens - 20),
        "early": scattered & (torch.arange(num_tokens) < 20),
        "beyond": prefix.roll(-num_tokens // 2, 1) & ~prefix,
    }


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 70), (40, 700), (BLOCK_ROWS + 44, 600)])
@pytest.mark.parametrize("kind", list(masks(1, 1)))
def test_prefill_is_attention_over_the_seen_tokens(name, dtype, shape, kind):
    query, key, value = prefill_case(dtype, *shape)
    mask = masks(*shape)[kind]
    exact = prefill_exactly(query, key, value, mask)
    attended = kernel_of(name, dtype, 64).prefill(query, key, value, mask, SCALE)
    if kind == "none":
        assert torch.equal(attended.out, torch.zeros_like(query))
        assert attended.lse.isneginf().all()
    else:
        assert_agrees(attended, exact, dtype)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [32, 48, 64, 128, 256])
@pytest.mark.parametrize("shape", [(1, 1), (33, 600), (300, 45), (128, 512)])
def test_no_mask_sees_all(name, dtype, head_dim, shape):
    query, key, value = prefill_case(dtype, *shape, head_dim)
    exact = prefill_exactly(query, key, value, torch.ones(shape, dtype=torch.bool))
    kernel = kernel_of(name, dtype, head_dim)
    assert_agrees(kernel.prefill(query, key, value, None, SCALE), exact, dtype)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_tokens", [1, 5, 160, BLOCK_ROWS + 44])
@pytest.mark.parametrize("group_size", [1, 3])
def test_a_new_token_sees_those_before_it_and_itself(name, dtype, num_tokens, group_size):
    query, key, value = prefill_case(dtype, group_size * num_tokens, num_tokens)
    mask = torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril().repeat(group_size, 1)
    exact = prefill_exactly(query, key, value, mask)
    strided = (each.transpose(0, 1).contiguous().transpose(0, 1) for each in (query, key, value))
    assert_agrees(kernel_of(name, dtype, 64).prefill_causal(*strided, SCALE), exact, dtype)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_reads_any_strides(name, dtype):
    exact_of = prefill_case(dtype, 33, 600)
    strided = (each.mT.contiguous().mT for each in exact_of)
    exact = prefill_exactly(*exact_of, torch.ones(33, 600, dtype=torch.bool))
    assert_agrees(kernel_of(name, dtype, 64).prefill(*strided, None, SCALE), exact, dtype)


@pytest.mark.parametrize("num_rows, num_tokens", [(0, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_of_nothing_is_nothing(num_rows, num_tokens, masked, name, dtype):
    query, key, value = prefill_case(dtype, num_rows, num_tokens)
    mask = torch.ones(num_rows, num_tokens, dtype=torch.bool) if masked else None
    attended = kernel_of(name, dtype, 64).prefill(query, key, value, mask, SCALE)
    assert torch.equal(attended.out, torch.zeros_like(query))
    assert torch.equal(attended.lse, torch.full((2, num_rows), -torch.inf))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_new_token_attends_nothing(name, dtype):
    kernel = kernel_of(name, dtype, 64)
    attended = kernel.prefill_causal(*prefill_case(dtype, 0, 0), SCALE)
    assert attended.out.shape == (2, 0, 64)
    assert attended.lse.shape == (2, 0)


@dataclass(frozen=True)
class Planned:
    """A chunk and a plan: two kv heads of `group_size` query heads each."""

    dtype: torch.dtype
    head_dim: int
    group_size: int
    block_tokens: int
    past: int
    new: int
    num_columns: int
    seed: int = 0

    @property
    def num_blocks(self) -> int:
        return -(-(self.past + self.new) // self.block_tokens)

    def plan(self) -> BlockPlan:
        """Blocks at random, those of the rows among them, and as many columns."""
        torch.manual_seed(self.seed)
        first = self.past // self.block_tokens
        at_I = torch.arange(first, self.num_blocks)
        blocks_HIP = torch.rand(2 * self.group_size, len(at_I), self.num_blocks) < 0.4
        blocks_HIP[:, at_I - first, at_I] = True
        blocks_HIP &= torch.arange(self.num_blocks) <= at_I.unsqueeze(1)
        columns_HC = None
        if self.num_columns:
            order_HT = torch.rand(len(blocks_HIP), self.past + self.new).argsort(1)
            columns_HC = order_HT[:, : self.num_columns].sort(1).values
        return BlockPlan(self.block_tokens, blocks_HIP, columns_HC)

    def tensors(self, seen_HMT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; what no row sees is NaN, zeros behind the last token."""
        torch.manual_seed(self.seed + 1)
        query = torch.randn(2, self.group_size, self.new, self.head_dim)
        kv = torch.randn(2, 2, self.past + self.new, self.head_dim)
        seen_KT = seen_HMT.any(1).unflatten(0, (2, -1)).any(1)
        kv[:, ~seen_KT] = torch.nan
        behind = self.num_blocks * self.block_tokens - kv.shape[2]
        # More room than blocks, as an engine has it, of anything.
        kv = pad(pad(kv, (0, 0, 0, behind)), (0, 0, 0, 3), value=torch.nan).to(self.dtype)
        return query.to(self.dtype), kv[0], kv[1]


def planned_exactly(case: Planned, seen_HMT: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
    query_KGMD, key_KTD, value_KTD = tensors
    seen_KGMT = seen_HMT.unflatten(0, (2, -1))
    out_KGMD = query_KGMD.double()
    for k, g, m in product(*map(range, query_KGMD.shape[:3])):
        at = seen_KGMT[k, g, m].nonzero()[:, 0]
        row = attend_exactly(query_KGMD[k, g, m, None], key_KTD[k, at], value_KTD[k, at])
        out_KGMD[k, g, m] = row.out[0]
    return out_KGMD


def attend_plan(kernel: AttentionKernel, case: Planned) -> tuple[Tensor, Tensor]:
    """What the kernel answers, and what is right."""
    plan = case.plan()
    seen_HMT = seen_by(plan, case.past, case.new)
    tensors = case.tensors(seen_HMT)
    query, key, value = tensors
    out = kernel.prefill_blocks(plan, Chunk(query, key, case.past + case.new, SCALE), value)
    assert out.shape == tensors[0].shape and out.dtype == case.dtype
    return out.double(), planned_exactly(case, seen_HMT, tensors)


def assert_attends(kernel: AttentionKernel, case: Planned) -> None:
    out, exact = attend_plan(kernel, case)
    error = (out - exact).abs().max() / exact.abs().max()
    assert error <= TOLERANCE[case.dtype], f"off by {error:.1e} of the largest value"


CASES = st.builds(
    Planned,
    dtype=st.sampled_from(DTYPES),
    head_dim=st.sampled_from([32, 48, 64, 128]),
    group_size=st.integers(1, 3),
    block_tokens=st.sampled_from([8, 32, 64, 96, 128, 256]),
    past=st.integers(0, 300),
    new=st.integers(1, 150),
    num_columns=st.sampled_from([0, 1, 40]),
    seed=st.integers(0, 99),
).filter(lambda case: case.num_columns <= case.past + case.new)


@pytest.mark.parametrize("name", KERNELS)
@given(case=CASES)
@settings(max_examples=25, deadline=None)
def test_a_plan_is_attended_exactly_and_nothing_else_is_read(name, case):
    assert_attends(kernel_of(name, case.dtype, case.head_dim), case)


USUAL = Planned(torch.bfloat16, 64, 2, 64, past=100, new=200, num_columns=40)


@pytest.fixture
def kernel() -> Tiled:
    """A kernel with tiles; skips where the processor has none."""
    kernel = Tiled(64)
    if kernel.library is None:
        pytest.skip("this processor has no tiles of bfloat16")
    return kernel


@pytest.mark.parametrize("call", ["prefill", "prefill_causal", "prefill_blocks"])
def test_tiles_serve_where_there_are_tiles(kernel, call, monkeypatch):
    monkeypatch.setattr(Reference, call, None)
    if call == "prefill_blocks":
        assert_attends(kernel, USUAL)
    else:
        masks = (None,) if call == "prefill" else ()
        getattr(kernel, call)(*prefill_case(torch.bfloat16, 70, 70), *masks, SCALE)


def test_processors_without_tiles_attend_a_plan_by_torch(monkeypatch):
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-mno-amx-bf16"))
    monkeypatch.setattr(tiled, "load_library", native.load_library.__wrapped__)
    kernel = Tiled(USUAL.head_dim)
    assert kernel.library is None
    assert_attends(kernel, USUAL)


@pytest.mark.parametrize("change", [{"num_columns": 0}, {"block_tokens": 256, "new": 300}])
def test_the_number_of_threads_changes_no_bit_of_a_prompt(kernel, change):
    case, before = replace(USUAL, **change), torch.get_num_threads()
    results = []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        results.append(attend_plan(kernel, case)[0])
    torch.set_num_threads(before)
    assert all(torch.equal(each, results[0]) for each in results)


def test_the_comparison_of_plans_sees_a_lost_column(kernel):
    plan = USUAL.plan()
    out, exact = attend_plan(kernel, USUAL)
    lost = replace(plan, columns_HC=plan.columns_HC[:, 1:])
    query, key, value = USUAL.tensors(seen_by(plan, USUAL.past, USUAL.new))
    chunk = Chunk(query, key, USUAL.past + USUAL.new, SCALE)
    less = kernel.prefill_blocks(lost, chunk, value).double()
    assert (less - exact).abs().max() > 2 * TOLERANCE[USUAL.dtype] * exact.abs().max()
    assert not torch.equal(less, out)
