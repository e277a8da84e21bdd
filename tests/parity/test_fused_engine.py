"""A decode step in one call of the kernel says what the parts say that it is made of."""

import pytest

from backends.attention.cpu import Cpu
from memory_tiers.native import UnavailableError
from tests.backends.engines import SLOTS, engine_over, pair_of, requests, tokens
from tests.laws.configs import settings_of

BUDGET = 64
PAGE_BYTES = 2 * 16 * 16 * 4
OF_TOKENS = ("oracle_topk", "sparq")
CASES = {
    "all in one tier": {},
    "two tiers": {"tier": "hbm+cpu"},
    "three tiers, prefetching": {"tier": "hbm+cpu+disk"},
}


@pytest.fixture
def compiled() -> None:
    try:
        Cpu(32)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("algo", ["quest", "quest of 8", "quest of 32", "oracle_topk", "sparq"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("compiled")
def test_one_call_answers_as_its_parts(algo, case, monkeypatch):
    # A step of single tokens may need as many pages as tokens.
    pages = 120 if algo in OF_TOKENS else 60
    fast_bytes = pages * PAGE_BYTES if CASES[case] else None
    settings = settings_of(algo, max_batch=SLOTS, fast_bytes=fast_bytes, **CASES[case])
    if "prefetching" in case:
        backend = settings.backend.model_copy(update={"prefetch": True})
        settings = settings.model_copy(update={"backend": backend})
    fused = engine_over(pair_of("qwen3"), settings, BUDGET, kernel="cpu-cpp")
    calls = []
    step = Cpu.decode_step
    monkeypatch.setattr(
        Cpu, "decode_step", lambda self, inputs: calls.append(inputs.rule) or step(self, inputs)
    )
    said = tokens(fused.run(requests()))
    assert calls, "no step was fused: the law is empty"
    plain = engine_over(pair_of("qwen3"), settings_of(algo, max_batch=SLOTS), BUDGET)
    calls.clear()
    assert said == tokens(plain.run(requests()))
    assert not calls
    counts = [one.backend.counters.decode for one in (fused, plain)]
    for name in ("rows", "pages_read", "slots_wanted", "pages_wanted"):
        assert len({getattr(count, name) for count in counts}) == 1, name
    if settings.backend.prefetch:
        missed = counts[0].pages_hit < counts[0].pages_wanted
        assert counts[0].pages_prefetched > 0 or not missed
        assert missed or algo in OF_TOKENS, "nothing was missed: the law is empty"
