"""Budgets: static ones hold exactly, dynamic ones follow what sequences use again."""

import pytest
import torch

from memory_tiers.base import KVGeometry
from memory_tiers.budgets.base import BudgetRule
from memory_tiers.budgets.dynamic import Dynamic
from memory_tiers.budgets.static import Static
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable
from memory_tiers.policies.lru import Lru
from memory_tiers.sharing import Sharing
from memory_tiers.tables.two_level import TwoLevel
from memory_tiers.tiers.cpu import HostMemory
from memory_tiers.tiers.hbm import Hbm

CPU = torch.device("cpu")
PAGES, FAST, PER_STEP = 64, 64, 8
GEOMETRY = KVGeometry(
    num_layers=1, num_kv_heads=1, head_dim=8, page_tokens=4, dtype=torch.float32, device=CPU
)


def memory_with(rule: BudgetRule | None, sequences: int) -> CacheManager:
    """Sequences of 64 pages each over a fast tier of 64 frames, all written back once."""
    table = PageTable(GEOMETRY, sequences, PAGES * 4)
    tiers = Hbm("hbm", FAST, GEOMETRY), HostMemory("cpu", sequences * PAGES, GEOMETRY)
    levels = tuple(
        Level(tier, TwoLevel(table.num_pages, CPU), policy, table)
        for tier, policy in zip(tiers, (Lru(), None), strict=True)
    )
    memory = CacheManager(GEOMETRY, table, levels, Sharing(table, rule, 12), Counters())
    for slot in range(sequences):
        memory.begin(slot)
        pages_N = torch.arange(PAGES) + slot * table.pages_per_row
        memory.write(
            pages_N, torch.zeros_like(pages_N), torch.zeros(PAGES, 8), torch.ones(PAGES, 8)
        )
    return memory


def hit_rate(rule: BudgetRule | None, spreads: list[int], steps: int = 150) -> float:
    """Sequences that pick their pages among so many: a small spread is a high locality."""
    memory = memory_with(rule, len(spreads))
    memory.counters = Counters()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        picked = [
            torch.randperm(spread, generator=generator)[:PER_STEP].sort().values
            + slot * memory.table.pages_per_row
            for slot, spread in enumerate(spreads)
        ]
        memory.fetch(torch.cat(picked), mandatory=True)
        memory.end_step()
    return memory.counters.current.pages_hit / memory.counters.current.pages_wanted


def test_dynamic_budgets_win_where_locality_is_mixed():
    spreads = [8, 8, 8, 40]
    static, dynamic = hit_rate(Static(), spreads), hit_rate(Dynamic(), spreads)
    assert dynamic > static + 0.05, f"static {static:.3f}, dynamic {dynamic:.3f}"


@pytest.mark.parametrize("spread", [10, 16, 30])
def test_dynamic_budgets_do_not_lose_where_all_are_alike(spread):
    static, dynamic = (hit_rate(rule, [spread] * 4) for rule in (Static(), Dynamic()))
    assert dynamic >= static - 0.01, f"static {static:.3f}, dynamic {dynamic:.3f}"


def test_budgets_move_both_ways():
    memory = memory_with(Dynamic(), 2)
    row = memory.table.pages_per_row
    for first, second in ((32, 8), (8, 32)):
        for _ in range(14):
            wanted_N = torch.cat((torch.arange(first), torch.arange(second) + row))
            memory.fetch(wanted_N, mandatory=True)
            memory.end_step()
        assert memory.sharing.working_set_B.tolist() == [first, second]
        budgets = memory.sharing.budget_B.tolist()
        assert budgets == [FAST * first // 40, FAST * second // 40]


def test_a_static_budget_is_never_exceeded():
    memory = memory_with(Static(), 4)
    row = memory.table.pages_per_row
    for start in range(0, 48, 8):
        wanted_N = torch.cat([torch.arange(start, start + 8) + slot * row for slot in range(2)])
        memory.fetch(wanted_N, mandatory=True)
        memory.end_step()
        assert (memory.fast.held_B <= FAST // 4).all(), memory.fast.held_B.tolist()
