"""A long random life of the cache manager: no frame is lost or shared, and the counts are true."""

import os
from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memory_tiers.base import KVGeometry
from memory_tiers.budgets.dynamic import Dynamic
from memory_tiers.budgets.static import Static
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable
from memory_tiers.policies.bucketed_lru import BucketedLru
from memory_tiers.policies.lru import Lru
from memory_tiers.sharing import Sharing
from memory_tiers.tables.two_level import TwoLevel
from memory_tiers.tiers.cpu import HostMemory
from memory_tiers.tiers.disk import Disk
from memory_tiers.tiers.hbm import Hbm
from tests.laws.laws import assert_frames_are_conserved

CPU = torch.device("cpu")
SEQUENCES, PAGES, WINDOW = 64, 6, 3
FAST, MIDDLE = 24, 40
GEOMETRY = KVGeometry(
    num_layers=1, num_kv_heads=1, head_dim=16, page_tokens=4, dtype=torch.float32, device=CPU
)
RULES = {"none": None, "static": Static(), "dynamic": Dynamic()}
# Steps of each of the three machines; together more than 10,000 operations with EXAMPLES runs.
STEPS, EXAMPLES = 350, 10


@dataclass
class Truth:
    """What should be so, in plain Python: stamps by page, use by step, counts of reads."""

    stamp: dict[int, float] = field(default_factory=dict)
    used: list[set[int]] = field(default_factory=lambda: [set()])
    wanted: int = 0
    hits: int = 0
    moved: Counter[str] = field(default_factory=Counter)


class Life(RuleBasedStateMachine):
    """Sequences come, append, read, and go, over three tiers that are too small."""

    rule_name = "none"

    def __init__(self) -> None:
        super().__init__()
        self.table = PageTable(GEOMETRY, SEQUENCES, PAGES * 4)
        tiers = (
            Hbm("hbm", FAST, GEOMETRY),
            HostMemory("cpu", MIDDLE, GEOMETRY),
            Disk("disk", SEQUENCES * PAGES, GEOMETRY, path=os.curdir, direct=False, in_flight=4),
        )
        policies = (Lru(), BucketedLru(buckets=8), None)
        levels = tuple(
            Level(tier, TwoLevel(self.table.num_pages, CPU), policy, self.table)
            for tier, policy in zip(tiers, policies, strict=True)
        )
        sharing = Sharing(self.table, RULES[self.rule_name], WINDOW)
        self.memory = CacheManager(GEOMETRY, self.table, levels, sharing, Counters())
        self.held: dict[int, int] = {}
        self.truth = Truth()
        self.clock = 0

    def pages_of(self, slot: int, count: int) -> list[int]:
        return list(range(slot * self.table.pages_per_row, slot * self.table.pages_per_row + count))

    @rule(slot=st.integers(0, SEQUENCES - 1))
    def admit(self, slot: int) -> None:
        if slot not in self.held:
            self.held[slot] = 0
            self.memory.begin(slot)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), count=st.integers(1, PAGES))
    def append(self, data: st.DataObject, count: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.held)))
        first, stop = self.held[slot], min(self.held[slot] + count, PAGES)
        pages = self.pages_of(slot, stop)[first:]
        if not pages:
            return
        self.clock += 1
        stamps = [self.clock + page / 2**20 for page in pages]
        content = torch.tensor(stamps).unsqueeze(1).expand(-1, GEOMETRY.head_dim)
        slots = torch.zeros(len(pages), dtype=torch.int64)
        self.memory.write(torch.tensor(pages), slots, content, -content)
        self.truth.stamp.update(zip(pages, content[:, 0].tolist(), strict=True))
        self.held[slot] = stop

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def select(self, data: st.DataObject) -> None:
        slots = sorted(slot for slot, count in self.held.items() if count)
        chosen = data.draw(st.lists(st.sampled_from(slots), min_size=1, max_size=4, unique=True))
        pages = [page for slot in chosen for page in self.pages_of(slot, self.held[slot])]
        pages = data.draw(st.permutations(pages))[: FAST // 2]
        wanted_N = torch.tensor(pages)
        resident = int((self.memory.frames(wanted_N) >= 0).sum())
        frames_N = self.memory.fetch(wanted_N, mandatory=True).frames_N
        found = self.memory.pool_FPSD[frames_N, :, 0, 0]
        expected = torch.tensor([self.truth.stamp[page] for page in pages])
        assert torch.equal(found[:, 0], expected) and torch.equal(found[:, 1], -expected)
        self.truth.wanted += len(pages)
        self.truth.hits += resident
        self.truth.used[-1] |= set(pages)

    @rule()
    def end_step(self) -> None:
        if self.truth.used[-1]:
            self.memory.end_step()
            self.truth.used.append(set())

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.held)))
        self.memory.release(slot)
        gone = set(self.pages_of(slot, self.held.pop(slot)))
        self.truth.used = [used - gone for used in self.truth.used]

    @invariant()
    def frames_are_neither_lost_nor_shared(self) -> None:
        if self.clock % 8 == 0:
            assert_frames_are_conserved(self.memory)

    @invariant()
    def counts_are_true(self) -> None:
        count = self.memory.counters.current
        assert (count.pages_wanted, count.pages_hit) == (self.truth.wanted, self.truth.hits)
        lately = set().union(*self.truth.used[-WINDOW:])
        sizes = Counter(page // self.table.pages_per_row for page in lately)
        measured = self.memory.sharing.working_set_B
        assert measured.tolist() == [sizes[slot] for slot in range(SEQUENCES)]
        held = self.memory.fast.held_B
        owners = self.memory.fast.page_of_F
        owners = owners[owners >= 0] // self.table.pages_per_row
        assert torch.equal(held, torch.bincount(owners, minlength=SEQUENCES))

    def teardown(self) -> None:
        for slot in list(self.held):
            self.memory.release(slot)
        assert_frames_are_conserved(self.memory)
        assert all(tier.num_free == tier.num_frames for tier in self.memory.tiers)
        for tier in self.memory.tiers:
            tier.close()


@pytest.mark.parametrize("name", RULES)
def test_ten_thousand_random_operations_leave_every_frame_and_count_right(name):
    machine = type(f"LifeWith{name.title()}", (Life,), {"rule_name": name})
    machine.TestCase.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine.TestCase().runTest()
