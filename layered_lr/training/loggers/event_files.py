"""TensorBoard's event files, written with TensorBoard's own classes and without any framework."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.errors import SpecError
from layered_lr.tools import import_tool

_PACKAGE, _OLDEST = "tensorboard", "2.16"
_KIND, _OURS = ".tfevents.", ".layered_lr"
_BUCKETS = 30


def check_tensorboard() -> None:
    """Make sure that TensorBoard is installed.

    Raises:
        ToolUnavailable: It is missing or too old.
    """
    import_tool("tensorboard.compat.proto.event_pb2", _PACKAGE, _OLDEST)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot hold the log.

    Raises:
        SpecError: It is no folder, or another program's event files are in it, which TensorBoard would mix with ours.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise SpecError(f"TensorBoard: folder={str(folder)!r}: is no folder. Give the name of a new one.")
    if theirs := [name for name in _event_files(folder) if not name.endswith(_OURS)]:
        raise SpecError(
            f"TensorBoard: folder={str(folder)!r}: holds event files of another program ({theirs[0]}), which "
            "TensorBoard would mix with these. Give a folder of its own."
        )


def _event_files(folder: Path) -> list[str]:
    try:
        return sorted(file.name for file in folder.iterdir() if _KIND in file.name)
    except OSError:
        return []


def last_step_of(folder: Path, tag: str) -> int:
    """The last update of which a folder's event files hold a number; -1 where they hold none.

    Args:
        folder: Of the log.
        tag: The number's name.
    """
    loader = import_tool("tensorboard.backend.event_processing.event_file_loader", _PACKAGE, _OLDEST)
    last = -1
    for name in _event_files(folder):
        for event in loader.LegacyEventFileLoader(str(folder / name)).Load():
            if event.HasField("session_log"):
                last = min(last, event.step - 1)
            elif any(value.tag == tag for value in event.summary.value):
                last = max(last, event.step)
    return last


class EventFile:
    """One event file, open to write. TensorBoard drops what earlier files of the folder hold from ``step`` on.

    Args:
        folder: Made where it is missing.
        step: The first update that this file is of.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._events: Any = import_tool("tensorboard.compat.proto.event_pb2", _PACKAGE, _OLDEST)
        self._summaries: Any = import_tool("tensorboard.compat.proto.summary_pb2", _PACKAGE, _OLDEST)
        records = import_tool("tensorboard.summary.writer.record_writer", _PACKAGE, _OLDEST)
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = (folder / _next_name(folder)).open("xb")
        self._records = records.RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self.begin(step)

    def begin(self, step: int) -> None:
        """Let what was written of the updates from ``step`` on count no more."""
        self._write(step=step, session_log=self._events.SessionLog(status=self._events.SessionLog.START))

    def add_numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add numbers by name."""
        self._add(step, [self._value(tag=name, simple_value=number) for name, number in numbers.items()])

    def add_histogram(self, step: int, name: str, numbers: NDArray[Any]) -> None:
        """Add the distribution of some numbers; those that are not finite are left out."""
        finite = numbers[np.isfinite(numbers)].astype(np.float64)
        if not finite.size:
            return
        counts, edges = np.histogram(finite, _BUCKETS)
        made = self._summaries.HistogramProto(
            min=float(finite.min()),
            max=float(finite.max()),
            num=finite.size,
            sum=float(finite.sum()),
            sum_squares=float(finite @ finite),
            bucket_limit=edges[1:].tolist(),
            bucket=counts.tolist(),
        )
        self._add(step, [self._value(tag=name, histo=made)])

    def add_image(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add a picture.

        Args:
            step: Of which update.
            name: Of the picture.
            pixels: Shape (H, W, 3).
        """
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        height, width, channels = pixels.shape
        made = self._summaries.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=content.getvalue()
        )
        self._add(step, [self._value(tag=name, image=made)])

    def add_text(self, step: int, name: str, text: str) -> None:
        """Add a text in Markdown."""
        tensors: Any = import_tool("tensorboard.compat.proto.tensor_pb2", _PACKAGE, _OLDEST)
        kinds: Any = import_tool("tensorboard.compat.proto.types_pb2", _PACKAGE, _OLDEST)
        plugin = self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        made = tensors.TensorProto(dtype=kinds.DT_STRING, string_val=[text.encode()])
        self._add(
            step, [self._value(tag=name, tensor=made, metadata=self._summaries.SummaryMetadata(plugin_data=plugin))]
        )

    def flush(self) -> None:
        """Hand all that was added to the system."""
        self._file.flush()

    def close(self) -> None:
        """Add nothing more."""
        self._file.close()

    def _value(self, **fields: Any) -> Any:
        return self._summaries.Summary.Value(**fields)

    def _add(self, step: int, values: list[Any]) -> None:
        self._write(step=step, summary=self._summaries.Summary(value=values))

    def _write(self, **fields: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())


def _next_name(folder: Path) -> str:
    """A name behind all others there: TensorBoard reads the files of a folder in the order of their names."""
    stamps = [name.partition(_KIND)[2].partition(".")[0] for name in _event_files(folder)]
    newest = max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0)
    return f"events.out{_KIND}{max(int(time.time()), newest + 1):010d}.{platform.node()}.{os.getpid()}{_OURS}"
