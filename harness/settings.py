"""The composed config, validated once: frozen, nothing extra, every value in its range."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from harness.sizes import Limit, Size, parse_limit, parse_size

# The arm that every run has.
BASELINE = "dense"
Positive = Annotated[int, Field(gt=0, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Strict(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """A class to be built and its arguments, which the class itself checks."""

    model_config = ConfigDict(extra="allow", frozen=True)
    target: str = Field(alias="_target_")

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything beside the target."""
        return {key: value for key, value in (self.model_extra or {}).items() if key[0] != "_"}


class AlgoSettings(Strict):
    """An algorithm: at most one of each role."""

    name: str
    prefill: Component | None
    evict: Component | None
    retrieve: Component | None
    dense_layers: Natural

    @model_validator(mode="after")
    def _named_after_its_roles(self) -> Self:
        """Roles on top of algo=dense make another algorithm than the baseline of that name."""
        roles = [role for role in (self.prefill, self.evict, self.retrieve) if role is not None]
        if self.name != BASELINE or not roles:
            return self
        modules = [role.target.rpartition(".")[0] for role in roles]
        name = "+".join(module.rpartition(".")[2] for module in modules)
        return self.model_copy(update={"name": name})

    @property
    def budget(self) -> int | float | None:
        """What a query may read, or else what stays: tokens, or a share of the context."""
        for role in (self.retrieve, self.evict):
            if role is not None and (amount := role.arguments.get("budget_tokens")) is not None:
                return amount if isinstance(amount, int | float) else None
        return None


class PartitionSettings(Strict):
    """Mappers to try, in order, and the size of the pages below them."""

    name: str
    page_tokens: Positive
    mappers: tuple[Component, ...]


class TierLevel(Component):
    """One arena; its size becomes frames once the page size is known."""

    size: Annotated[Size, BeforeValidator(parse_size)]


class TierSettings(BaseModel):
    """Arenas by name, listed from fast to slow in `levels`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    levels: tuple[str, ...] = Field(min_length=1)
    __pydantic_extra__: dict[str, TierLevel]

    @model_validator(mode="after")
    def _levels_are_there(self) -> "TierSettings":
        if set(self.levels) != set(self.arenas):
            raise ValueError(f"levels {list(self.levels)} and arenas {list(self.arenas)} differ")
        return self

    @property
    def arenas(self) -> dict[str, TierLevel]:
        """Settings by level."""
        return self.__pydantic_extra__


class CacheSettings(Strict):
    """How the cache manager chooses what leaves the fast tier."""

    name: str
    policy: Component


class BudgetSettings(Strict):
    """How requests share the fast tier."""

    name: str
    rule: Component | None
    window: Positive
    preempt: bool


class MetadataSettings(Strict):
    """How it is kept where pages are."""

    name: str
    table: Component


class BackendSettings(Strict):
    """An engine, or a replay of what one did; engine: who starts it, None for the embedded one."""

    name: Literal["transformers", "vllm", "replay"]
    engine: Component | None = None
    device: Literal["auto", "cpu", "cuda"]
    kernel: Literal["auto", "torch", "cpu-cpp"]
    chunk_tokens: Positive
    max_batch: Positive
    prefill: Literal["chunked", "layer_segmented"]
    prefetch: bool


Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class LocalModel(Strict):
    """Weights in a folder, or a hub id."""

    kind: Literal["local"]
    path: str = Field(min_length=1)
    dtype: Dtype
    download: bool = False


class DummyModel(Strict):
    """Random weights."""

    kind: Literal["dummy"]
    shape: Literal["toy", "wide", "1b", "8b"]
    num_layers: Positive | None
    dtype: Dtype


class LoadSettings(Strict):
    """When requests arrive."""

    name: Literal["single", "batch"]
    warmup_tokens: Positive


class ProtocolSettings(Strict):
    """Which part of a prompt goes through the algorithm, and how often a context is asked."""

    name: Literal["question_sparse", "question_dense"]
    num_questions: Positive = 1
    temperature: float = Field(ge=0, allow_inf_nan=False)
    ignore_stop: bool = False

    @property
    def label(self) -> str:
        """What records call it."""
        several = f", {self.num_questions} questions of each context"
        return self.name + (several if self.num_questions > 1 else "")


class AccuracySettings(Strict):
    """When a change of scores against dense counts; see `harness.paired_scores.ScoreRule`."""

    margin: Share
    task_margin: Share
    alpha: float = Field(gt=0, lt=0.5)


class TraceSettings(Strict):
    """Whether selections are recorded, and the file of a trace."""

    record: bool
    path: str | None


class ProbeSettings(Strict):
    """How many requests run once more, off the clock, to see what attention kept of dense.

    every: decode steps from one comparison to the next.
    """

    requests: Natural
    every: Positive


class HardwareSettings(Strict):
    """A machine; profile: what the cost model knows of it, None where nothing is modelled."""

    name: str
    profile: Component | None


class Named(Strict):
    """A group whose only option so far does nothing."""

    name: str


class LoggerSettings(Strict):
    """Who is told of a finished run; target: None tells nobody.

    timeout_s: how long telling may take before it is given up, for `harness/sync.py` to do later.
    """

    name: str = Field(pattern=r"^\w+$")
    target: Component | None
    timeout_s: float = Field(gt=0, allow_inf_nan=False)


Retried = Literal["failed", "oom", "timeout", "crash", "incompatible"]


class SweepSettings(Strict):
    """How cells are run one after the other, and the place of a run among them.

    name: of the folder of its trials, None for the experiment; rounds: how often the grid is run;
    timeout_s, memory: limits of a cell, None without; retry, attempts: what is tried again, and
    how often in all. The others are set by sweeps: round, order, attempt counted from 0, total
    where a cell tells of itself, wait for a cell that runs elsewhere, and into which folder the
    trial is written instead of the store.
    """

    name: str | None = Field(default=None, min_length=1)
    rounds: Positive
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    memory: Annotated[Limit, BeforeValidator(parse_limit)]
    retry: tuple[Retried, ...]
    attempts: Positive
    round: Natural | None
    order: Natural | None
    attempt: Natural | None
    total: Positive | None
    wait: bool
    into: str | None


class Settings(Strict):
    """One run; study: what to do instead of serving requests, such as a replay of traces."""

    study: Component | None

    algo: AlgoSettings
    partition: PartitionSettings
    tier: TierSettings
    cache: CacheSettings
    budget: BudgetSettings
    metadata: MetadataSettings
    reuse: Named
    backend: BackendSettings
    model: Annotated[LocalModel | DummyModel, Field(discriminator="kind")]
    task: Component
    load: LoadSettings
    protocol: ProtocolSettings
    accuracy: AccuracySettings
    logger: LoggerSettings
    trace: TraceSettings
    probe: ProbeSettings
    hardware: HardwareSettings
    sweep: SweepSettings
    results: str
    resume: bool


def validated(composed: dict[str, Any]) -> Settings:
    """The settings, or a ValueError of one line that names the first key that is off."""
    try:
        return Settings.model_validate(composed)
    except ValidationError as error:
        first = error.errors()[0]
        kinds = {"local", "dummy"}
        key = ".".join(str(part) for part in first["loc"] if part not in kinds)
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{key}={first['input']!r}: {message}") from None
