"""Logs in a file of rows: ``CSV`` and ``JSONLines``. The file always holds exactly what the run's history holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from layered_lr.errors import CheckpointError
from layered_lr.files import begins_with
from layered_lr.outputs import check_output, open_whole
from layered_lr.printed import csv_cell, csv_text
from layered_lr.strict_json import json_text
from layered_lr.training.loggers.logger import Logger
from layered_lr.training.loggers.rows import GRAD_NORM, LOGGED, RATE, Row
from layered_lr.training.row_file import append, open_to_append
from layered_lr.training.run_handle import RunHandle


class _FileLogger(Logger):
    """A logger whose log is one file. Where a run goes on or back, the file is written again from the history."""

    _begins: bytes  # what a file of this kind begins with

    def __init__(self, path: str | Path, grad_norms: bool = True) -> None:
        super().__init__(grad_norms)
        self.path = check_output(f"{type(self).__name__}: path", path, is_ours=self._is_ours).absolute()
        self.file = self.path
        self._file: IO[bytes] | None = None

    def _is_ours(self, path: Path) -> bool:
        return begins_with(path, self._begins)

    def _header(self, run: RunHandle) -> bytes:
        raise NotImplementedError

    def _text(self, rows: Iterable[Row]) -> bytes:
        raise NotImplementedError

    def _open(self, run: RunHandle) -> int:
        check_output(f"{type(self).__name__}: path", self.path, is_ours=self._is_ours)
        return self._go_back(run)

    def _go_back(self, run: RunHandle) -> int:
        self._close()
        try:
            with open_whole(self.path) as file:
                file.write(self._header(run))
            self._file = open_to_append(self.path)
        except OSError as error:
            raise self._failure(error) from None
        return 0

    def _add(self, rows: Sequence[Row]) -> None:
        if self._file is not None:
            try:
                append(self._file, self._text(rows))
            except OSError as error:
                raise self._failure(error) from None

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _failure(self, error: OSError) -> CheckpointError:
        return CheckpointError(f"{self.path}: the log cannot be written: {error.strerror or error}.")


class CSV(_FileLogger):
    """Writes a row of each update to a CSV file: loss, rates and gradient norms of the groups, accuracies, metrics.

    The columns are ``step``, ``epoch`` (both 0-based), ``loss``, ``rate/GROUP``, ``grad_norm/GROUP``, ``accuracy``,
    ``ema_accuracy``, and ``logged/NAME`` of each of the run's metrics. What was not measured at an update is empty.
    When the run ends, or goes on after a stop, the file is the one of a run without a stop.

    Args:
        path: The file. A log of this library that is there already is replaced, and nothing else.
        grad_norms: Whether to measure the gradient norms.

    Raises:
        SpecError: The path is no place for a file, or somebody else's file is there.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> options = dict(model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = ll.CSV(f"{folder}/log.csv", grad_norms=False)
        ...     result = ll.run(ll.Spec(ll.SGD(0.1)), callbacks=[log], **options)
        ...     print(Path(folder, "log.csv").read_text().splitlines()[0])
        step,epoch,loss,rate/rest,accuracy,ema_accuracy
    """

    _begins = b"step,epoch,loss,"

    def __init__(self, path: str | Path, grad_norms: bool = True) -> None:
        super().__init__(path, grad_norms)
        self._columns: list[str] = []
        self._metrics: list[str] = []
        self._in_epoch = 1

    def _header(self, run: RunHandle) -> bytes:
        prefixes = (RATE, GRAD_NORM) if self.wants_grad_norms else (RATE,)
        by_group = [prefix + group.name for prefix in prefixes for group in run.plan.groups]
        self._metrics = [LOGGED + name for name in run.metrics]
        self._columns = ["loss", *by_group, "accuracy", "ema_accuracy", *self._metrics]
        self._in_epoch = run.steps_per_epoch
        return csv_text([["step", "epoch", *map(csv_cell, self._columns)]]).encode()

    def _text(self, rows: Iterable[Row]) -> bytes:
        updates: dict[int, dict[str, float]] = {}
        for row in rows:  # a metric has a row of its own, after that of the update
            if "loss" in row.values:
                updates[row.step] = row.values
            elif row.step in updates:
                updates[row.step].update((name, row.values[name]) for name in self._metrics if name in row.values)
        cells = (
            [step, step // self._in_epoch, *(_cell(values.get(column)) for column in self._columns)]
            for step, values in updates.items()
        )
        return csv_text(cells).encode()


class JSONLines(_FileLogger):
    """Writes a line of JSON for each update: loss, rates and gradient norms of the groups, accuracies.

    The first line says what the log is of. Each other line has ``step``, and numbers by the names ``loss``,
    ``rate/GROUP``, ``grad_norm/GROUP``, ``accuracy``, ``ema_accuracy`` and ``logged/NAME`` (of callbacks). Numbers
    that are not finite are the words ``"nan"``, ``"inf"`` and ``"-inf"``.

    Args:
        path: The file. A log of this library that is there already is replaced, and nothing else.
        grad_norms: Whether to measure the gradient norms.

    Raises:
        SpecError: The path is no place for a file, or somebody else's file is there.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> options = dict(model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = ll.JSONLines(f"{folder}/log.jsonl", grad_norms=False)
        ...     result = ll.run(ll.Spec(ll.SGD(0.1)), callbacks=[log], **options)
        ...     lines = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
        >>> lines[1]["step"], lines[1]["rate/rest"], sorted(lines[2])
        (0, 0.1, ['accuracy', 'loss', 'rate/rest', 'step'])
    """

    _begins = b'{"log": "layered_lr'

    def _header(self, run: RunHandle) -> bytes:
        groups = [group.name for group in run.plan.groups]
        about = {"log": "layered_lr 1", "backend": run.backend, "groups": groups, "total_steps": run.total_steps}
        return (json_text(about) + "\n").encode()

    def _text(self, rows: Iterable[Row]) -> bytes:
        return "".join(json_text({"step": row.step, **row.values}) + "\n" for row in rows).encode()


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
