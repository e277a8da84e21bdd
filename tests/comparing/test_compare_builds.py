"""`compare base=git:<rev>`: the same path as with real runs, over a toy that costs nothing."""

import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.comparing.command import main
from harness.comparing.finding import Comparison
from harness.comparing.launching import RunFailedError, launch
from tests.comparing.made import Toy, git, repository

SLOW, DOCS = ("1.0", "1.2"), ("1.0", "1.0")


def compared(
    tmp_path: Path, speeds: tuple[str, ...], toy: Toy, *words: str
) -> tuple[int, Comparison]:
    """The exit code of a comparison with the commit before, and its verdict."""
    out, tree = tmp_path / "out", repository(tmp_path / "repo", *speeds)
    given = ["base=git:HEAD~1", f"out={out}", f"baselines={tmp_path / 'baselines'}", *words]
    code = main(given, toy, tree)
    return code, Comparison.model_validate_json((out / "verdict.json").read_text())


def found(comparison: Comparison, metric: str) -> str:
    """The class of a metric."""
    (finding,) = [one for one in comparison.findings if one.metric == metric]
    return finding.found


def test_a_slower_commit_is_caught_and_confirmed(tmp_path: Path) -> None:
    toy = Toy()
    code, verdict = compared(tmp_path, SLOW, toy)
    assert code == verdict.exit_code == 1
    assert found(verdict, "median_tpot_ms") == found(verdict, "median_ttft_ms") == "regression"
    (tpot,) = [one for one in verdict.findings if one.metric == "median_tpot_ms"]
    assert tpot.change == pytest.approx(0.2, abs=0.02)
    assert len(toy.launched) == 2 * (1 + 8 + 8)
    assert {len(values) for values in verdict.rounds["median_tpot_ms"].values()} == {16}


def test_a_commit_of_words_passes_without_a_second_look(tmp_path: Path) -> None:
    toy = Toy()
    code, verdict = compared(tmp_path, DOCS, toy)
    assert code == verdict.exit_code == 0
    assert found(verdict, "median_tpot_ms") == "unchanged"
    assert found(verdict, "accuracy") == "unchanged"
    assert found(verdict, "kv_read_bytes_per_decode_step") == "unchanged"
    assert len(toy.launched) == 2 * (1 + 8)


def test_a_faster_commit_is_an_improvement(tmp_path: Path) -> None:
    code, verdict = compared(tmp_path, ("1.0", "0.8"), Toy())
    assert code == 0
    assert found(verdict, "median_tpot_ms") == "improvement"


def test_changes_that_are_not_committed_are_compared_too(tmp_path: Path) -> None:
    tree = repository(tmp_path / "repo", "1.0")
    (tree / "speed.txt").write_text("1.2")
    words = ["base=git:HEAD", f"out={tmp_path / 'out'}", f"baselines={tmp_path}"]
    assert main(words, Toy(), tree) == 1
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert verdict["candidate"]["dirty"] is True
    assert verdict["base"]["sha"] == verdict["candidate"]["sha"]


def test_sides_take_turns_and_a_base_runs_in_a_tree_of_its_own(tmp_path: Path) -> None:
    toy = Toy()
    compared(tmp_path, DOCS, toy)
    base, candidate = toy.launched[0], toy.launched[1]
    assert candidate == tmp_path / "repo"
    assert not base.is_relative_to(candidate)
    counted = ["base" if tree == base else "candidate" for tree in toy.launched[2:6]]
    assert counted == ["base", "candidate", "candidate", "base"]


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_whoever_stops_it_finds_no_worktree_left(
    tmp_path: Path, number: int, signalled: signal.Signals
) -> None:
    class Stopped(Toy):
        def __call__(self, tree, overrides, timeout_s):  # type: ignore[no-untyped-def]
            if len(self.launched) + 1 == number:
                assert len(git(tmp_path / "repo", "worktree", "list").splitlines()) == 2
                signal.raise_signal(signalled)
            return super().__call__(tree, overrides, timeout_s)

    before = signal.getsignal(signalled)
    tree = repository(tmp_path / "repo", *DOCS)
    assert main(["base=git:HEAD~1", f"baselines={tmp_path}"], Stopped(), tree) == 130
    assert len(git(tree, "worktree", "list").splitlines()) == 1
    assert signal.getsignal(signalled) == before


def test_no_worktree_is_left_when_all_is_well(tmp_path: Path) -> None:
    toy = Toy()
    compared(tmp_path, DOCS, toy)
    assert not toy.launched[0].exists()
    assert len(git(tmp_path / "repo", "worktree", "list").splitlines()) == 1


def test_a_side_that_cannot_run_fails_at_once(tmp_path: Path) -> None:
    toy = Toy(failing={2: RunFailedError("no compiler")})
    code, verdict = compared(tmp_path, DOCS, toy)
    assert code == 4
    assert len(toy.launched) == 2
    assert [(one.found, one.detail) for one in verdict.findings] == [("errored", "no compiler")]


def test_a_run_that_dies_is_never_passed_over_nor_read_as_zero(tmp_path: Path) -> None:
    toy = Toy(failing={6: RunFailedError("killed")})
    code, verdict = compared(tmp_path, DOCS, toy)
    assert code == 4
    (tpot,) = [one for one in verdict.findings if one.metric == "median_tpot_ms"]
    assert tpot.n == 7
    assert tpot.found in ("unchanged", "inconclusive")


def test_a_revision_that_is_not_there_is_the_users_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = repository(tmp_path / "repo", "1.0")
    assert main(["base=git:nowhere"], Toy(), tree) == 2
    assert capsys.readouterr().err == "kvloom: git:nowhere: no such revision\n"


def test_noise_of_one_build_is_kept_with_its_source_and_widens_the_margin(tmp_path: Path) -> None:
    baselines, tree = tmp_path / "baselines", repository(tmp_path / "repo", *SLOW)
    words = [f"baselines={baselines}", "run=[algo=quest]"]
    assert main(["aa", *words], Toy(noise=0.5), tree) == 0
    (row,) = [json.loads(line) for line in (baselines / "noise.jsonl").read_text().splitlines()]
    assert row["noise"]["median_tpot_ms"] > 0.05
    assert row["source"] == "8 A/A rounds of algo=quest"
    out = tmp_path / "out"
    assert main(["base=git:HEAD~1", f"out={out}", *words], Toy(), tree) == 0
    verdict = Comparison.model_validate_json((out / "verdict.json").read_text())
    (tpot,) = [one for one in verdict.findings if one.metric == "median_tpot_ms"]
    assert tpot.margin == pytest.approx(row["noise"]["median_tpot_ms"])
    assert "8 A/A rounds" in " ".join(verdict.notes)


def test_a_run_is_given_its_tree_and_its_last_words_are_kept(tmp_path: Path) -> None:
    script = "import os, sys; sys.exit(f'{os.environ[\"PYTHONPATH\"]} {sys.argv[1]}')"
    with pytest.raises(RunFailedError, match=f"{tmp_path} algo=quest"):
        launch(program(tmp_path, script), ["algo=quest"], 60)


def test_a_run_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = (
        "import pathlib, subprocess, sys, time\n"
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(RunFailedError, match="no end after 2 s"):
        launch(program(tmp_path, script), [], 2)
    child = int((tmp_path / "child").read_text())
    deadline_s = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def program(tree: Path, script: str) -> Path:
    """A tree whose run does this."""
    (tree / "harness").mkdir()
    (tree / "harness" / "run.py").write_text(script)
    return tree
