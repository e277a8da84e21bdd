"""Every option in conf/ composes, validates, and makes the object it names."""

from importlib.util import find_spec

import pytest

from harness.build import build, build_algorithm, build_mapper, find
from harness.settings import Component, validated
from tests.laws.configs import CONF, PLACEMENTS, composed, options

# Read by W&B: no group of a run, see tests/harness/test_wandb_sweep.py.
SWEEPS = CONF / "sweeps"
GROUPS = sorted(
    str(folder.relative_to(CONF))
    for folder in CONF.rglob("*")
    if folder.is_dir() and folder != SWEEPS and list(folder.glob("*.yaml"))
)
EXPERIMENTS = options("experiment")
CHOICES = [(group, option) for group in GROUPS for option in options(group)]
# What a person has to fill in.
NEEDED = {("model", "hf"): ("model.path=models/bundled",)}


def targets(node) -> list[Component]:
    """Every component in a config."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    found = [one for part in parts for one in targets(part)]
    if isinstance(node, dict) and "_target_" in node:
        found.append(Component.model_validate(node))
    return found


@pytest.mark.parametrize(("group", "option"), CHOICES)
def test_every_option_validates(group, option):
    raw = composed(f"{group}={option}", *NEEDED.get((group, option), ()))
    settings = validated(raw)
    assert settings.model_dump(mode="json")
    for component in targets(raw):
        if component.target.startswith("harness.vllm_") and find_spec("vllm") is None:
            with pytest.raises(ValueError, match="make vllm"):
                find(component, group)
        else:
            assert find(component, group).__name__ == component.target.rpartition(".")[2]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds(experiment):
    settings = validated(composed(f"experiment={experiment}"))
    build_mapper(settings, build_algorithm(settings))
    assert build(settings.task, "task")


@pytest.mark.parametrize(("group", "key"), [("algo", "name"), ("tier", "name"), ("cache", "name")])
def test_an_option_carries_its_own_name(group, key):
    for option in options(group):
        assert composed(f"{group}={option}")[group][key] == option


def test_every_partition_option_serves_an_algorithm():
    assert {partition for _, partition in PLACEMENTS} == set(options("partition"))


def test_an_unknown_key_is_refused_by_its_name():
    raw = composed() | {"surprise": 1}
    with pytest.raises(ValueError, match=r"^surprise=1: [^\n]*$"):
        validated(raw)
