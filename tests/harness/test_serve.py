"""What `kvloom-vllm` refuses before it starts anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def serve(*words: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.serve", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", ["0.31.2", "0.34.0", "dev"])
def test_a_version_of_vllm_that_is_not_known_is_refused_in_one_line(version, tmp_path):
    installed = tmp_path / f"vllm-{version}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    done = serve("serve", "models/bundled", path=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("kvloom: ")
    assert f"{version} is installed" in line
    assert "make vllm" in line


@pytest.mark.parametrize("words", [(), ("bench", "latency"), ("--version",)], ids=str)
def test_nothing_but_serving_is_asked_of_it(words, tmp_path):
    done = serve(*words, path=tmp_path)
    assert done.returncode == 2
    assert "use kvloom-vllm serve MODEL" in done.stderr
