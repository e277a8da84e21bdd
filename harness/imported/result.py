"""The JSON that `vllm bench serve --save-result` writes, checked."""

import json
import re
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

SOURCE = "vllm bench serve"
UNKNOWN = "unknown"
NAME = re.compile(r"(mean|median|p50|p90|p95|p99)_(ttft|tpot|itl|e2el)_ms")
# A value for each request, without the details too: the file itself holds them, beside the record.
BY_REQUEST = frozenset({"latencies", "queue_times"})
# And with the details.
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors")


class Result(BaseModel):
    """What a file must say; everything else that it says is in `model_extra`."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    date: str
    backend: str
    model_id: str
    tokenizer_id: str
    num_prompts: PositiveInt
    request_rate: FiniteFloat | Literal["inf"]
    burstiness: FiniteFloat
    max_concurrency: PositiveInt | None
    duration: FiniteFloat
    completed: NonNegativeInt
    failed: NonNegativeInt
    total_input_tokens: NonNegativeInt
    total_output_tokens: NonNegativeInt
    request_throughput: float
    request_goodput: float | None = None
    output_throughput: float
    total_token_throughput: float
    input_lens: tuple[NonNegativeInt, ...] = ()
    output_lens: tuple[NonNegativeInt, ...] = ()
    ttfts: tuple[FiniteFloat, ...] = ()
    itls: tuple[tuple[FiniteFloat, ...], ...] = ()
    start_times: tuple[FiniteFloat, ...] = ()
    generated_texts: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _details_fit(self) -> Self:
        """A value for each request in all of them, or in none."""
        lengths = {name: len(getattr(self, name)) for name in DETAILS}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{num} {name}" for name, num in lengths.items())
            raise ValueError(f"details are not of the same requests: {told}")
        return self

    @property
    def others(self) -> dict[str, Any]:
        """Keys beside these."""
        return self.model_extra or {}

    @property
    def latencies(self) -> dict[str, float]:
        """Those that are metrics of ours, by name."""
        return {
            name: value
            for name, value in self.others.items()
            if NAME.fullmatch(name) and isinstance(value, int | float)
        }

    @property
    def ended_at(self) -> datetime:
        """When it was written, by the clock of this place; raises ValueError."""
        return datetime.strptime(self.date, "%Y%m%d-%H%M%S").astimezone()


def parse(content: bytes) -> Result:
    """A result of serving; raises ValueError of one line."""
    try:
        result = Result.model_validate_json(content)
        assert result.ended_at
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = f"{key}: {first['msg']}" if key else first["msg"]
        raise ValueError(f"no result of `{SOURCE} --save-result`: {reason}") from None
    except ValueError as error:
        raise ValueError(f"no result of `{SOURCE} --save-result`: date: {error}") from None
    return result


def unknown(result: Result) -> dict[str, Any]:
    """Keys of the file that are no metric of ours and no list over requests."""
    text = json.dumps(
        {
            key: value
            for key, value in result.others.items()
            if key not in BY_REQUEST and key not in result.latencies
        }
    )
    # A record holds no NaN.
    kept: dict[str, Any] = json.loads(text, parse_constant=str)
    return kept


def told(result: Result, names: tuple[str, ...]) -> dict[str, Any]:
    """Some of what it says, by name."""
    return {name: getattr(result, name) for name in names}
