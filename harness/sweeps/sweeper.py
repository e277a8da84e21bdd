"""Hydra's sweeper, with rounds, resumption, progress and a table: cells that fail stop nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NoReturn

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console

from harness.composing import resolved
from harness.exits import FAILED, INTERRUPTED, NOTHING, OK, USAGE, complain
from harness.settings import Settings, validated
from harness.sweeps.display import Tell, display
from harness.sweeps.job import Done, label_of
from harness.sweeps.summary import print_summary

PLUGIN = "hydra_plugins.kvloom.KvloomSweeper"
# What `label_of` tells already.
IN_LABEL = ("algo", "tier", "algo.retrieve.budget_tokens", "algo.evict.budget_tokens")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run of a cell: what to call it, its place in the sweep, and the words for it."""

    label: str
    overrides: tuple[str, ...]
    order: int

    def words(self, *more: str) -> list[str]:
        """Overrides of the job."""
        return [*self.overrides, f"sweep.order={self.order}", *more]


class CellSweeper(Sweeper):
    """Runs a grid in rounds that alternate their direction; ends by SystemExit with the code.

    params: sweeps that an experiment asks for by itself; the command line changes them.
    """

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """See Sweeper."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> NoReturn:
        """See Sweeper."""
        planned = self._planned(arguments)
        if not planned:
            complain(f"no cell to run: {' '.join(arguments)} matches nothing")
            raise SystemExit(NOTHING)
        console, ended = Console(), dict[int, Done]()
        try:
            self._run(planned, ended, console)
        except KeyboardInterrupt:
            complain("stopped; the same command goes on from here")
            print_summary(list(ended.values()), console)
            raise SystemExit(INTERRUPTED) from None
        print_summary([ended[one.order] for one in planned], console)
        raise SystemExit(OK if all(one.status == "ok" for one in ended.values()) else FAILED)

    def _run(self, planned: Sequence[Planned], ended: dict[int, Done], console: Console) -> None:
        """Cells that run elsewhere come last, and are then waited for."""
        with display(total=len(planned), console=console) as tell:
            self._pass(planned, ended, tell, wait=False)
            busy = [one for one in planned if one.order not in ended]
            self._pass(busy, ended, tell, wait=True)

    def _pass(
        self, planned: Sequence[Planned], ended: dict[int, Done], tell: Tell, *, wait: bool
    ) -> None:
        for batch in self._batches(planned):
            more = [f"sweep.wait={wait}"]
            if not self._is_sequential:
                more.append(f"sweep.total={len(planned)}")
            jobs = [one.words(*more) for one in batch]
            assert self.launcher is not None
            returned = self.launcher.launch(jobs, initial_job_idx=batch[0].order)
            for one, job in zip(batch, returned, strict=True):
                done = replace(_done_of(job), label=one.label, order=one.order)
                if done.status == "interrupted" and not done.was_kept:
                    raise KeyboardInterrupt
                if done.status != "busy":
                    ended[one.order] = done
                    if self._is_sequential:
                        tell(done)

    def _batches(self, planned: Sequence[Planned]) -> Iterable[Sequence[Planned]]:
        """One at a time where they run one after the other: each is told of when it ends."""
        if self._is_sequential:
            return [[one] for one in planned]
        return [planned] if planned else []

    @property
    def _is_sequential(self) -> bool:
        assert self.config is not None
        return self.config.hydra.runtime.choices["hydra/launcher"] == "basic"

    @property
    def _loader(self) -> ConfigLoader:
        assert self.hydra_context is not None
        return self.hydra_context.config_loader

    def _planned(self, arguments: list[str]) -> list[Planned]:
        """Every cell in every round; a value that is off ends it all before a cell has run."""
        grid = self._grid(arguments)
        varying = {word for cell in grid for word in cell if not all(word in one for one in grid)}
        settings = [self._settings(cell) for cell in grid]
        labels = [
            label(of_cell, [word for word in cell if word in varying])
            for cell, of_cell in zip(grid, settings, strict=True)
        ]
        planned: list[Planned] = []
        rounds = settings[0].sweep.rounds if settings else 0
        for number in range(rounds):
            cells = list(zip(grid, labels, strict=True))
            for words, name in cells[::-1] if number % 2 else cells:
                called = name if rounds == 1 else f"{name}, round {number + 1}"
                place = (*words, f"sweep.round={number}")
                planned.append(Planned(label=called, overrides=place, order=len(planned)))
        return planned

    def _grid(self, arguments: list[str]) -> list[tuple[str, ...]]:
        """The words of every cell; the last of the sweeps varies fastest."""
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self._loader)
        choices: dict[str, list[str]] = {}
        for one in parser.parse_overrides(words):
            key = one.get_key_element()
            if one.is_sweep_override() and not one.is_discrete_sweep():
                raise HydraException(f"{key}: a grid takes choices, ranges and globs alone")
            values = (
                one.sweep_string_iterator()
                if one.is_sweep_override()
                else [one.get_value_element_as_str()]
            )
            choices[key] = [f"{key}={value}" for value in values]
        return list(product(*choices.values()))

    def _settings(self, overrides: Sequence[str]) -> Settings:
        assert self.config is not None
        config = self._loader.load_sweep_config(self.config, list(overrides))
        try:
            return validated(resolved(config))
        except ValueError as error:
            complain(str(error))
            raise SystemExit(USAGE) from None


def register() -> None:
    """Make it Hydra's basic sweeper, for this process; others can still be chosen."""
    # Hydra stores its own under this name when it looks for plug-ins: that comes first.
    Plugins.instance()
    node = {"_target_": PLUGIN, "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=node, provider="kvloom")


def label(settings: Settings, varying: Sequence[str]) -> str:
    """The system, and what else of a cell is not that of all."""
    pairs = [word.partition("=") for word in varying]
    more = [f"{key.split('.')[-1]}={value}" for key, _, value in pairs if key not in IN_LABEL]
    return " ".join([label_of(settings), *more])


def _done_of(job: JobReturn) -> Done:
    """What a job said; one that failed outside of its process, or a study, is told of alike."""
    if job.status == JobStatus.COMPLETED and isinstance(job.return_value, Done):
        return job.return_value
    is_ok = job.status == JobStatus.COMPLETED and job.return_value == OK
    message = "" if is_ok or job.status == JobStatus.COMPLETED else str(job._return_value)
    return Done(
        label="",
        order=0,
        status="ok" if is_ok else "failed",
        was_kept=False,
        seconds=0,
        folder=None,
        message=" ".join(message.split()),
    )
