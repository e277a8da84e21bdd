"""Requests one by one, of a result that was saved with `--save-detailed`."""

from itertools import accumulate

from harness.imported.result import SOURCE, UNKNOWN, Result
from harness.metric import quotient
from harness.record import RequestTimes, Sample


def samples(result: Result, arm: str) -> tuple[Sample, ...]:
    """What each request was answered, and how fast; none without the details."""
    return tuple(
        Sample(
            uid=_uid(number),
            task=SOURCE,
            arm=arm,
            answer=result.generated_texts[number],
            references=None,
            score=None,
            num_prompt_tokens=result.input_lens[number],
            num_output_tokens=result.output_lens[number],
            finish="error" if result.errors[number] else UNKNOWN,
            error=result.errors[number] or None,
            ttft_ms=None if result.errors[number] else 1e3 * result.ttfts[number],
            tpot_ms=_tpot_ms(result, number),
        )
        for number in range(len(result.ttfts))
    )


def requests(result: Result, arm: str) -> tuple[RequestTimes, ...]:
    """When the tokens of each were there, counted from the first start."""
    first_s = min(result.start_times, default=0.0)
    return tuple(
        RequestTimes(
            uid=_uid(number),
            task=SOURCE,
            arm=arm,
            started_s=start - first_s,
            token_times_s=()
            if result.errors[number]
            else tuple(accumulate((start - first_s + result.ttfts[number], *result.itls[number]))),
            finish="error" if result.errors[number] else UNKNOWN,
        )
        for number, start in enumerate(result.start_times)
    )


def _tpot_ms(result: Result, number: int) -> float | None:
    """Time after the first token over the tokens after it, as the file's own."""
    if result.errors[number] or result.output_lens[number] < 2:
        return None
    return quotient(1e3 * sum(result.itls[number]), result.output_lens[number] - 1)


def _uid(number: int) -> str:
    return f"request-{number}"
