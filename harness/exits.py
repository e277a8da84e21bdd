"""How the harness ends: exit codes, and the one line on stderr that goes with them."""

import sys

from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf.errors import MissingMandatoryValue

OK, USAGE, NOTHING, FAILED, INTERRUPTED = 0, 2, 3, 4, 130


def complain(message: str) -> None:
    """Say what is off, in one line."""
    print(f"kvloom: {' '.join(message.split())}", file=sys.stderr)


def one_line(error: Exception) -> str:
    """The message of an error, Hydra's cut to what a user can act on."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set; give {error.full_key}=..."
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        names = ", ".join(one for one in error.options if "/" not in one)
        return f"{group}={name} is unknown; choose {group}={names}"
    first = str(error).strip().splitlines()[0].rstrip(".")
    if isinstance(error, ConfigCompositionException):
        return f"{first}: there is no such key; --cfg job prints all keys"
    return first
