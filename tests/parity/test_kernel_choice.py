"""A kernel is what was asked for, or the reason why not is said."""

import logging

import pytest
import torch

from backends.attention.base import AttentionKernel
from backends.attention.cpu import Cpu, unsupported
from backends.attention.select import choose_kernel
from memory_tiers.native import UnavailableError


def choose(name: str, **changes: object) -> AttentionKernel:
    """The kernel for shapes that the compiled one serves, but for the changes."""
    shapes = {"device": "cpu", "dtype": torch.float32, "head_dim": 64, "page_size": 16}
    return choose_kernel(name, **{**shapes, **changes})


UNSERVED = (
    {"head_dim": 40},
    {"head_dim": 512},
    {"dtype": torch.float16},
    {"page_size": 65},
    {"device": "meta"},
)


@pytest.mark.parametrize("changes", UNSERVED, ids=str)
def test_auto_falls_back_to_torch_and_says_why(changes, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose("auto", **changes).name == "torch"
    assert len(caplog.records) == 1
    assert "runs torch" in caplog.text


@pytest.mark.parametrize("changes", UNSERVED, ids=str)
def test_a_kernel_asked_for_by_name_runs_or_is_refused(changes):
    with pytest.raises(ValueError, match=r"backend\.kernel=cpu-cpp .* use backend\.kernel=torch"):
        choose("cpu-cpp", **changes)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"backend\.kernel=fast .* auto, torch, cpu-cpp"):
        choose("fast")


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_working_compiler_auto_is_torch(compiler, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("KVLOOM_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert choose("auto", head_dim=144).name == "torch"
    assert "compiler" in caplog.text or "failed" in caplog.text
    assert not list(tmp_path.iterdir())


def test_auto_is_the_compiled_kernel_where_it_serves(caplog):
    try:
        Cpu(64)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert choose("auto").name == "cpu-cpp"
    assert not caplog.records
    shapes = {"dtype": torch.float32, "head_dim": 64, "page_size": 16}
    assert unsupported(device=torch.device("cpu"), **shapes) is None
