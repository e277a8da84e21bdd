"""Building RULER's prompts: ours against lm-eval's generators, same tokenizer, same run.

python -m benchmarks.ruler_building [samples] [length]

The tasks are those that lm-eval builds without a network. It needs the extra `eval`; what lm-eval
does once on import (a list of 6 million keys) is told apart. Both build anew each time, in one
process. Batches of texts go through the threads of `tokenizers`, which only we use: the ratio is
told of wall time and of the CPU time of all threads. The prompts of all 13 tasks are then kept, and
read again here and by processes that start cold.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from rich.console import Console
from transformers import AutoTokenizer

from benchmarks.rounds import interleave, ratio, save, show
from benchmarks.ruler_kept import ours
from harness.sources import ROOT
from harness.tasks.ruler13 import TASKS, Ruler13

NUM_ROUNDS = 3
NIAH_COMMON: Mapping[str, Any] = {"type_needle_k": "words", "type_needle_v": "numbers"}
NIAH: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "niah_single_1": ("repeat", NIAH_COMMON),
    "niah_multikey_2": ("needle", NIAH_COMMON),
    "niah_multikey_3": ("needle", {"type_needle_k": "uuids", "type_needle_v": "uuids"}),
}


def theirs(tokenizer: Any, samples: int, length: int) -> dict[str, Callable[[], Any]]:
    """lm-eval's generators, by our names of the tasks."""
    from lm_eval.tasks.ruler import cwe_utils, fwe_utils, niah_utils, prepare_niah, vt_utils

    def niah(task: str) -> Any:
        kind, needles = NIAH[task]
        return prepare_niah.generate_samples(
            prepare_niah.get_haystack(kind),  # type: ignore[arg-type]
            tokenizer,
            max_seq_length=length,
            type_haystack=kind,
            template=niah_utils.TEMPLATE,
            num_samples=samples,
            **needles,
        )

    def vt() -> Any:
        build = vt_utils.sys_vartrack_w_noise_random
        example = build(tokenizer, num_samples=1, max_seq_length=500, incremental=5)[0]
        return build(tokenizer, num_samples=samples, max_seq_length=length, icl_example=example)

    return {
        **{task: lambda task=task: niah(task) for task in NIAH},
        "vt": vt,
        "cwe": lambda: cwe_utils.sys_word_pair_random(samples, length, tokenizer),
        "fwe": lambda: fwe_utils.sys_kwext(tokenizer, length, samples),
    }


def timed(build: Callable[[], Any], samples: int, cpu_ms: list[float]) -> Callable[[], float]:
    """Milliseconds of one call, whose progress bars nobody sees; cpu_ms: of each call."""

    def run() -> float:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            started_s, used_s = perf_counter(), process_time()
            built = build()
            elapsed_ms = (perf_counter() - started_s) * 1e3
            cpu_ms.append((process_time() - used_s) * 1e3)
        assert len(built) == samples, f"{len(built)} of {samples} samples were built"
        return elapsed_ms

    return run


def main(arguments: list[str]) -> None:
    """Print the table, and keep it."""
    samples, length = (int(word) for word in [*arguments, *("100", "8192")[len(arguments) :]])
    console = Console()
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "bundled")
    started_s = perf_counter()
    with redirect_stdout(io.StringIO()):
        peer = theirs(tokenizer, samples, length)
    import_s = perf_counter() - started_s
    task = ours(samples, length)
    rows, cpu_rows = {}, {}
    for name, build in peer.items():
        mine = replace(task, tasks=[name])
        arms = {"lm-eval": build, "ours": lambda mine=mine: mine.requests(tokenizer)}
        cpu: dict[str, list[float]] = {arm: [] for arm in arms}
        calls = {arm: timed(call, samples, cpu[arm]) for arm, call in arms.items()}
        rows[name] = interleave(calls, NUM_ROUNDS)
        # The first round does not count.
        cpu_rows[name] = {arm: times[1:] for arm, times in cpu.items()}
    rows["all of these"], cpu_rows["all of these"] = summed(rows), summed(cpu_rows)
    title = f"Building {samples} prompts of {length} tokens a task"
    show(title, rows, console)
    faster = {
        "wall": 1 / ratio(rows["all of these"], "ours", "lm-eval"),
        "cpu": 1 / ratio(cpu_rows["all of these"], "ours", "lm-eval"),
    }
    console.print(
        f"ours is {faster['wall']:.1f} times faster, {faster['cpu']:.1f} in CPU time; "
        f"import of lm-eval's: {import_s:.1f} s, once"
    )
    kept = keep_and_read(task, tokenizer)
    console.print(
        f"all 13 tasks: {kept['built']:.1f} s with the processes that pay, {kept['read']:.2f} s "
        f"kept; a cold process: {kept['cold']['requests_s']:.2f} s for the requests, "
        f"{kept['cold']['process_s']:.2f} s with the start of Python, imports and tokenizer, "
        f"{kept['cold']['cpu_s']:.2f} s of CPU time in all"
    )
    save(
        ROOT / "build" / "bench" / "ruler_building.json",
        title,
        rows,
        cpu_ms=cpu_rows,
        times_faster=faster,
        rayon_threads=os.environ.get("RAYON_NUM_THREADS"),
        import_s=import_s,
        thirteen_s=kept,
    )


def summed(rows: Mapping[str, Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """All tasks of each round."""
    return {
        arm: [sum(times) for times in zip(*(row[arm] for row in rows.values()), strict=True)]
        for arm in ("lm-eval", "ours")
    }


def keep_and_read(task: Ruler13, tokenizer: Any) -> dict[str, Any]:
    """Seconds to build all tasks and keep them, to read them again, and in cold processes."""
    with tempfile.TemporaryDirectory() as folder:
        kept = replace(task, cache=str(Path(folder)), workers=None)
        seconds: dict[str, Any] = {}
        for name in ("built", "read"):
            started_s = perf_counter()
            requests = kept.requests(tokenizer)
            seconds[name] = perf_counter() - started_s
            assert len(requests) == len(TASKS) * task.num_samples
        content = tokenizer.backend_tokenizer.to_str()
        (Path(folder) / "tokenizer.json").write_text(content, encoding="utf-8")
        rounds = [cold(task, folder) for _ in range(NUM_ROUNDS)]
    seconds["cold"] = {part: median(one[part] for one in rounds) for part in rounds[0]}
    return seconds


def cold(task: Ruler13, folder: str) -> dict[str, float]:
    """Seconds of a process that finds all prompts kept, and of its parts."""
    words = [folder, str(task.num_samples), str(task.length)]
    command = [sys.executable, "-m", "benchmarks.ruler_kept", *words]
    started_s = perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    parts: dict[str, float] = json.loads(done.stdout)
    assert "prompts" not in done.stderr, "it built what is kept"
    return {**parts, "process_s": perf_counter() - started_s}


if __name__ == "__main__":
    main(sys.argv[1:])
