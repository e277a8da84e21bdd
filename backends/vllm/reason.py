"""Why an engine does not come up, for who started it: its processes log much, and end with 1."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Names a file in the environment; where it names none, nobody waits for a reason.
FILE = "KVLOOM_REASON_FILE"


def tell(error: Exception) -> None:
    """Leave the message of an error to who waits for it; the first one is the reason."""
    if (path := os.environ.get(FILE)) and not Path(path).exists():
        Path(path).write_text(str(error))


@contextmanager
def told() -> Iterator[None]:
    """Tell of a ValueError, which goes on its way."""
    try:
        yield
    except ValueError as error:
        tell(error)
        raise
