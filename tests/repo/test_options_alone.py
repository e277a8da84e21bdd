"""Laws over role options that no composition names: each is chosen on top of dense attention."""

import pytest

from harness.settings import Settings, validated
from tests.laws.configs import composed, options, settings_of
from tests.laws.laws import (
    FULL_BUDGET,
    TIGHT_BUDGET,
    assert_answers_are_exact_over_what_was_read,
    assert_blind_to_batch_mates,
    assert_full_budget_is_dense,
    assert_within_budget,
    converse,
)
from tests.laws.system import Shape, build_system

SHAPE = Shape()
# Quest stands for those that have a composition too, which the laws know by its name.
ALONE = [("retrieve", "quest")] + [
    (role, name)
    for role in ("retrieve", "evict", "prefill")
    for name in options(f"algo/{role}")
    if name not in {"none", *options("algo")}
]
alone = pytest.mark.parametrize(("role", "name"), ALONE)


def settings_alone(role: str, name: str) -> Settings:
    algo = validated(composed("algo=dense", f"algo/{role}={name}")).algo
    return settings_of("dense").model_copy(update={"algo": algo})


@alone
def test_an_option_without_a_composition_is_named_after_itself(role, name):
    assert settings_alone(role, name).algo.name == name


@alone
def test_a_full_budget_of_an_option_alone_is_dense_attention(role, name):
    system = build_system(settings_alone(role, name), SHAPE, FULL_BUDGET)
    assert_full_budget_is_dense(converse(system))


@alone
def test_an_option_alone_is_exact_over_what_it_reads_within_its_budget(role, name):
    system = converse(build_system(settings_alone(role, name), SHAPE, TIGHT_BUDGET))
    assert_within_budget(system)
    assert_answers_are_exact_over_what_was_read(system)


@alone
def test_an_option_alone_is_blind_to_batch_mates(role, name):
    settings = settings_alone(role, name)
    assert_blind_to_batch_mates(lambda: build_system(settings, SHAPE, TIGHT_BUDGET))
