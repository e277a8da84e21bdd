"""RULER tasks built from conf/task, for the tests of RULER."""

from pathlib import Path

from omegaconf import OmegaConf

from harness.tasks.ruler import Ruler

ROOT = Path(__file__).parents[2]
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NOISE_LINE_TOKENS = 25


def settings(config, **changes):
    """The task of a conf/task YAML with some settings changed, as Hydra would build it."""
    node = OmegaConf.load(ROOT / "conf" / "task" / f"{config}.yaml")
    values = OmegaConf.to_container(node)
    assert values.pop("_target_") == "harness.tasks.ruler.Ruler"
    assert values.pop("_convert_") == "all"
    assert set(changes) <= set(values)
    return Ruler(**(values | changes))


def prompt(request):
    return request.context + request.question
