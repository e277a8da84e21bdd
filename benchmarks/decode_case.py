"""One layer of a decode step in all the layouts that the kernels under comparison read."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.attention.base import FrameSelection, SelectRule, StepInputs
from benchmarks.yardsticks import huge_empty
from memory_tiers.base import TableView
from memory_tiers.summary_store import SEGMENT
from sparse_algos.retrieve.quest import Quest

NUM_ROWS, GROUP_SIZE, HEAD_DIM, PAGE_TOKENS = 8, 4, 128, 16
BUDGET_TOKENS, SINKS, RECENTS = 2048, 4, 64
SCALE = HEAD_DIM**-0.5
# Pools have at least this size: in a smaller one, random pages are not far from each other.
POOL_BYTES = 512 << 20
# Different queries and selections, so that nothing is told by what the caches and predictors hold.
VARIANTS = 16
# Tokens that differ; longer contexts repeat them.
DISTINCT = 8192
# What a page of vLLM's CPU kernel holds.
BLOCK_TOKENS = 128
COLUMNS = BUDGET_TOKENS // PAGE_TOKENS
RETRIEVE = Quest(
    budget_tokens=BUDGET_TOKENS,
    sinks=SINKS,
    recents=RECENTS,
    group_reduce="max",
    block_tokens=PAGE_TOKENS,
)
RULE = SelectRule(COLUMNS, PAGE_TOKENS, SINKS, RECENTS, "max")


@dataclass(frozen=True)
class Case:
    """Keys and values of one sequence, dense, in pages, and summarised.

    frames_RP: int32, the random frame of each page. For arms that do not select: random_VRC, random
    pages; blocks_VRB, random blocks of BLOCK_TOKENS, as many tokens; runs, first frames of runs of
    as many frames.
    """

    context: int
    key_RTD: Tensor
    value_RTD: Tensor
    pool_FPSD: Tensor
    frames_RP: Tensor
    segments_NCE: Tensor
    query_VRGD: Tensor
    scoring_VRQE: Tensor
    random_VRC: Tensor
    blocks_VRB: Tensor
    runs: list[int]

    @property
    def page_bytes(self) -> int:
        """Bytes of a page."""
        return 2 * PAGE_TOKENS * HEAD_DIM * self.pool_FPSD.itemsize

    @property
    def selected_bytes(self) -> int:
        """Bytes of the pages that one step reads."""
        return NUM_ROWS * COLUMNS * self.page_bytes

    @property
    def summary_bytes(self) -> int:
        """Bytes of all summaries."""
        return self.segments_NCE.numel() * self.segments_NCE.itemsize

    @property
    def all_bytes(self) -> int:
        """Bytes of all pages."""
        return self.frames_RP.numel() * self.page_bytes

    def frames_of(self, pages_RC: Tensor) -> Tensor:
        """Frames of chosen pages, flat over rows, int32."""
        return self.frames_RP.gather(1, pages_RC).flatten()

    def steps(self) -> list[StepInputs]:
        """The step to take, for each query."""
        num_pages = self.context // PAGE_TOKENS
        directory_RW = torch.arange(len(self.segments_NCE)).view(NUM_ROWS, -1)
        tokens_R = torch.full((NUM_ROWS,), self.context)
        first_page_R = torch.arange(NUM_ROWS) * num_pages
        table = TableView(self.frames_RP.flatten())
        return [
            StepInputs(
                query_RGD=query_RGD,
                pool_FPSD=self.pool_FPSD,
                scale=SCALE,
                scoring_RQE=scoring_RQE,
                segments_NCE=self.segments_NCE,
                directory_RW=directory_RW,
                num_tokens_R=tokens_R,
                first_page_R=first_page_R,
                columns_R=None,
                rule=RULE,
                table=table,
            )
            for query_RGD, scoring_RQE in zip(
                self.query_VRGD.unbind(), self.scoring_VRQE.unbind(), strict=True
            )
        ]


def selection_of(frames_N: Tensor) -> FrameSelection:
    """Rows that read equally many whole frames."""
    indptr_R1 = torch.arange(NUM_ROWS + 1) * (len(frames_N) // NUM_ROWS)
    live_N = torch.full((len(frames_N),), (1 << PAGE_TOKENS) - 1)
    return FrameSelection(indptr_R1, frames_N, live_N)


def make_case(context: int, dtype: torch.dtype) -> Case:
    """Random keys and values, on huge memory pages; the summaries are those of Quest."""
    torch.manual_seed(0)
    num_pages = context // PAGE_TOKENS
    page_bytes = 2 * PAGE_TOKENS * HEAD_DIM * dtype.itemsize
    num_frames = max(NUM_ROWS * num_pages, POOL_BYTES // page_bytes)
    pool_FPSD = huge_empty((num_frames, 2, PAGE_TOKENS, HEAD_DIM), dtype).fill_(0)
    frames_RP = torch.randperm(num_frames)[: NUM_ROWS * num_pages].int().view(NUM_ROWS, -1)
    key_RTD, value_RTD = (huge_empty((NUM_ROWS, context, HEAD_DIM), dtype) for _ in range(2))
    segments_NCE = huge_empty((NUM_ROWS * num_pages // SEGMENT, SEGMENT, 2 * HEAD_DIM), dtype)
    summaries_RPE = segments_NCE.view(NUM_ROWS, num_pages, -1)
    for row in range(NUM_ROWS):
        for dense_TD in (key_RTD[row], value_RTD[row]):
            block_TD = torch.randn(min(context, DISTINCT), HEAD_DIM).to(dtype)
            dense_TD.copy_(block_TD.repeat(-(-context // len(block_TD)), 1)[:context])
        key_PSD, value_PSD = (
            dense_TD.view(num_pages, PAGE_TOKENS, HEAD_DIM)
            for dense_TD in (key_RTD[row], value_RTD[row])
        )
        pool_FPSD[frames_RP[row].long()] = torch.stack((key_PSD, value_PSD), 1)
        noise_P1 = torch.rand(num_pages, 1).to(dtype)  # summaries differ though keys repeat
        bounds_PE = torch.cat((key_PSD.amin(1), key_PSD.amax(1)), 1)
        summaries_RPE[row] = bounds_PE + noise_P1
    query_VRGD = torch.randn(VARIANTS, NUM_ROWS, GROUP_SIZE, HEAD_DIM).to(dtype)
    return Case(
        context=context,
        key_RTD=key_RTD,
        value_RTD=value_RTD,
        pool_FPSD=pool_FPSD,
        frames_RP=frames_RP,
        segments_NCE=segments_NCE,
        query_VRGD=query_VRGD,
        scoring_VRQE=torch.stack([RETRIEVE.scoring_query(each) for each in query_VRGD]),
        random_VRC=_draw(num_pages, COLUMNS),
        blocks_VRB=_draw(context // BLOCK_TOKENS, BUDGET_TOKENS // BLOCK_TOKENS),
        runs=torch.randint(num_frames - NUM_ROWS * COLUMNS, (VARIANTS,)).tolist(),
    )


def pages_of(blocks_RB: Tensor) -> Tensor:
    """The pages of blocks, in order."""
    per_block = BLOCK_TOKENS // PAGE_TOKENS
    return (blocks_RB.unsqueeze(-1) * per_block + torch.arange(per_block)).flatten(1)


def _draw(total: int, count: int) -> Tensor:
    """Ascending draws without repetition for each variant and row."""
    return torch.rand(VARIANTS, NUM_ROWS, total).argsort(-1)[..., :count].sort(-1).values
