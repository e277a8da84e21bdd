"""The table of algorithms says what the classes do."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backends.attention.reference import Reference
from backends.batch import Batch
from harness import catalogue
from harness.catalogue import DTYPE, HEAD_DIM, TITLES, of_retriever, role_row
from harness.listing import read_option
from harness.preflight import plan_for
from harness.system import assemble
from sparse_algos.base import Algorithm
from tests.laws.configs import CONF, RETRIEVERS, composed, settings_of
from tests.laws.system import NoModel, Shape, algorithm_with, fitted_to

# Ends where segments of summaries end, but for the tokens of an answer.
CONTEXT = 4096 - 8
# Whatever the context: directories, the last queries and keys that wait, a basis of factors.
OF_A_ROW = 64 * 2**10


def row_of(role: str, name: str) -> dict[str, str]:
    cells = role_row(name, role, read_option(CONF / "algo" / role / f"{name}.yaml"))
    return dict(zip(TITLES, cells, strict=True))


def test_a_row_tells_what_a_paper_and_a_class_say() -> None:
    assert row_of("retrieve", "quest") == {
        "algorithm": "`quest`",
        "role": "retrieve",
        "idea": "bounds of q.k per page of keys",
        "unit": "blocks of 16",
        "trained": "-",
        # A minimum and a maximum of 128 numbers in bf16 for 16 tokens.
        "bytes": "32",
        "default": "256 tokens",
        "source": "arXiv:2406.10774",
    }
    assert row_of("retrieve", "oracle_topk")["unit"] == "tokens"
    assert row_of("retrieve", "retroinfer")["unit"] == "clusters of 8"
    assert row_of("prefill", "xattention")["default"] == "stride 8, threshold 0.9"
    assert row_of("prefill", "a_shape")["source"] == "arXiv:2309.17453, arXiv:2407.02490"


def test_what_composes_several_roles_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "algo"
    folder.mkdir()
    monkeypatch.setattr(catalogue, "CONF", tmp_path)
    for name, evict in (("both", "streaming"), ("one", "none")):
        text = f"defaults:\n- prefill: none\n- evict: {evict}\n- retrieve: quest\n- _self_\n"
        (folder / f"{name}.yaml").write_text(text)
    _, row = catalogue.rows()
    assert row[:3] == ("`both`", "evict + retrieve", "`streaming` + `quest`")


def test_every_row_fits_the_table() -> None:
    for cells in catalogue.rows():
        assert len(cells) == len(TITLES)
        assert all(cells) and not any("|" in cell for cell in cells)


@pytest.mark.parametrize("name", RETRIEVERS)
def test_measured_bytes_of_summaries_are_those_of_the_table(name: str) -> None:
    """Half-filled segments and places of clusters may add a fifth."""
    settings = settings_of("dense", chunk_tokens=CONTEXT)
    option = composed("algo=dense", f"algo/retrieve={name}")["algo"]
    settings = settings.model_copy(update={"algo": type(settings.algo).model_validate(option)})
    algorithm = algorithm_with(settings, None)
    num_layers = fewest_layers(algorithm)
    shape = Shape(layers=num_layers, kv_heads=1, group=1, head_dim=HEAD_DIM)
    info = replace(shape.info, dtype=DTYPE, max_tokens=2 * CONTEXT)
    algorithm = fitted_to(algorithm, info)
    plan = plan_for(settings, algorithm, info, CONTEXT + 64, torch.device("cpu"))
    one = replace(plan, sequences=1)
    attention = assemble(settings, algorithm, one, info, NoModel(num_layers), Reference()).attention
    keys = torch.randn(1, CONTEXT, 1, HEAD_DIM, dtype=DTYPE)
    table, last = attention.memory.table, keys[:, :1]
    chunk, step = Batch(table, (0,), (0,), CONTEXT), Batch(table, (0,), (CONTEXT,), 1)
    for layer in range(num_layers):
        attention.take(layer, chunk, *(keys[0],) * 3, 0.1)
        attention.sparse(layer, step, last, last, last, 0.1)
    selecting = sum(map(algorithm.retrieve.leads, range(num_layers)))
    told = of_retriever(algorithm.retrieve, num_kv_heads=1).kept * CONTEXT * selecting
    assert attention.index is not None
    assert 0.98 * told <= attention.index.peak_bytes <= 1.2 * told + OF_A_ROW * num_layers


def fewest_layers(algorithm: Algorithm) -> int:
    """Of a model that the algorithm serves."""
    for num_layers in range(1, 9):
        with suppress(ValueError):
            fitted_to(algorithm, Shape(layers=num_layers, head_dim=HEAD_DIM).info)
            return num_layers
    raise AssertionError("no such model")
