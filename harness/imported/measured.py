"""Metrics of ours from a result of `vllm bench serve`; the formulas are the same."""

from collections.abc import Mapping

from harness.comparison import LENGTH, SLOWDOWN, SPEEDUP
from harness.imported.result import Result
from harness.metric import Metric, Quantity, quotient
from harness.metrics import LATENCY, LEAST_FOR_PERCENTILE, REQUEST_RATE, TOKEN_RATE, TOKENS

COUNT = Quantity(unit="requests", direction=None, source="client")
RATES = {
    "request_throughput": REQUEST_RATE,
    "request_goodput": REQUEST_RATE,
    "output_throughput": TOKEN_RATE,
    "total_token_throughput": TOKEN_RATE,
}


def metrics(result: Result) -> dict[str, Metric]:
    """By our names; without a completed request the zeros of the file are no values."""
    num = result.completed
    numbers = {"output_throughput": result.total_output_tokens}
    rates = {
        name: quantity.metric(
            getattr(result, name) if num else None,
            n=numbers.get(name, num),
            aggregation="rate",
        )
        for name, quantity in RATES.items()
    }
    per_sample = quotient(result.total_output_tokens, num)
    return {
        **latencies(result),
        **rates,
        "tokens_per_sample": TOKENS.metric(per_sample, n=num, aggregation="mean"),
        "completed": COUNT.metric(num, n=result.num_prompts, aggregation="sum"),
        "failed": COUNT.metric(result.failed, n=result.num_prompts, aggregation="sum"),
    }


def latencies(result: Result) -> dict[str, Metric]:
    """Those of the file, and the medians that a verdict asks for."""
    asked = {"median_ttft_ms": None, "median_tpot_ms": None}
    return {
        name: latency(name, value if result.completed else None, result)
        for name, value in {**asked, **result.latencies}.items()
    }


def latency(name: str, value: float | None, result: Result) -> Metric:
    """One of them; a percentile of too few says so."""
    aggregation, kind, _ = name.split("_")
    n = result.completed
    if kind == "itl":
        n = max(0, result.total_output_tokens - result.completed)
    percent = int(aggregation[1:]) if aggregation[1:].isdecimal() else 0
    enough = n >= LEAST_FOR_PERCENTILE.get(percent, 0)
    return LATENCY.metric(value, n=n, aggregation=aggregation, enough=enough)


def ratios(ours: Mapping[str, Metric], base: Mapping[str, Metric]) -> dict[str, Metric]:
    """Medians by medians, as the file does not pair requests."""
    names = {f"{kind}_ratio": (f"median_{kind}_ms", SLOWDOWN) for kind in ("ttft", "tpot", "e2el")}
    names |= {
        f"{name}_ratio": (name, SPEEDUP) for name in ("output_throughput", "request_throughput")
    }
    names["tokens_per_sample_ratio"] = ("tokens_per_sample", LENGTH)
    return {
        ratio: quantity.metric(
            quotient(*(_value(one, name) for one in (ours, base))),
            n=min(_number(one, name) for one in (ours, base)),
            aggregation="ratio of two runs, one after the other",
        )
        for ratio, (name, quantity) in names.items()
    }


def _value(measured: Mapping[str, Metric], name: str) -> float | None:
    return measured[name].value if name in measured else None


def _number(measured: Mapping[str, Metric], name: str) -> int:
    return measured[name].n if name in measured else 0
