"""How the threads of a measuring process wait, said before torch is loaded."""

import os
import sys


def wait_without_spinning() -> None:
    """Unless the environment says otherwise: on shared cores spinning costs several times the work.

    libgomp looks once, as torch loads it; later the word would be written down and not in force.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
