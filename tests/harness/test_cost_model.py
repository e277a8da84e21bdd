"""Simulated step times are bytes over published bandwidths."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backends.replay.cost_model import SHAPES, HardwareProfile, shape_of, simulated_step
from backends.replay.traffic import LayerTraffic
from tests.harness.traces import shared_trace
from tests.laws.configs import options

CPU = torch.device("cpu")
SHARES = (0.12, 0.2)
ROOT = Path(__file__).parents[2]


PROFILE = HardwareProfile(hbm_gb_s=1000, link_gb_s=50, disk_gb_s=5, bf16_tflops=100, transfer_us=10)


def test_simulated_times_are_bytes_over_bandwidths():
    shape = replace(
        SHAPES["qwen3-14b"], num_layers=2, num_kv_heads=1, head_dim=1, parameters=500_000_000
    )
    moved = Counter({"cpu->hbm": 50_000_000, "hbm->cpu": 5_000_000})
    layers = [
        LayerTraffic(step=7, sequences=1, read=100_000_000, moved=moved),
        LayerTraffic(step=7, sequences=1, read=400_000_000, moved=Counter()),
    ]
    step = simulated_step(layers, PROFILE, shape, shape)
    assert step.attention_ms == pytest.approx(0.1 + 0.4)
    assert step.transfer_ms == pytest.approx(1 + 2 * 0.01)
    assert step.rest_ms == pytest.approx(1)
    assert step.serial_ms == pytest.approx(0.5 + 1.02 + 1)
    assert step.overlapped_ms == pytest.approx(1.02 + (0.4 + 0.5))
    disk = replace(layers[0], moved=Counter({"disk->cpu": 5_000_000, "cpu->hbm": 0}))
    assert simulated_step([disk], PROFILE, shape, shape).transfer_ms == pytest.approx(2 * 1.01)
    twice = replace(shape, num_kv_heads=2, num_layers=4)
    wider = simulated_step(layers, PROFILE, shape, twice)
    assert wider.attention_ms == pytest.approx(4 * step.attention_ms)


def test_a_batch_may_be_bound_by_arithmetic():
    shape = replace(SHAPES["qwen3-14b"], num_layers=1, parameters=500_000_000)
    layer = LayerTraffic(step=0, sequences=1000, read=0, moved=Counter())
    step = simulated_step([layer], PROFILE, shape, shape)
    assert step.rest_ms == pytest.approx(2 * 500e6 * 1000 / 100e12 * 1e3)


def test_every_profile_but_this_machine_models_and_names_its_sources():
    for name in options("hardware"):
        text = (ROOT / "conf" / "hardware" / f"{name}.yaml").read_text()
        assert (name == "this_machine") == ("profile: null" in text)
        assert name == "this_machine" or "datasheet" in text or "technical" in text


def test_a_trace_knows_the_shape_of_its_model():
    shape = shape_of(shared_trace().header)
    assert (shape.num_layers, shape.num_kv_heads, shape.head_dim) == (3, 2, 16)
    assert shape.bytes_per_value == 4
