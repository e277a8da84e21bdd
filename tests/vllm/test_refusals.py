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
from tests.vllm.engines import MODEL, ROOT
from tests.vllm.test_full_budget import SERVED

NOT_SERVED = [name for name in options("algo") if name not in {"dense", *SERVED}]
CASES = {
    ("tier=hbm+cpu",): "use tier=hbm",
    ("probe=on",): "probe=on",
    ("trace=on",): "trace=on",
    ("backend.prefill=layer_segmented",): "backend.prefill",
    ("backend.engine.block_tokens=72",): "no multiple of partition.page_tokens=16",
    ("backend.engine.block_tokens=48",): "block",
    ("algo.retrieve.block_tokens=64", "backend.engine.block_tokens=32"): "algo.retrieve=64",
    # All that is against it, at once.
    ("algo=snapkv", "algo/retrieve=infllm", "tier=hbm+cpu"): "queries after them",
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


@pytest.mark.parametrize("kind", ["window", "latent"])
def test_models_whose_attention_is_another_are_refused(kind, tmp_path, monkeypatch, capsys):
    small = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "vocab_size": 4517,
    }
    config = (
        transformers.MistralConfig(**small, sliding_window=128, num_key_value_heads=1)
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
