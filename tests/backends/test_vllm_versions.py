"""Versions of vLLM that nobody looked at are refused, and so is none."""

import pytest

from backends.vllm.versions import installed_version, refusal_of
from tests.harness.cli_runs import SMALL, run


@pytest.mark.parametrize("known", ["0.32.0", "0.32.0+cpu", "0.33.1", "0.33.0rc1"])
def test_known_versions_are_taken(known):
    assert refusal_of(known) is None


@pytest.mark.parametrize("other", ["0.31.9", "0.34.0", "1.32.0", "0.2.0", "dev", "0", None])
def test_other_versions_are_refused_with_the_way_out(other):
    reason = refusal_of(other)
    assert "backend=vllm needs vLLM >=0.32,<0.34" in reason
    assert "make vllm" in reason
    assert (other or "none is installed") in reason


def test_a_run_with_another_version_ends_before_anything_is_started(tmp_path, monkeypatch, capsys):
    found = tmp_path / "vllm-0.99.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.99.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_version() == "0.99.0"
    monkeypatch.delitem(__import__("sys").modules, "backends.vllm.compat", raising=False)
    code, records = run(("backend=vllm", *SMALL), tmp_path / "store", monkeypatch)
    assert (code, records) == (2, [])
    assert "0.99.0 is installed" in capsys.readouterr().err
