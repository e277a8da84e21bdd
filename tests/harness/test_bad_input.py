"""What cannot be served is refused with exit code 2 and one line that names the way out."""

from pathlib import Path

import pytest

from tests.harness.cli_runs import SMALL, run

REFUSED = {
    ("algo=qwest",): ("algo=qwest", "quest"),
    ("algo.retrieve.budget_tokens=0",): ("algo.retrieve.budget_tokens=0", "2048"),
    ("algo.retrieve.budget_tokens=abc",): ("algo.retrieve.budget_tokens='abc'", "2048"),
    ("algo.retrieve.budget_tokens=auto",): ("algo.retrieve.budget_tokens='auto'", "4MiB"),
    ("algo.retrieve.budget_tokens=0MiB",): ("algo.retrieve.budget_tokens='0MiB'", "4MiB"),
    ("algo.retrieve.budget_tokens='256'",): ("algo.retrieve.budget_tokens='256'", "4MiB"),
    ("algo.retrieve.budget_tokens=100KiB",): ("=100KiB holds 16 tokens", "raise it to 288KiB"),
    ("algo=streaming", "algo.evict.budget_tokens=1B"): ("=1B holds 0 tokens", "raise it to 36KiB"),
    ("algo.retrieve.budget_tokens=-1",): ("algo.retrieve.budget_tokens=-1", "2048"),
    ("algo.retrieve.budget_tokens=1.5",): ("algo.retrieve.budget_tokens=1.5", "0.05"),
    ("algo.retrieve.budget_tokens=32",): ("algo.retrieve.budget_tokens=32", "sinks"),
    ("algo.retrieve.budgte=1",): ("algo.retrieve.budgte", "--cfg job"),
    ("nonsense=1",): ("nonsense", "--cfg job"),
    ("+algo.retrieve.extra=1",): ("algo.retrieve", "extra"),
    ("+backend.extra=1",): ("backend.extra", "not permitted"),
    ("model=hf",): ("model.path", "give model.path"),
    ("model=hf", "model.path=/nowhere/at/all"): ("model.path='/nowhere/at/all'", "give a folder"),
    ("model=hf", "model.path=no/where"): ("model.path='no/where'", "model.download=true"),
    ("tier=hbm+cpu", "tier.hbm.size=4KiB"): ("tier.hbm.size=4096B", "raise tier.hbm.size to"),
    ("tier.hbm.size=64KiB",): ("tier.hbm.size=64KiB", "one step"),
    ("tier.hbm.size=1MiB",): ("tier.hbm.size=1024KiB", "tier=hbm+cpu"),
    ("tier.hbm.size=much",): ("tier.hbm.size='much'", "64MiB"),
    ("task.length=40000",): ("task.length", "32768"),
    ("task.length=7",): ("task.length=7", "128"),
    ("protocol.temperature=-1",): ("protocol.temperature=-1", "greater than or equal to 0"),
    ("backend.max_batch=0",): ("backend.max_batch=0", "greater than 0"),
    ("backend.chunk_tokens=1.5",): ("backend.chunk_tokens=1.5", "integer"),
    ("backend.device=cuda",): ("backend.device='cuda'", "cpu"),
    ("probe=on", "probe.every=0"): ("probe.every=0", "greater than 0"),
    ("probe.requests=-1",): ("probe.requests=-1", "greater than or equal to 0"),
    ("partition.page_tokens=65",): ("partition.page_tokens=65", ""),
    ("algo.dense_layers=6",): ("algo.dense_layers=6", "algo=dense"),
    ("algo=oracle_topk", "partition=identity"): ("partition=identity", "partition=auto"),
    ("algo.retrieve.block_tokens=24",): ("24 tokens", "partition.page_tokens=16"),
    ("algo=xattention", "algo.prefill.stride=7"): ("algo.prefill.stride=7", "use 8 or 16"),
    ("algo=minference", "algo.prefill.slash=9"): ("algo.prefill.slash=9", "algo.prefill.recents"),
    ("algo/prefill=flexprefill", "algo.prefill.gamma=2"): ("algo.prefill.gamma=2", "at most 1"),
    ("algo=a_shape", "algo.dense_layers=6"): ("algo.dense_layers=6", "algo=dense"),
    ("algo=arkvale", "algo.retrieve.budget_tokens=40"): ("budget_tokens=40", "recents"),
    ("algo=infllm", "algo.retrieve.local_tokens=64"): ("local_tokens=64", "raise", "recents"),
    ("algo=oracle_topp", "algo.retrieve.mass=2"): ("algo.retrieve.mass=2", "0.95"),
    ("algo=shadowkv", "algo.retrieve.chunk_tokens=12"): ("12 tokens", "partition.page_tokens=16"),
    ("algo=shadowkv", "algo.retrieve.outlier_chunks=40"): ("budget_tokens=256", "outlier_chunks"),
    ("algo=shadowkv_lowrank", "algo.retrieve.rank=0"): ("algo.retrieve.rank=0", "at least 1"),
    ("algo=shadowkv_lowrank", "algo/evict=streaming"): ("algo.evict", "algo/evict=none"),
    ("algo=loki", "model=dummy"): ("models/fitted/dummy-toy/loki.safetensors", "models.fit"),
    ("algo=double_sparsity", "algo.retrieve.label_channels=65"): ("label_channels=65", "64"),
    ("algo=loki", "algo.retrieve.rotary=both"): ("algo.retrieve.rotary='both'", "post or pre"),
    ("algo=seerattention_r", "algo.retrieve.weights=no/where"): ("weights='", "models.fit"),
    ("algo=seerattention_r", "algo.retrieve.block_tokens=24"): ("24 tokens", "page_tokens=16"),
    ("algo=seerattention_r", "algo/evict=streaming"): ("algo.evict drops", "algo/evict=none"),
    ("algo=tidaldecode", "algo.retrieve.selecting_layers=[9]"): ("selecting_layers=[9]", "0 to 5"),
    ("algo=tidaldecode", "algo.dense_layers=4"): ("layer 4 reads", "lower algo.dense_layers"),
    ("algo=retroinfer", "algo.retrieve.estimated_share=2"): ("estimated_share=2", "0 to 1"),
    ("algo=sparq", "algo.retrieve.channels=65"): ("algo.retrieve.channels=65", "lower it"),
    ("algo=magicpig", "+algo.retrieve.pool_heads=true"): ("pool_heads=True", "draws for itself"),
    ("algo=retroinfer", "+algo.retrieve.pool_heads=true"): ("pool_heads=true", "use false"),
    ("algo=magicpig", "algo.retrieve.budget_tokens=83"): ("budget_tokens=83", "raise it"),
    ("algo=twilight", "algo.retrieve.top_p=95"): ("algo.retrieve.top_p=95", "0 to 1"),
    ("algo=twilight", "algo/retrieve@algo.retrieve.base=retroinfer"): ("RetroInfer", "base=quest"),
    ("algo.retrieve._target_=os.system",): ("algo.retrieve._target_='os.system'", "sparse_algos"),
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_bad_input_is_refused_in_one_line(
    overrides: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = [one for one in SMALL if one.split("=")[0] not in " ".join(overrides)]
    code, records = run((*small, *overrides), tmp_path, monkeypatch)
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.startswith("kvloom: ")
    assert shown.err.count("\n") == 1, shown.err
    assert "Traceback" not in shown.err + shown.out
    for part in REFUSED[overrides]:
        assert part in shown.err
    assert records == []


def test_good_input_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, records = run(SMALL, tmp_path, monkeypatch)
    assert code == 0
    assert len(records) == 1
