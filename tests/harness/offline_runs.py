"""Reads what W&B wrote while offline: its files are logs of messages, in LevelDB's format."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES = 32 * 1024
FILE_HEADER_BYTES = 7
CHUNK_HEADER = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """One run as W&B would upload it."""

    folder: Path
    id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    sweep_id: str = ""
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)

    @property
    def ours(self) -> dict[str, Any]:
        """The summary without what W&B itself adds and without the table."""
        return {
            key: value
            for key, value in self.summary.items()
            if key[0] != "_" and not key.startswith("samples")
        }

    @property
    def table(self) -> dict[str, Any]:
        """The one table of the run."""
        (path,) = self.folder.glob("files/media/table/samples_*.table.json")
        return dict(json.loads(path.read_text()))


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The runs under a W&B folder, by the time of their start."""
    return [read_run(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def read_run(path: Path) -> OfflineRun:
    """What the messages of one file add up to."""
    run = OfflineRun(path.parent)
    for content in messages(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        match record.WhichOneof("record_type"):
            case "run":
                identify(run, record.run)
            case "config":
                run.config |= values(record.config.update)
            case "summary":
                run.summary |= values(record.summary.update)
            case "history":
                run.summary |= values(record.history.item)
            case "exit":
                run.exit_code = record.exit.exit_code
            case "artifact":
                run.artifacts.append(record.artifact.name)
    return run


def identify(run: OfflineRun, told: Any) -> None:
    run.id, run.name, run.project = told.run_id, told.display_name, told.project
    run.group, run.job_type, run.sweep_id = told.run_group, told.job_type, told.sweep_id
    run.config |= values(told.config.update)


def values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def messages(content: bytes) -> Iterator[bytes]:
    """The messages of a log: chunks that do not cross blocks, put together again."""
    assert content[:4] == b":W&B"
    offset, pieces = FILE_HEADER_BYTES, b""
    while offset + CHUNK_HEADER.size <= len(content):
        left = BLOCK_BYTES - offset % BLOCK_BYTES
        if left < CHUNK_HEADER.size:
            offset += left
            continue
        _, length, kind = CHUNK_HEADER.unpack_from(content, offset)
        start = offset + CHUNK_HEADER.size
        offset = start + length
        pieces = (pieces if kind in (MIDDLE, LAST) else b"") + content[start:offset]
        if kind in (WHOLE, LAST):
            yield pieces
