"""A cell of a sweep runs once, and however it ends the sweep has a record of it."""

import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.record import Verdict
from harness.stored.locks import cell_lock
from harness.stored.quarantine import QUARANTINE, REASON
from harness.stored.trials import COMPLETE, LOG, RECORD, Damaged, scan, trials, write_trial
from harness.sweeps.cells import run_job
from harness.sweeps.classified import classify
from harness.sweeps.job import Done, Job
from harness.sweeps.supervision import Ended, Limits
from tests.harness.toy_cells import Toy, aggregates, base_record, job, run_all, settings_of


def test_a_cell_that_went_well_is_not_run_again(tmp_path: Path) -> None:
    first, again = Toy(), Toy()
    ended = run_all(tmp_path, first)
    before = aggregates(trials(tmp_path))
    assert [done.status for done in ended] == ["ok"] * 4
    assert len(first.ran) == len(set(first.ran)) == len(before) == 4
    kept = run_all(tmp_path, again)
    assert again.ran == []
    assert [(done.was_kept, done.folder) for done in kept] == [(True, one.folder) for one in ended]
    assert aggregates(trials(tmp_path)) == before


def test_the_place_of_a_run_and_what_it_said_stand_in_its_trial(tmp_path: Path) -> None:
    run_all(tmp_path)
    cells = [one.record.cell for one in trials(tmp_path)]
    assert {(one.round, one.order, one.attempt) for one in cells if one} == {
        (0, 0, 0),
        (0, 1, 0),
        (1, 2, 0),
        (1, 3, 0),
    }
    assert [(one.folder / LOG).read_text() for one in trials(tmp_path)] == ["a word\n"] * 4


def test_other_code_is_measured_anew(tmp_path: Path) -> None:
    one = job(tmp_path)
    run_job(one, Toy(), Limits())
    toy = Toy()
    changed = replace(one, cell=one.cell.model_copy(update={"code": "d" * 64}))
    assert run_job(changed, toy, Limits()).was_kept is False
    assert len(toy.ran) == 1
    assert len(trials(tmp_path)) == 2


@pytest.mark.parametrize(
    ("code", "end", "says", "status", "words"),
    [
        (1, "exited", "Traceback\nValueError: no such thing\n", "failed", "no such thing"),
        (1, "exited", "MemoryError: no room\n", "oom", "no room"),
        (2, "exited", "kvloom: fits nowhere\n", "incompatible", "fits nowhere"),
        (-11, "exited", "", "crash", "SIGSEGV"),
        (139, "exited", "", "crash", "SIGSEGV"),
        (-9, "timeout", "", "timeout", "sweep.timeout_s=5"),
        (-9, "memory", "", "oom", "1.00 GiB"),
        (130, "interrupted", "", "interrupted", "stopped"),
    ],
)
def test_a_cell_that_ends_badly_is_recorded_as_what_it_was(
    tmp_path: Path, code: int, end: Any, says: str, status: str, words: str
) -> None:
    toy = Toy(code=code, end=end, says=says)
    done = run_job(job(tmp_path), toy, Limits(timeout_s=5, memory_bytes=2**20))
    (trial,) = trials(tmp_path)
    record = trial.record
    assert done.status == record.run.status == status
    assert words in record.errors[0].message
    assert not record.run.verdict.valid
    assert record.arms == {}
    assert record.system.requested_budget.tokens == 64
    assert (trial.folder / LOG).read_text() == says
    assert aggregates(trials(tmp_path)) == {}


def test_a_kill_by_the_kernel_for_memory_is_no_crash() -> None:
    ended = Ended(end="exited", code=-9, seconds=1, peak_bytes=0)
    assert classify(ended, Limits(), "", oom_killed=True)[0] == "oom"
    assert classify(ended, Limits(), "", oom_killed=False)[0] == "crash"
    as_shell = Ended(end="exited", code=137, seconds=1, peak_bytes=0)
    assert classify(as_shell, Limits(), "", oom_killed=True)[0] == "oom"


@pytest.mark.parametrize(
    ("rules", "code", "num_runs"),
    [
        ({}, 1, 2),
        ({"attempts": 3}, 1, 3),
        ({"retry": ()}, 1, 1),
        ({"retry": ("crash",)}, 1, 1),
        ({}, -11, 2),
        ({}, 2, 1),
        ({"retry": ("incompatible",)}, 2, 2),
        ({"retry": ("failed", "oom")}, 130, 4),
    ],
)
def test_what_failed_is_tried_again_as_the_rules_say(
    tmp_path: Path, rules: dict[str, Any], code: int, num_runs: int
) -> None:
    toy = Toy(code=code)
    for _ in range(4):
        done = run_job(job(tmp_path, **rules), toy, Limits())
    assert len(toy.ran) == num_runs
    assert done.was_kept == (num_runs < 4)
    attempts = sorted(one.record.cell.attempt for one in trials(tmp_path) if one.record.cell)
    assert attempts == list(range(num_runs))


def test_a_failure_never_shadows_what_went_well(tmp_path: Path) -> None:
    run_job(job(tmp_path), Toy(code=1), Limits())
    assert run_job(job(tmp_path), Toy(), Limits()).status == "ok"
    toy = Toy(code=1)
    assert run_job(job(tmp_path), toy, Limits()).was_kept
    assert toy.ran == []


def test_a_damaged_trial_is_put_away_with_the_reason_and_run_again(tmp_path: Path) -> None:
    done = run_job(job(tmp_path), Toy(), Limits())
    before, bad = aggregates(trials(tmp_path)), Path(str(done.folder))
    (bad / RECORD).write_bytes((bad / RECORD).read_bytes()[:-9])
    again = run_job(job(tmp_path), Toy(), Limits())
    assert not again.was_kept
    assert aggregates(trials(tmp_path)) == before
    assert not any(isinstance(one, Damaged) for one in scan(tmp_path))
    away = tmp_path / QUARANTINE / bad.relative_to(tmp_path)
    assert "is not what was written" in (away / REASON).read_text()
    assert (away / COMPLETE).exists()


def test_a_cell_that_is_running_elsewhere_is_passed_over_or_waited_for(tmp_path: Path) -> None:
    here = job(tmp_path)
    toy = Toy(meanwhile=lambda: seen.append(run_job(here, Toy(), Limits())))
    seen: list[Done] = []
    assert run_job(here, toy, Limits()).status == "ok"
    assert [one.status for one in seen] == ["busy"]
    with cell_lock(here.folder, wait=False) as is_ours:
        assert is_ours
        late = Toy()
        waiting = threading.Thread(
            target=lambda: seen.append(run_job(job(tmp_path, wait=True), late, Limits()))
        )
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(20)
    assert (seen[-1].was_kept, late.ran) == (True, [])


def test_two_processes_on_one_store_never_run_a_cell_twice(tmp_path: Path) -> None:
    settings_of(64), settings_of(128)
    context = multiprocessing.get_context("fork")
    start = context.Event()
    both = [context.Process(target=sweep_on, args=(start, tmp_path)) for _ in range(3)]
    for one in both:
        one.start()
    start.set()
    for one in both:
        one.join(60)
        assert one.exitcode == 0
    found = aggregates(trials(tmp_path))
    assert len(found) == 4
    assert [len(scores) for scores in found.values()] == [1] * 4


def sweep_on(start: Any, root: Path) -> None:
    start.wait()
    pause = threading.Event()
    ended = run_all(root, Toy(meanwhile=lambda: pause.wait(0.05)))
    while any(one.status == "busy" for one in ended):
        ended = run_all(root, Toy(meanwhile=lambda: pause.wait(0.05)))


def test_numbers_that_may_not_be_used_are_told_of_as_such(tmp_path: Path) -> None:
    def spoiled(one: Job, into: Path, log: Path, limits: Limits) -> Ended:
        run = base_record(64).run.model_copy(
            update={"verdict": Verdict(valid=False, reasons=("answers are shorter",))}
        )
        write_trial(base_record(64).model_copy(update={"run": run, "cell": one.cell}), into)
        return Ended(end="exited", code=0, seconds=1, peak_bytes=0)

    done = run_job(job(tmp_path), spoiled, Limits())
    assert done.words.startswith("ok, not valid ")
    assert done.words.endswith("answers are shorter")
    assert run_job(job(tmp_path), spoiled, Limits()).words == "ok, not valid, kept"
