"""Where Hydra looks for plug-ins; the package has no `__init__`, as others share its name."""

from harness.sweeps.sweeper import CellSweeper


class KvloomSweeper(CellSweeper):
    """See CellSweeper."""
