"""What cannot run inside vLLM ends with code 2 and the reason, and is never a run of vLLM alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from tests.harness.cli_runs import SMALL, run
from tests.laws.configs import options
from tests.vllm.engines import MODEL, ROOT, engine_of
from tests.vllm.test_full_budget import SERVED

MIXED = {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1,
         "num_key_value_heads": 1, "head_dim": 32}  # fmt: skip
NOT_SERVED = [name for name in options("algo") if name not in {"dense", *SERVED}]
CASES = {
    ("tier=cpu",): "tier=cpu is not served; use tier=hbm",
    ("tier=hbm+cpu+disk", "tier.hbm.size=auto"): "or tier=hbm+cpu",
    ("tier=hbm+cpu", "budget=static"): "use budget=none",
    ("probe=on",): "probe=on",
    ("trace=on",): "trace=on",
    ("backend.prefill=layer_segmented",): "backend.prefill",
    ("backend.engine.block_tokens=72",): "no multiple of partition.page_tokens=16",
    ("backend.engine.block_tokens=48",): "block",
    ("algo.retrieve.block_tokens=64", "backend.engine.block_tokens=32"): "algo.retrieve=64",
}


@pytest.mark.parametrize("name", NOT_SERVED)
def test_an_algorithm_that_is_not_served_is_refused_by_name(name, tmp_path, monkeypatch, capsys):
    code, records = run(("backend=vllm", f"algo={name}", *SMALL), tmp_path, monkeypatch)
    said = capsys.readouterr().err
    assert (code, records) == (2, [])
    assert f"backend=vllm, algo={name}: algo." in said


@pytest.mark.parametrize(("overrides", "reason"), CASES.items(), ids=str)
def test_what_cannot_run_is_refused_with_the_reason(
    overrides, reason, tmp_path, monkeypatch, capsys
):
    code, records = run(("backend=vllm", *SMALL, *overrides), tmp_path, monkeypatch)
    assert (code, records) == (2, [])
    assert reason in capsys.readouterr().err


def test_all_that_stands_against_it_is_told_at_once(tmp_path, monkeypatch, capsys):
    overrides = ("algo=infllm", "algo/prefill=a_shape", "tier=cpu", "probe=on")
    code, _ = run(("backend=vllm", *SMALL, *overrides), tmp_path, monkeypatch)
    said = capsys.readouterr().err
    assert code == 2
    for reason in ("use tier=hbm", "probe=on", "algo.prefill skips", "queries after them"):
        assert reason in said


@pytest.mark.parametrize("kind", ["window", "latent"])
def test_models_whose_attention_is_another_are_refused(kind, tmp_path, monkeypatch, capsys):
    small = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "vocab_size": 4517,
    }
    config = (
        transformers.Qwen3Config(**small, **MIXED)
        if kind == "window"
        else transformers.DeepseekV3Config(**small, num_key_value_heads=2)
    )
    config.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(MODEL) / name, tmp_path / "model")
    overrides = ("backend=vllm", "model=hf", f"model.path={tmp_path / 'model'}", *SMALL)
    code, records = run(overrides, tmp_path / "store", monkeypatch)
    assert (code, records) == (2, [])
    assert {"window": "sliding window", "latent": "latent KV"}[kind] in capsys.readouterr().err


def test_a_plug_in_that_was_not_loaded_is_no_dense_run(tmp_path):
    done = subprocess.run(
        [sys.executable, "harness/run.py", "backend=vllm", *SMALL, f"results={tmp_path}"],
        cwd=ROOT,
        env=os.environ | {"VLLM_PLUGINS": "another"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "the plug-in kvloom is not active" in done.stderr
    # vLLM tells of an engine's start by the dozen of lines, where it is asked to.
    assert " INFO " not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("record.json"))


def test_a_run_measures_vllm_beside_the_system_in_one_record(tmp_path, monkeypatch):
    code, (record,) = run(("backend=vllm", *SMALL), tmp_path, monkeypatch)
    assert code == 0
    assert record["system"]["backend"]["name"] == "vllm"
    effective = record["config"]["effective"]
    assert set(effective["dense"]["implementations"].values()) == {"CPUAttentionBackendImpl"}
    assert set(effective["quest"]["implementations"].values()) == {"PagedImpl"}
    assert effective["quest"]["rows_chosen"] > 0
    assert record["arms"]["quest"]["metrics"]["achieved_sparsity"]["value"] > 0
    assert record["arms"]["dense"]["metrics"]["achieved_sparsity"]["value"] is None


def test_an_engine_refuses_layers_that_are_not_served_by_their_numbers(tmp_path):
    transformers.MistralConfig(
        vocab_size=500,
        num_hidden_layers=2,
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=128,
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"layer 1 has a sliding window of 128 tokens"):
        engine_of("algo=quest", path=str(tmp_path), random_weights=True)
