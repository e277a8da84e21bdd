"""What is kept of a run: the schema of a record. `harness.recording` builds one."""

from typing import Literal

from pydantic import AwareDatetime, Field, NonNegativeInt, PositiveInt

from harness.accuracy import Accuracy
from harness.environment import Environment, Measurement
from harness.metric import Metric
from harness.paired_scores import AccuracyChange
from harness.schema import JsonObject, Part

# 1: samples inside, no cell.
SCHEMA_VERSION: Literal[2] = 2
# Of one phase: pages, bytes or seconds, some by tier pair.
Count = int | float | dict[str, int] | dict[str, float]
RunStatus = Literal["ok", "failed", "oom", "timeout", "crash", "incompatible", "interrupted"]


class Verdict(Part):
    """Whether the numbers may be used, and every reason against it."""

    valid: bool
    reasons: tuple[str, ...]


class Run(Part):
    """One execution of the harness.

    resumed: requests that earlier processes had measured through all arms, which were killed;
    times of the run itself are of the last one.
    """

    uid: str
    status: RunStatus
    verdict: Verdict
    started_at: AwareDatetime
    ended_at: AwareDatetime
    duration_s: float
    argv: tuple[str, ...]
    resumed: NonNegativeInt = 0


class Cell(Part):
    """What was measured, as hashes: trials of one cell can be compared, and compared over commits.

    hash: of the settings, the weights and the benchmark; excluded: keys of the settings that are
    not in it; benchmark: of the code that measures; code: of the code that is measured. round,
    order, attempt: the place in a sweep, counted from 0; None where there was none.
    """

    experiment: str
    hash: str
    excluded: tuple[str, ...]
    benchmark: str
    code: str
    round: NonNegativeInt | None = None
    order: NonNegativeInt | None = None
    attempt: NonNegativeInt | None = None


class Config(Part):
    """What was asked for, and by arm what was read back from the running system."""

    resolved: JsonObject
    overrides: tuple[str, ...]
    effective: dict[str, JsonObject]


class PromptTokens(Part):
    """How long the prompts were."""

    least: NonNegativeInt
    median: float
    most: NonNegativeInt


class Workload(Part):
    """The requests: the same for every arm; n_done: those that every arm answered."""

    task: str
    n_planned: NonNegativeInt
    n_done: NonNegativeInt
    seed: int
    sample_ids_sha256: str
    protocol: str
    load: JsonObject
    prompt_tokens: PromptTokens | None


class BackendInfo(Part):
    """The serving engine; kernel: the attention kernel that ran."""

    name: str
    version: str | None
    kernel: str | None


class ModelInfo(Part):
    """The model; parameters: None if it did not load; sha256: of its weights, if computed."""

    id: str
    dtype: str
    parameters: NonNegativeInt | None
    sha256: str | None


class Budget(Part):
    """What the algorithm was allowed to read; without both there is no limit."""

    tokens: NonNegativeInt | None = None
    fraction: float | None = None


class System(Part):
    """What was put together. notes: what a reader must know to read the numbers right."""

    algo: str
    tier: str
    cache: str
    partition: str
    backend: BackendInfo
    model: ModelInfo
    requested_budget: Budget
    requested_sparsity: float | None = None
    notes: tuple[str, ...] = ()


# By layer and query head.
Grid = tuple[tuple[float | None, ...], ...]


class Fidelity(Part):
    """What attention kept of dense attention, means over steps; the metrics hold the spread.

    Seen on requests that ran once more, their times thrown away: `uids`, of which `differing` were
    not answered as they were when measured. every: decode steps from one comparison to the next;
    num_steps: comparisons, a step of each sequence is one.
    """

    every: int
    uids: tuple[str, ...]
    differing: tuple[str, ...]
    num_steps: NonNegativeInt
    mass_recalled_LH: Grid
    output_error_LH: Grid


class Arm(Part):
    """One arm: its metrics by name, its scores, and the counts by phase they come from."""

    metrics: dict[str, Metric]
    accuracy: Accuracy
    counters: dict[str, dict[str, Count]]
    peak_bytes: dict[str, int]
    page_bytes: int
    page_tokens: int
    fidelity: Fidelity | None = None


class Sample(Part):
    """One request through one arm.

    question: which one of those asked of its context; prompt_sha256: of its text; kv_read_share: KV
    pages that its decode steps read by those that dense attention reads in them; one minus it is
    the sparsity that was achieved. Null where a backend cannot tell.
    """

    uid: str
    task: str
    arm: str
    question: PositiveInt = 1
    answer: str
    references: tuple[str, ...] | None
    score: float | None
    num_prompt_tokens: NonNegativeInt
    num_output_tokens: NonNegativeInt
    finish: str
    error: str | None = None
    ttft_ms: float | None
    tpot_ms: float | None
    prompt_sha256: str | None = None
    kv_read_share: float | None = None


class RequestTimes(Part):
    """When the tokens of a request through an arm were there, in seconds after the first start."""

    uid: str
    task: str
    arm: str
    started_s: float
    token_times_s: tuple[float, ...]
    finish: str


class RunError(Part):
    """What went wrong: the type of the exception, where, and its message."""

    kind: str
    stage: str
    message: str


class RunRecord(Part):
    """Everything about one run; null is unobservable. samples: a file of their own in the store."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    run: Run
    cell: Cell | None = None
    config: Config
    workload: Workload
    system: System
    env: Environment
    measurement: Measurement
    baseline: str
    arms: dict[str, Arm]
    comparisons: dict[str, dict[str, Metric]]
    accuracy_changes: dict[str, AccuracyChange] = Field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    errors: tuple[RunError, ...]
