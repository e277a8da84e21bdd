"""What a cell is: its hash follows what is measured, and nothing else."""

import pytest

from harness.composing import composed
from harness.settings import validated
from harness.sources import digest_of, meaning_of, measured_sha256, measuring_sha256
from harness.stored.identity import cell_hash, cell_of

PLAIN = ("tier=hbm+cpu", "tier.hbm.size=64MiB")


def hash_of(*overrides: str, model: str | None = "a") -> str:
    return cell_hash(validated(composed([*PLAIN, *overrides])), model)


def test_the_same_system_has_one_hash_however_it_is_written() -> None:
    assert hash_of() == hash_of("tier.hbm.size=65536KiB") == hash_of("algo=quest")


@pytest.mark.parametrize(
    "override", ["results=elsewhere", "sweep.name=x", "sweep.round=3", "sweep.attempt=1"]
)
def test_what_changes_nothing_changes_no_hash(override: str) -> None:
    assert hash_of(override) == hash_of()


def test_where_the_file_of_the_disk_tier_lies_changes_no_hash() -> None:
    disk = ("tier=hbm+cpu+disk", "tier.hbm.size=64MiB")
    moved = hash_of(*disk, "results=elsewhere")
    assert moved == hash_of(*disk) == hash_of(*disk, "tier.disk.path=elsewhere")
    assert moved != hash_of(*disk, "tier.disk.size=65MiB")


@pytest.mark.parametrize(
    "override",
    ["algo.retrieve.budget_tokens=64", "task.seed=43", "cache=arc", "tier.hbm.size=65MiB"],
)
def test_what_changes_a_measurement_changes_the_hash(override: str) -> None:
    assert hash_of(override) != hash_of()


def test_other_weights_are_another_cell() -> None:
    assert len({hash_of(model=model) for model in ("a", "b", None)}) == 3


def test_a_cell_knows_its_code_and_its_place() -> None:
    settings = validated(composed([*PLAIN, "sweep.round=2", "sweep.order=5", "sweep.attempt=0"]))
    cell = cell_of(settings, "a", experiment="grid")
    assert (cell.round, cell.order, cell.attempt) == (2, 5, 0)
    assert (cell.code, cell.benchmark) == (measured_sha256(), measuring_sha256())
    assert cell.code != cell.benchmark


def test_words_are_not_part_of_what_code_means() -> None:
    bare = b"def f(x):\n    return x + 1\n"
    worded = b'"""Adds."""\n# one\ndef f(x):\n    """More."""\n    return (x\n            + 1)\n'
    assert meaning_of(bare) == meaning_of(worded)
    assert meaning_of(bare) != meaning_of(bare.replace(b"+ 1", b"+ 2"))
    assert digest_of([]) != measuring_sha256()
