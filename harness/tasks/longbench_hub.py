"""LongBench's mirror on the hub, of tables that need no code of theirs to be run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

REPOSITORY = "Xnhyacinth/LongBench"


def hub_rows(task: str, *, download: bool) -> Iterable[Mapping[str, Any]]:
    """The rows of a task, from the hub's cache; ValueError that says what fetches an absent one."""
    wanted = [f"{task}/*", f"*/{task}/*"]
    try:
        folder = snapshot_download(
            REPOSITORY, repo_type="dataset", local_files_only=not download, allow_patterns=wanted
        )
    except (OSError, ValueError) as error:
        why = f" ({str(error).splitlines()[0]})" if download else ""
        raise ValueError(_absent(task, why)) from None
    return table_rows(Path(folder), task)


def table_rows(folder: Path, task: str) -> Iterable[Mapping[str, Any]]:
    """The rows of a task's tables in a copy of the repository; ValueError where there are none."""
    tables = sorted(str(path) for path in folder.rglob(f"{task}/test*.parquet"))
    if not tables:
        raise ValueError(_absent(task, ""))
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError(
            f"task=longbench without task.path reads tables with {error.name}, not installed "
            "here: pip install 'kvloom[eval]', or give task.path=FOLDER"
        ) from None
    rows: Iterable[Mapping[str, Any]] = load_dataset("parquet", data_files=tables, split="train")
    return rows


def _absent(task: str, why: str) -> str:
    return (
        f"task=longbench: no data of {task} in the hub's cache{why}; put {task}.jsonl into a "
        "folder and give task.path=FOLDER, or fetch all: "
        f"hf download {REPOSITORY} --repo-type dataset (task.download=true fetches what it needs)"
    )
