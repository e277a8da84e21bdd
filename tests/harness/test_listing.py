"""What can be chosen is told in one line each, without waiting for torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness import listing
from tests.laws.configs import CONF, composed

ROOT = Path(__file__).resolve().parents[2]


def printed(capsys: pytest.CaptureFixture[str], *groups: str) -> list[str]:
    assert listing.main(["--list", *groups]) == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_every_option_is_listed_with_a_meaning_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed(capsys)
    # Sweeps are for another program to read: nothing of a run can be chosen among them.
    files = [
        path.relative_to(CONF)
        for path in CONF.glob("*/**/*.yaml")
        if path.parent != CONF / "sweeps"
    ]
    named = {line.split()[0]: line.partition("  ")[2].strip() for line in lines[:-1]}
    assert set(named) == {f"{path.parent.as_posix()}={path.stem}" for path in files}
    assert len(lines) == len(files) + 1
    assert [name for name, meaning in named.items() if len(meaning) < 10] == []
    assert [name for name, meaning in named.items() if not meaning.isascii()] == []


def test_a_group_brings_its_roles_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "algo")[:-1]
    assert {line.split("=")[0] for line in lines} == {
        "algo", "algo/prefill", "algo/evict", "algo/retrieve"
    }  # fmt: skip
    (quest,) = [line for line in lines if line.startswith("algo=quest")]
    assert "arXiv:2406.10774" in quest and quest.split()[1] == "*"
    lines = printed(capsys, "cache", "tier")[:-1]
    assert {line.split("=")[0] for line in lines} == {"cache", "tier"}


def test_the_marked_options_are_those_of_a_plain_run() -> None:
    chosen = {one.group: one.name for one in listing.options() if one.is_default}
    plain = composed()
    for group in ("algo", "tier", "cache", "partition", "budget", "backend", "load", "protocol"):
        assert plain[group]["name"] == chosen[group]
    assert "algo/retrieve" not in chosen


def test_a_composition_means_its_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CONF", tmp_path)
    for role, name in (("evict", "streaming"), ("retrieve", "quest")):
        (tmp_path / "algo" / role).mkdir(parents=True)
        text = (CONF / "algo" / role / f"{name}.yaml").read_text()
        (tmp_path / "algo" / role / f"{name}.yaml").write_text(text)
    both = tmp_path / "algo" / "both.yaml"
    both.write_text("defaults:\n- prefill: none\n- evict: streaming\n- retrieve: quest\n- _self_\n")
    first, second = listing.meaning(both).split("; ")
    assert first.startswith("StreamingLLM") and second.startswith("Quest")


def test_an_unknown_group_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["--list", "tiers"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("kvloom: --list tiers: no such group; choose algo, ")
    assert shown.err.count("\n") == 1


def test_listing_does_not_wait_for_torch() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--list', 'probe']; import runpy\n"
        "try: runpy.run_path('harness/run.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("probe=off *")
