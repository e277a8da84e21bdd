"""`vllm serve` in this process, once nothing is known that stands against the composed system."""

import sys
from collections.abc import Sequence

from backends.vllm.checks import WORKER, check
from backends.vllm.compat import command_line
from backends.vllm.reason import tell

REFUSED = 2


def main(words: Sequence[str]) -> int:
    """What `vllm WORDS` does, with the worker that serves the composed system or not at all."""
    try:
        check(words)
    except (ValueError, NotImplementedError, OSError) as error:
        tell(error)
        return REFUSED
    command_line([*words, "--worker-cls", WORKER])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
