"""The folder of a run: its recipe and plan, its metrics and events as they come, and its checkpoints."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from layered_lr.errors import CheckpointError
from layered_lr.printed import csv_cell
from layered_lr.state.checkpoints import CheckpointFolder

RECIPE, PLAN, METRICS, LOGGED = "recipe.toml", "plan.json", "metrics.csv", "logged.csv"
EVENTS, LOCK, CHECKPOINTS = "events.jsonl", "lock", "checkpoints"


class RunFolder:
    """A run's folder, locked as long as this object is open, so that one run at a time writes there.

    The operating system holds the lock, on the file ``lock``: it ends with its process, however the process ends. The
    object is a context manager.

    Args:
        path: The folder; made where it is missing.

    Raises:
        CheckpointError: Another process writes there, or it cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics, self._logged = _RowFile(path / METRICS), _RowFile(path / LOGGED)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be used as the run's folder: {error.strerror or error}.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            self._lock.close()
            raise CheckpointError(
                f"{path}: {owner} is writing there. Wait for it, stop it, or choose another folder."
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
            self._lock.truncate(0)
            os.write(self._lock.fileno(), f"process {os.getpid()} on {platform.node()}".encode())

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Let others write there."""
        self._metrics.close()
        self._logged.close()
        self._lock.close()

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has begun there already."""
        return (self.path / RECIPE).exists()

    def described(self) -> dict[str, Any]:
        """What ``plan.json`` says; empty where it is missing or no such table."""
        try:
            found = json.loads((self.path / PLAN).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def checkpoints(self, keep: int, keep_best: bool) -> CheckpointFolder:
        """The run's checkpoints. What a killed run left unfinished is removed."""
        found = CheckpointFolder(self.path / CHECKPOINTS, keep, keep_best)
        found.clean()
        return found

    def event(self, what: str, **values: Any) -> None:
        """Append a line to ``events.jsonl``; it is on the disk when this returns.

        Raises:
            CheckpointError: It cannot be written.
        """
        line = json.dumps({"event": what, **values}) + "\n"
        with _writing(self.path / EVENTS), (self.path / EVENTS).open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            begun = file.read(1) not in (b"", b"\n")  # by a run that was killed
            _append(file, ("\n" * begun + line).encode())
            os.fsync(file.fileno())

    def begin_metrics(self, columns: Sequence[str], step: int) -> None:
        """Open ``metrics.csv`` without the rows of ``step`` and later: the run goes on there and writes them again.

        Args:
            columns: The names of the row's numbers after ``step``.
            step: The first update to come.

        Raises:
            CheckpointError: It cannot be written.
        """
        file = self.path / METRICS
        with _writing(file):
            kept = [row for row in _rows(file) if row[0].isdecimal() and int(row[0]) < step] if step else []
        self._metrics.begin([["step", *columns], *kept])

    def add_metrics(self, rows: Iterable[Sequence[float]]) -> None:
        """Append rows of ``step`` and its numbers, with every digit; the system has them when this returns.

        Raises:
            CheckpointError: They cannot be written; then none of them is there.
        """
        self._metrics.add([int(step), *map(repr, map(float, rest))] for step, *rest in rows)

    @property
    def has_logged(self) -> bool:
        """Whether callbacks have logged numbers there."""
        return (self.path / LOGGED).exists()

    def begin_logged(self) -> None:
        """Open ``logged.csv`` without any rows.

        Raises:
            CheckpointError: It cannot be written.
        """
        self._logged.begin([["step", "name", "value"]])

    def add_logged(self, rows: Iterable[tuple[int, str, float]]) -> None:
        """Append rows of updates made, name and number; the system has them when this returns.

        Raises:
            CheckpointError: They cannot be written; then none of them is there.
        """
        if not self._logged.is_open:
            self.begin_logged()
        self._logged.add((step, csv_cell(name), repr(value)) for step, name, value in rows)


class _RowFile:
    """A CSV file that grows row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def begin(self, rows: Iterable[Sequence[Any]]) -> None:
        """Open the file with these rows, and no others."""
        with _writing(self.path):
            temporary = self.path.with_suffix(".new")
            with temporary.open("w", encoding="utf-8", newline="") as opened:
                csv.writer(opened).writerows(rows)
            temporary.replace(self.path)
            self.close()
            self._file = self.path.open("ab", buffering=0)

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append all of these rows, or none."""
        if self._file is None:
            raise RuntimeError(f"{self.path.name}: begin comes first")
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        with _writing(self.path):
            _append(self._file, text.getvalue().encode())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _rows(file: Path) -> list[list[str]]:
    """The whole rows of a CSV that a killed run may have cut off in the middle of one."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [row for row in csv.reader(whole.splitlines()) if row]


def _append(file: IO[bytes], data: bytes) -> None:
    """Write to the end of an unbuffered file: all of it, or on an error nothing."""
    size = file.seek(0, os.SEEK_END)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(size)
        raise


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be written: {error.strerror or error}.") from None
