"""TensorBoard: an event file for each trial, with its numbers and its config as text."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.loggers.base import Logger, numbers
from harness.stored.trials import Trial


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Logger):
    """A folder for each trial below `folder`, by experiment and cell."""

    folder: str

    def log(self, trial: Trial) -> None:
        """See Logger."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        record, cell = trial.record, trial.cell_folder
        target = Path(self.folder) / cell.parent.name / cell.name / trial.folder.name
        target.parent.mkdir(parents=True, exist_ok=True)
        values = [Summary.Value(tag=k, simple_value=v) for k, v in numbers(record).items()]
        text = f"```\n{json.dumps(record.config.resolved, indent=1)}\n```"
        config = Summary.Value(
            tag="cfg",
            tensor=TensorProto(dtype="DT_STRING", string_val=[text.encode()]),
            metadata=create_summary_metadata("cfg", ""),
        )
        with TemporaryDirectory(dir=target.parent, prefix=".tmp-") as temporary:
            writer = EventFileWriter(temporary)
            wall_time, summary = record.run.ended_at.timestamp(), Summary(value=[*values, config])
            writer.add_event(Event(wall_time=wall_time, step=0, summary=summary))
            writer.close()
            target.mkdir(exist_ok=True)
            for old in target.iterdir():
                old.unlink()
            for new in Path(temporary).iterdir():
                new.rename(target / new.name)
