"""The gate's run: its counters and answers are the same whatever computes attention."""

from pathlib import Path

import pytest

from harness.comparing.accuracy import scored
from harness.comparing.counters import counters_of
from harness.comparing.sides import arm_of, load, samples_of
from harness.tracking.commands import GATE_RUN
from tests.harness.cli_runs import run

# The whole of it, compared once by hand, agrees too; this is what a test can afford.
LESS = ("task.num_samples=1", "task.tasks=[niah_multikey_1]", "task.max_new_tokens=16")


@pytest.mark.slow
def test_counters_and_answers_of_the_gate_do_not_depend_on_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    for kernel in ("torch", "cpu-cpp"):
        words = (*GATE_RUN, f"backend.kernel={kernel}", *LESS)
        code, _ = run(words, tmp_path / kernel, monkeypatch)
        assert code == 0
        (trial,) = load(tmp_path / kernel).trials
        arm = arm_of(trial.record, None)
        assert arm is not None
        assert trial.record.system.backend.kernel == kernel
        seen[kernel] = (counters_of(arm), scored(samples_of(trial, None)))
    counters, answers = seen["torch"]
    assert seen["cpu-cpp"] == (counters, answers)
    # The counters have something to say: pages moved, were missed, and some were not read.
    assert counters["kv_bytes_moved_cpu_to_hbm"].value
    assert counters["kv_cache_hit_rate"].value < 1  # type: ignore[operator]
    assert counters["achieved_sparsity"].value > 0  # type: ignore[operator]
    assert answers
