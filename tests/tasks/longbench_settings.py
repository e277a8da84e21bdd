"""LongBench with the settings of its YAML, over data and prompts of ours in its format."""

from pathlib import Path

from omegaconf import OmegaConf

from harness.tasks.longbench import LongBench

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "data" / "longbench"
PROMPTS = FOLDER / "dataset2prompt.json"


def settings(config="longbench", **changes):
    content = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "task" / f"{config}.yaml"))
    values = {key: value for key, value in content.items() if key[0] != "_"}
    values |= {"path": str(FOLDER), "prompts": str(PROMPTS)} | changes
    return LongBench(**values)
