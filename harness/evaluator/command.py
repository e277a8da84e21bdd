"""`kvloom-lm-eval`: the command line of lm-eval, which then knows the model `kvloom`."""

import sys

from harness.evaluator import library
from harness.evaluator.library import UnusableError
from harness.evaluator.model import model_class
from harness.exits import OK, USAGE, complain


def main() -> int:
    """What `lm-eval` does; 2 and one line for a system that cannot be composed."""
    try:
        model_class()
        library.command_line()
    except UnusableError as error:
        complain(str(error))
        return USAGE
    return OK


if __name__ == "__main__":
    sys.exit(main())
