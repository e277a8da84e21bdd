"""A cell that is to be run, and how that went."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.record import Cell, RunStatus
from harness.settings import Settings
from harness.stored.identity import SHORT

# Beside those of a record: a cell that another process is running.
Status = RunStatus | Literal["busy"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Overrides of a command line, what they compose to, and the cell that this is."""

    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    settings: Settings
    cell: Cell

    @property
    def store(self) -> Path:
        """The root that its trial goes to."""
        return Path(self.settings.results)

    @property
    def folder(self) -> Path:
        """Where the trials of its cell are."""
        return self.store / self.cell.experiment / self.cell.hash[:SHORT]

    def tried(self, attempt: int) -> "Job":
        """The same, tried before as often as `attempt` says."""
        return replace(self, cell=self.cell.model_copy(update={"attempt": attempt}))


@dataclass(frozen=True, kw_only=True)
class Done:
    """How a cell went. was_kept: it was there already; folder: of its trial, if one was written.

    is_valid: whether its numbers may be used, as far as there are any.
    """

    label: str
    order: int
    status: Status
    was_kept: bool
    seconds: float
    folder: str | None
    message: str = ""
    is_valid: bool = True

    @property
    def verdict(self) -> str:
        """The status, and whether what was measured may be used."""
        return "ok, not valid" if self.status == "ok" and not self.is_valid else self.status

    @property
    def words(self) -> str:
        """The end of a line of progress."""
        if self.status == "busy":
            return "runs in another process"
        if self.was_kept:
            return "kept" if self.verdict == "ok" else f"{self.verdict}, kept"
        words = f"{self.verdict} {self.seconds:.0f} s"
        return f"{words}: {self.message}" if self.message else words


def label_of(settings: Settings) -> str:
    """The system of a cell in a few words: algorithm, budget, tiers."""
    budget = settings.algo.budget
    parts = (settings.algo.name, "" if budget is None else str(budget), settings.tier.name)
    return " ".join(part for part in parts if part)
