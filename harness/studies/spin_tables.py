"""What metadata costs at the sizes of SPIN's paper: two levels against flat, from real tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from backends.replay import cost_model
from harness.environment import environment
from harness.progress import progress
from harness.settings import Settings
from harness.sizes import Size, parse_size
from harness.studies.base import Study
from harness.studies.findings import keep_findings
from harness.studies.spin_costs import Case, CaseBytes, ModelShape, measure, part_of
from harness.studies.spin_table_text import Row, render
from memory_tiers.base import options
from memory_tiers.tables.report import MetadataBytes

# Those of SPIN's evaluation.
MODELS = ("qwen3-14b", "qwen3-32b", "llama-3.1-70b")
SHAPES: Mapping[str, ModelShape] = {
    name: ModelShape(
        num_layers=cost_model.SHAPES[name].num_layers,
        num_kv_heads=cost_model.SHAPES[name].num_kv_heads,
        head_dim=cost_model.SHAPES[name].head_dim,
    )
    for name in MODELS
}
HEADLINE_KEYS = ("model", "context", "batch", "page_tokens")
HEADLINE_SHARE = 0.5
FINDINGS_NAME = "tables.json"


@dataclass(frozen=True, kw_only=True)
class SpinTables(Study):
    """Every model with every context, batch and page size; its YAML says what each setting is.

    memory: bytes, a share of what is free, or auto, which is half of it; headline: a model, its
    context, batch and page size.
    """

    models: Sequence[str]
    contexts: Sequence[int]
    batches: Sequence[int]
    page_tokens: Sequence[int]
    working_set_tokens: int
    run_tokens: int
    memory: Size
    headline: Mapping[str, Any] | None
    seed: int

    def __post_init__(self) -> None:
        """Check the settings, with every case that they ask for."""
        for name in ("models", "contexts", "batches", "page_tokens"):
            if not isinstance(getattr(self, name), list | tuple) or not getattr(self, name):
                raise ValueError(f"study.{name}={getattr(self, name)!r}: give a list, as [a, b]")
        self._limit(free=1)
        list(self._cases())
        list(self._headlines())

    def run(self, settings: Settings, console: Console) -> int:
        """See Study."""
        free = psutil.virtual_memory().available
        limit, whole = self._limit(free), round(free * HEADLINE_SHARE)
        cases = list(self._cases())
        plan = [(name, case, part_of(case, limit)) for name, case in cases]
        plan += [(name, case, part_of(case, whole)) for name, case in self._headlines()]
        measured = self._measured([part for _, _, part in plan], console)
        rows = [
            Row(
                model=name,
                case=case,
                measured_batch=part.batch,
                costs=measured[part].times(case.batch / part.batch),
            )
            for name, case, part in plan
        ]
        regular, headline = rows[: len(cases)], [*rows[len(cases) :], None][0]
        render(regular, headline, console)
        found = json.dumps(self._findings(regular, headline), indent=1, allow_nan=False) + "\n"
        folder = keep_findings(
            Path(settings.results), "spin_tables", {FINDINGS_NAME: found.encode()}
        )
        console.print(str(folder / FINDINGS_NAME), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _measured(self, parts: Sequence[Case], console: Console) -> dict[Case, CaseBytes]:
        """Each distinct case once: of large ones as many sequences fit, whatever the batch."""
        distinct = list(dict.fromkeys(parts))
        measured = {}
        with progress(total=len(distinct), unit="cases", console=console) as advance:
            for part in distinct:
                measured[part] = measure(part, self.seed)
                shape = part.shape
                advance(f"{shape.num_layers} layers, {part.context} x {part.batch} tokens")
        return measured

    def _cases(self) -> Iterator[tuple[str, Case]]:
        for name in self.models:
            for page_tokens in self.page_tokens:
                for context in self.contexts:
                    for batch in self.batches:
                        yield name, self._case(name, context, batch, page_tokens)

    def _headlines(self) -> Iterator[tuple[str, Case]]:
        """The headline, or nothing."""
        if self.headline is not None:
            if set(self.headline) != set(HEADLINE_KEYS):
                raise ValueError(
                    f"study.headline={dict(self.headline)}: give {options(HEADLINE_KEYS)}, or null"
                )
            case = {name: self.headline[name] for name in HEADLINE_KEYS}
            yield case["model"], self._case(*case.values())

    def _case(self, name: str, context: int, batch: int, page_tokens: int) -> Case:
        if name not in SHAPES:
            raise ValueError(f"study.models={name!r} is unknown; use {options(list(SHAPES))}")
        return Case(
            shape=SHAPES[name],
            context=context,
            batch=batch,
            page_tokens=page_tokens,
            working_set_tokens=self.working_set_tokens,
            run_tokens=self.run_tokens,
        )

    def _limit(self, free: int) -> int:
        """Bytes for the tables of one case."""
        try:
            amount = parse_size(self.memory)
        except ValueError as error:
            raise ValueError(f"study.memory={self.memory!r}: {error}") from None
        if isinstance(amount, str):
            amount = HEADLINE_SHARE
        return round(free * amount) if isinstance(amount, float) else amount

    def _findings(self, rows: Sequence[Row], headline: Row | None) -> dict[str, Any]:
        return {
            "study": "spin_tables",
            "settings": asdict(self),
            "environment": environment().model_dump(mode="json"),
            "cases": [_plain(row) for row in rows],
            "headline": None if headline is None else _plain(headline),
        }


def _plain(row: Row) -> dict[str, Any]:
    """A row as JSON: what was asked, every table, and the ratios."""
    case, costs = row.case, row.costs
    return {
        "model": row.model,
        "case": asdict(case),
        "measured_batch": row.measured_batch,
        "scaled": not row.is_whole,
        "kv_bytes": case.kv_bytes,
        "flat": _layout(costs.flat),
        "two_level": {
            name: {**_layout(found), "times_smaller_in_hbm": costs.ratio(name)}
            for name, found in costs.two_level.items()
        },
    }


def _layout(found: MetadataBytes) -> dict[str, Any]:
    """One layout as JSON."""
    return {
        **asdict(found),
        "hbm_bytes": found.on("device"),
        "host_bytes": found.on("host"),
        "hbm_bytes_per_slot": found.per_slot("device"),
        "hbm_bytes_per_live_slot": found.per_live_slot("device"),
        "host_bytes_per_slot": found.per_slot("host"),
    }
