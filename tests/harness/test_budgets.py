"""A budget means the same in tokens and in bytes, for every role."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.budgets import effective_tokens, in_tokens
from harness.build import build_algorithm
from harness.settings import Settings
from tests.harness.cli_runs import SMALL, run
from tests.laws.configs import ALGORITHMS, settings_of
from tests.laws.system import Shape, algorithm_with

INFO = Shape(layers=4, kv_heads=2, head_dim=16).info
# A key and a value in float32, in 4 layers and 2 kv heads.
TOKEN_BYTES = 4 * 2 * 2 * 16 * 4
ROLES = [
    (algo, role)
    for algo in ALGORITHMS
    for role in ("evict", "retrieve")
    if getattr(algorithm_with(settings_of(algo), None), role) is not None
]
roles = pytest.mark.parametrize(("algo", "role"), ROLES)


def wishing(algo: str, role: str, wish: object) -> Settings:
    """Settings with this budget."""
    settings = settings_of(algo)
    component = getattr(settings.algo, role).model_copy(update={"budget_tokens": wish})
    return settings.model_copy(update={"algo": settings.algo.model_copy(update={role: component})})


def tokens_of(settings: Settings, role: str) -> object:
    return getattr(settings.algo, role).arguments["budget_tokens"]


@roles
def test_bytes_are_the_tokens_that_they_hold(algo: str, role: str) -> None:
    for extra, tokens in ((0, 200), (TOKEN_BYTES - 1, 200), (TOKEN_BYTES, 201)):
        settings = in_tokens(wishing(algo, role, f"{200 * TOKEN_BYTES + extra}B"), INFO)
        assert tokens_of(settings, role) == tokens
        algorithm = build_algorithm(settings)
        assert effective_tokens(algorithm, 10**6)[role] == tokens
        assert effective_tokens(algorithm, 150)[role] == 150


@roles
def test_the_least_budget_that_is_named_is_enough_and_no_less(algo: str, role: str) -> None:
    with pytest.raises(ValueError, match="raise it to") as refusal:
        in_tokens(wishing(algo, role, "1B"), INFO)
    named = str(refusal.value).rpartition("raise it to ")[2]
    settings = in_tokens(wishing(algo, role, named), INFO)
    built = getattr(build_algorithm(settings), role)
    assert built.budget_tokens >= built.least_budget
    with pytest.raises(ValueError, match="the least is"):
        in_tokens(wishing(algo, role, f"{built.least_budget * TOKEN_BYTES - 1}B"), INFO)


def test_layers_that_the_algorithm_does_not_serve_take_nothing() -> None:
    settings = wishing("quest", "retrieve", f"{200 * TOKEN_BYTES}B")
    half = settings.model_copy(
        update={"algo": settings.algo.model_copy(update={"dense_layers": 1})}
    )
    windowed = replace(INFO, windowed_layers=frozenset({0, 2}), window=20)
    assert tokens_of(in_tokens(half, windowed), "retrieve") == 400
    narrow = replace(INFO, dtype=torch.bfloat16)
    assert tokens_of(in_tokens(settings, narrow), "retrieve") == 400


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.none()))
def test_what_is_no_text_is_left_to_the_algorithm(wish: object) -> None:
    settings = wishing("quest", "retrieve", wish)
    assert in_tokens(settings, INFO).algo.retrieve is settings.algo.retrieve


@pytest.mark.parametrize("wish", ["much", "auto", "256", "0.05", "1 token", "MiB", "-1MiB", ""])
def test_text_that_is_no_size_is_refused(wish: str) -> None:
    with pytest.raises(ValueError, match=r"algo\.retrieve\.budget_tokens='.* 4MiB|\(4MiB\)"):
        in_tokens(wishing("quest", "retrieve", wish), INFO)


def test_a_record_holds_the_tokens_that_bytes_became(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("algo=streaming", "algo/retrieve=quest", "algo.evict.budget_tokens=1.5MiB",
            "algo.retrieve.budget_tokens=384KiB")  # fmt: skip
    code, (record,) = run((*SMALL, *both), tmp_path, monkeypatch)
    assert code == 0
    effective = record["config"]["effective"]
    assert effective["streaming"]["budget_tokens"] == {"evict": 256, "retrieve": 64}
    assert effective["dense"]["budget_tokens"] == {}
    assert record["system"]["requested_budget"]["tokens"] == 64
    assert record["config"]["resolved"]["algo"]["retrieve"]["budget_tokens"] == "384KiB"
    read = record["arms"]["streaming"]["metrics"]["kv_read_bytes_per_decode_step"]["value"]
    # Whole pages are read: a row that is not full of sinks and recents touches one more.
    assert 0.8 * 384 * 1024 <= read <= 1.3 * 384 * 1024
