"""From what one arm yielded to its metrics; names and formulas are those of `vllm bench`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise, permutations

import numpy as np

from harness.metric import Metric, Quantity, quotient
from harness.outcome import ArmResult, Outcome
from memory_tiers.counters import Counters, PhaseCounters

LATENCY = Quantity(unit="ms", direction="lower", source="client")
REQUEST_RATE = Quantity(unit="requests/s", direction="higher", source="client")
TOKEN_RATE = Quantity(unit="tokens/s", direction="higher", source="client")
TOKENS = Quantity(unit="tokens", direction=None, source="client")
BYTES = Quantity(unit="bytes", direction="lower", source="accounting")
TRANSFER = Quantity(unit="ms", direction="lower", source="accounting")
PAGES = Quantity(unit="pages", direction="lower", source="accounting")
HIT_RATE = Quantity(unit="fraction", direction="higher", source="accounting")
AMPLIFICATION = Quantity(unit="ratio", direction="lower", source="accounting")
WASTE = Quantity(unit="fraction", direction="lower", source="accounting")
DENSITY = Quantity(unit="fraction", direction=None, source="accounting")
SPARSITY = Quantity(unit="fraction", direction=None, source="accounting")

# Fewest observations with which the largest one bounds the percentile with 95 % confidence.
LEAST_FOR_PERCENTILE = {90: 30, 95: 60, 99: 300}
# Names of a peak that are no tier of KV pages.
NOT_A_TIER = frozenset({"index", "evictor", "page_tables"})


def arm_metrics(arm: ArmResult) -> dict[str, Metric]:
    """All metrics of one arm, by name."""
    return {**latency_metrics(arm), **throughput_metrics(arm), **kv_metrics(arm)}


def latency_metrics(arm: ArmResult) -> dict[str, Metric]:
    """Median, mean and tails of TTFT, TPOT, ITL (gaps of all requests pooled) and E2EL."""
    values = {
        "ttft_ms": known(ttft_ms(outcome) for outcome in arm.outcomes),
        "tpot_ms": known(tpot_ms(outcome) for outcome in arm.outcomes),
        "itl_ms": [gap for outcome in arm.outcomes for gap in itl_ms(outcome)],
        "e2el_ms": known(e2el_ms(outcome) for outcome in arm.outcomes),
    }
    return {
        f"{aggregation}_{name}": metric
        for name, observed in values.items()
        for aggregation, metric in summaries(observed).items()
    }


def throughput_metrics(arm: ArmResult) -> dict[str, Metric]:
    """Rates over the time in which the arm was served, and the length of its answers."""
    completed = [outcome for outcome in arm.outcomes if outcome.token_times_s]
    num_tokens = sum(outcome.num_output_tokens for outcome in completed)
    seconds = served_seconds(completed)
    return {
        "request_throughput": REQUEST_RATE.metric(
            quotient(len(completed), seconds), n=len(completed), aggregation="rate"
        ),
        "output_throughput": TOKEN_RATE.metric(
            quotient(num_tokens, seconds), n=num_tokens, aggregation="rate"
        ),
        "tokens_per_sample": TOKENS.metric(
            quotient(num_tokens, len(completed)), n=len(completed), aggregation="mean"
        ),
    }


def kv_metrics(arm: ArmResult) -> dict[str, Metric]:
    """What attention read, what moved between tiers, and what it took to keep it."""
    decode, phases = arm.counters.decode, phases_of(arm.counters)
    num_evicted = sum(phase.pages_evicted for phase in phases.values())
    return {
        "kv_read_bytes_per_decode_step": BYTES.metric(
            quotient(decode.bytes_read, decode.steps), n=decode.steps, aggregation="mean"
        ),
        "read_amplification": AMPLIFICATION.metric(
            quotient(decode.pages_read * arm.page_tokens, decode.slots_wanted),
            n=decode.slots_wanted,
            aggregation="ratio of sums",
        ),
        "padding_waste": padding_waste(phases.values()),
        "prefill_density": prefill_density(phases.values()),
        "achieved_sparsity": achieved_sparsity(decode),
        "kv_cache_hit_rate": hit_rate(decode, num_tiers=len(kv_tiers(arm))),
        "buffering_to_mandatory": buffering(decode),
        "kv_transfer_ms_per_decode_step": TRANSFER.metric(
            quotient(1e3 * sum(decode.transfer_s.values()), decode.steps),
            n=decode.steps,
            aggregation="mean",
        ),
        "kv_transfer_exposed_ms_per_decode_step": TRANSFER.metric(
            quotient(1e3 * decode.exposed_s, decode.steps), n=decode.steps, aggregation="mean"
        ),
        "pages_evicted": PAGES.metric(num_evicted, n=len(arm.outcomes), aggregation="sum"),
        **moved_metrics(arm),
        **peak_metrics(arm),
    }


def padding_waste(phases: Iterable[PhaseCounters]) -> Metric:
    """The share of the slots given to clusters that will hold no token; null without clusters."""
    placed, padding = (
        sum(counts)
        for counts in zip(*((one.slots_placed, one.slots_padding) for one in phases), strict=True)
    )
    return WASTE.metric(quotient(padding, placed), n=placed, aggregation="ratio of sums")


def prefill_density(phases: Iterable[PhaseCounters]) -> Metric:
    """The share of dense attention's pairs that a prefill pattern computed; null without one."""
    computed, causal = (
        sum(counts)
        for counts in zip(*((one.pairs_computed, one.pairs_causal) for one in phases), strict=True)
    )
    return DENSITY.metric(quotient(computed, causal), n=causal, aggregation="ratio of sums")


def achieved_sparsity(decode: PhaseCounters) -> Metric:
    """The share of the context that decoding did not ask for."""
    wanted = quotient(decode.slots_wanted, decode.slots_context)
    value = None if wanted is None else 1 - wanted
    return SPARSITY.metric(value, n=decode.slots_context, aggregation="ratio of sums")


def hit_rate(decode: PhaseCounters, *, num_tiers: int) -> Metric:
    """Page requests found in the fast tier; with one tier there is nothing to miss."""
    value = quotient(decode.pages_hit, decode.pages_wanted) if num_tiers > 1 else None
    return HIT_RATE.metric(value, n=decode.pages_wanted, aggregation="ratio of sums")


def buffering(decode: PhaseCounters) -> Metric:
    """Pages kept for later steps by pages that a step asked for; None with one tier.

    A step that asks for more than the fast tier holds keeps nothing.
    """
    kept = max(0, decode.pages_resident - decode.pages_mandatory)
    value = quotient(kept, decode.pages_mandatory)
    return AMPLIFICATION.metric(value, n=decode.steps, aggregation="ratio of sums")


def moved_metrics(arm: ArmResult) -> dict[str, Metric]:
    """Bytes per ordered tier pair: over all phases, and of decoding per step."""
    phases, decode = phases_of(arm.counters), arm.counters.decode
    total = sum((phase.bytes_moved for phase in phases.values()), Counter[str]())
    pairs = {f"{source}->{target}" for source, target in permutations(kv_tiers(arm), 2)}
    metrics = {}
    for pair in sorted(pairs | total.keys()):
        name = f"kv_bytes_moved_{pair.replace('->', '_to_')}"
        metrics[name] = BYTES.metric(total[pair], n=len(arm.outcomes), aggregation="sum")
        metrics[f"{name}_per_decode_step"] = BYTES.metric(
            quotient(decode.bytes_moved[pair], decode.steps), n=decode.steps, aggregation="mean"
        )
    return metrics


def peak_metrics(arm: ArmResult) -> dict[str, Metric]:
    """The most bytes taken at one time, in each tier, by the index and by the evictor."""
    num = len(arm.outcomes)
    metrics = {
        f"peak_mem_bytes_{tier}": BYTES.metric(arm.peak_bytes[tier], n=num, aggregation="peak")
        for tier in kv_tiers(arm)
    }
    index_bytes = arm.peak_bytes.get("index")
    table_bytes = arm.peak_bytes.get("page_tables")
    if (evictor_bytes := arm.peak_bytes.get("evictor")) is not None:
        metrics["evictor_bytes"] = BYTES.metric(evictor_bytes, n=num, aggregation="peak")
    return {
        **metrics,
        "index_bytes": BYTES.metric(index_bytes, n=num, aggregation="peak"),
        "page_table_bytes": BYTES.metric(table_bytes, n=num, aggregation="peak"),
    }


def kv_tiers(arm: ArmResult) -> tuple[str, ...]:
    """The tiers that hold pages of KV."""
    return tuple(name for name in arm.peak_bytes if name not in NOT_A_TIER)


def phases_of(counters: Counters) -> dict[str, PhaseCounters]:
    """Counters by the name of the phase."""
    return {
        "prefill": counters.prefill,
        "question": counters.question,
        "decode": counters.decode,
    }


def ttft_ms(outcome: Outcome) -> float | None:
    """Milliseconds until the first token; None if there was none."""
    if not outcome.token_times_s:
        return None
    return 1e3 * (outcome.token_times_s[0] - outcome.started_s)


def e2el_ms(outcome: Outcome) -> float | None:
    """Milliseconds until the last token; None if there was none."""
    if not outcome.token_times_s:
        return None
    return 1e3 * (outcome.token_times_s[-1] - outcome.started_s)


def tpot_ms(outcome: Outcome) -> float | None:
    """Milliseconds per token after the first one; None if there was no second."""
    if outcome.num_output_tokens < 2 or not outcome.token_times_s:
        return None
    decode_s = outcome.token_times_s[-1] - outcome.token_times_s[0]
    return 1e3 * decode_s / (outcome.num_output_tokens - 1)


def itl_ms(outcome: Outcome) -> list[float]:
    """Milliseconds between one token and the next."""
    return [1e3 * (later - earlier) for earlier, later in pairwise(outcome.token_times_s)]


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are there."""
    return [value for value in values if value is not None]


def served_seconds(outcomes: Sequence[Outcome]) -> float:
    """Time in which at least one of the requests was in flight.

    Arms are interleaved, so the span from first start to last token would hold the other arm too.
    Where an arm runs alone and is never idle, this is that span.
    """
    seconds, until = 0.0, -np.inf
    for start, end in sorted(
        (outcome.started_s, outcome.token_times_s[-1]) for outcome in outcomes
    ):
        seconds += max(0.0, end - max(start, until))
        until = max(until, end)
    return seconds


def summaries(values: Sequence[float]) -> dict[str, Metric]:
    """Median, mean and the percentiles of latencies; a percentile of too few says so."""
    n = len(values)
    metrics = {
        "median": LATENCY.metric(percentile(values, 50), n=n, aggregation="median"),
        "mean": LATENCY.metric(quotient(float(np.sum(values)), n), n=n, aggregation="mean"),
    }
    for percent, least in LEAST_FOR_PERCENTILE.items():
        metrics[f"p{percent}"] = LATENCY.metric(
            percentile(values, percent), n=n, aggregation=f"p{percent}", enough=n >= least
        )
    return metrics


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Linear between order statistics, as numpy's default; None of nothing, NaN of non-finite."""
    if not values:
        return None
    return float(np.percentile(values, percent)) if np.isfinite(values).all() else float("nan")
