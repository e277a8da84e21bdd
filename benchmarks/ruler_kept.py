"""One process that reads RULER's kept prompts as a second run does: seconds of its parts, in JSON.

python -m benchmarks.ruler_kept FOLDER samples length      FOLDER also holds tokenizer.json

It loads what making prompts takes: a run with a model also imports torch and transformers.
"""

import json
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.tasks.ruler13 import Ruler13


def main(arguments: list[str]) -> None:
    """Print the seconds, and how many requests were read."""
    folder, samples, length = arguments
    started_s = perf_counter()
    from harness.tasks.building import Plain

    task = ours(int(samples), int(length), cache=folder)
    imported_s = perf_counter()
    tokenizer = Plain((Path(folder) / "tokenizer.json").read_text())
    loaded_s = perf_counter()
    requests = task.requests(tokenizer)
    seconds = {
        "imports_s": imported_s - started_s,
        "tokenizer_s": loaded_s - imported_s,
        "requests_s": perf_counter() - loaded_s,
        "cpu_s": process_time(),
    }
    print(json.dumps({**seconds, "num_requests": len(requests)}))


def ours(samples: int, length: int, cache: str | None = None) -> "Ruler13":
    """All tasks, built in one process where they are not kept."""
    from harness.tasks.ruler13 import TASKS, Ruler13

    return Ruler13(
        tasks=TASKS,
        length=length,
        max_new_tokens=None,
        num_samples=samples,
        seed=42,
        essays="offline",
        sentences="rule",
        squad="offline",
        hotpotqa="offline",
        workers=1,
        cache=cache,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
