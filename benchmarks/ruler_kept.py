"""One process that reads RULER's kept prompts as a second run does: seconds of its parts, in JSON.

python -m benchmarks.ruler_kept FOLDER samples length
"""

import json
import sys
from time import perf_counter


def main(arguments: list[str]) -> None:
    """Print the seconds, and how many requests were read."""
    folder, samples, length = arguments
    started_s = perf_counter()
    from transformers import AutoTokenizer

    from benchmarks.ruler_building import ours
    from harness.sources import ROOT

    imported_s = perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models" / "bundled")
    loaded_s = perf_counter()
    requests = ours(tokenizer, int(samples), int(length), cache=folder).requests(tokenizer)
    seconds = {
        "imports_s": imported_s - started_s,
        "tokenizer_s": loaded_s - imported_s,
        "requests_s": perf_counter() - loaded_s,
    }
    print(json.dumps({**seconds, "num_requests": len(requests)}))


if __name__ == "__main__":
    main(sys.argv[1:])
