"""Values in segments on demand: columns by page, extents by partition."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers.tables.column import PagedColumn
from memory_tiers.tables.offsets import PartitionOffsets
from memory_tiers.tables.segments import GROUP
from tests.memory.real_bytes import real_bytes

CPU = torch.device("cpu")
NUM_PAGES = 5 * GROUP + 17
ALL = torch.arange(NUM_PAGES)
examples = settings(max_examples=40)


@examples
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 999)), max_size=25),
    st.sampled_from([(torch.int64, 0), (torch.int32, -7), (torch.float32, 0.5)]),
)
def test_a_column_is_a_dict_with_a_default(actions, kind):
    dtype, fill = kind
    column, plain = PagedColumn(NUM_PAGES, dtype, fill, CPU), {}
    for write, seed in actions:
        draw = random.Random(seed)
        if write:
            pages = draw.sample(range(NUM_PAGES), draw.randint(0, 40))
            values = [draw.randrange(1000) for _ in pages]
            pages_N = torch.tensor(pages, dtype=torch.int64)
            column.write(pages_N, torch.tensor(values, dtype=dtype))
            plain |= dict(zip(pages, values, strict=True))
        else:
            groups = torch.tensor(sorted(draw.sample(range(6), draw.randint(1, 6))))
            pages_N = (groups.unsqueeze(1) * GROUP + torch.arange(GROUP)).flatten()
            column.release(pages_N)
            plain = {page: plain[page] for page in plain if page not in set(pages_N.tolist())}
        expected = [plain.get(page, fill) for page in range(NUM_PAGES)]
        assert torch.equal(column.read(ALL), torch.tensor(expected, dtype=dtype))
        parts = column.num_bytes()
        assert sum(parts.values()) == real_bytes(column)
        written = {page // GROUP for page in plain}
        assert parts["segments"] == len(written) * GROUP * dtype.itemsize


def test_a_column_refuses_parts_of_groups():
    column = PagedColumn(NUM_PAGES, torch.int64, 0, CPU)
    for pages_N in (torch.arange(63), torch.arange(1, 65)):
        with pytest.raises(AssertionError, match="no whole groups"):
            column.release(pages_N)


@examples
@given(st.lists(st.tuples(st.integers(-1, 150), st.integers(0, 999)), max_size=15))
def test_partition_offsets_are_a_dict(actions):
    offsets, plain = PartitionOffsets(6, 150, CPU), {}
    for count, seed in actions:
        draw = random.Random(seed)
        rows = draw.sample(range(6), draw.randint(1, 4))
        rows_R = torch.tensor(rows)
        plain = {key: plain[key] for key in plain if key[0] not in rows}
        if count < 0:
            offsets.release(rows_R)
        else:
            first_RP = torch.tensor([draw.choices(range(999), k=count) for _ in rows]).long()
            offsets.write(rows_R, first_RP, first_RP % 50)
            for row, first_P in zip(rows, first_RP.tolist(), strict=True):
                plain |= {(row, at): (first, first % 50) for at, first in enumerate(first_P)}
        first_RC, count_RC = offsets.read(torch.arange(6), torch.arange(150).expand(6, -1))
        assert first_RC.dtype == count_RC.dtype == torch.int32
        found = torch.stack((first_RC, count_RC), -1).tolist()
        expected = [[list(plain.get((row, at), (0, 0))) for at in range(150)] for row in range(6)]
        assert found == expected
        assert sum(offsets.num_bytes().values()) == real_bytes(offsets)
