"""The workflow and the Makefile ask for nothing that is not there."""

import re
from pathlib import Path

import yaml

from harness.comparing.command import COMMANDS
from harness.comparing.options import listed, parse

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "kvloom.yml"


def scripts() -> list[str]:
    """Every command line of every job."""
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def test_every_target_that_a_job_makes_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    made = {name for one in scripts() for name in re.findall(r"\bmake (?:-k )?([a-z-]+)", one)}
    assert made >= {"check", "test", "gate"}
    assert made <= targets


def test_every_comparison_that_a_job_asks_for_is_understood() -> None:
    asked = [one for script in scripts() for one in re.findall(r"compare\.py (.*)", script)]
    assert asked
    for words in map(str.split, asked):
        assert words[0] in COMMANDS
        parse([word for word in words[1:] if "=" in word])


def test_overrides_of_a_run_may_hold_lists_of_their_own() -> None:
    assert listed("[a=1,b=[2,3],c={d: 4, e: 5}]") == ["a=1", "b=[2,3]", "c={d: 4, e: 5}"]
    assert listed("a=1") == ["a=1"]
    options = parse(["run=[algo=quest,task.tasks=[vt,niah]]", "rounds=10", "--", "tier=hbm"])
    assert options.run == ("algo=quest", "task.tasks=[vt,niah]", "tier=hbm")
    assert options.rounds == 10
