"""``MLflow``: a log in MLflow's tracking store, in a folder or on a server."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.files import as_path
from layered_lr.printed import shown
from layered_lr.tools import import_tool
from layered_lr.training.events import EvaluationEvent
from layered_lr.training.loggers.group_norms import weight_norms, weights_by_group
from layered_lr.training.loggers.logger import Logger
from layered_lr.training.loggers.rows import Row
from layered_lr.training.loggers.run_identity import identity_of
from layered_lr.training.run_handle import RunHandle

_TAG = "layered_lr.run"
_BLOCK = 200  # MLflow takes at most 1,000 numbers at a time


class MLflow(Logger):
    """Logs to MLflow: loss, rates, gradient norms, accuracies and weight norms, as ``TensorBoard`` does.

    A run with a folder has the same run in MLflow when it goes on, found by the folder's identifier. Characters of a
    group's name that MLflow does not take become ``_``.

    Args:
        experiment: The experiment's name.
        name: The run's name there; None lets MLflow choose one.
        folder: Where the store is; None is as ``MLFLOW_TRACKING_URI`` says, which may be a server.
        grad_norms: Whether to measure the gradient norms.

    Raises:
        ToolUnavailable: ``mlflow`` is not installed.
        SpecError: An argument is wrong.

    Example:
        >>> import layered_lr as ll
        >>> def train(spec):
        ...     return ll.run(spec, callbacks=[ll.MLflow("digits", folder="mlruns")])
    """

    asks_model = True

    def __init__(
        self,
        experiment: str = "layered_lr",
        name: str | None = None,
        folder: str | Path | None = None,
        grad_norms: bool = True,
    ) -> None:
        super().__init__(grad_norms)
        if not isinstance(experiment, str) or not experiment.strip():
            raise SpecError(f"MLflow(experiment={shown(experiment)}): must be an experiment's name.")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise SpecError(f"MLflow(name={shown(name)}): must be a run's name, or None.")
        self.experiment, self.name = experiment, name
        self.folder = None if folder is None else as_path("MLflow: folder", folder).absolute()
        self._tool: Any = import_tool("mlflow", _package(), "2.14")
        self._client: Any = None
        self._id = ""
        self._names: dict[str, str] = {}

    def _open(self, run: RunHandle) -> int:
        self._close()
        where = None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            where = f"sqlite:///{self.folder / 'mlflow.db'}"
        self._client = self._tool.MlflowClient(tracking_uri=where)
        self._id = self._find_or_make(identity_of(run))
        self._client.log_param(self._id, "backend", run.backend)
        return run.step

    def _find_or_make(self, identity: str | None) -> str:
        """The run's identifier in MLflow: the one that it had before, or a new one."""
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        if identity is not None:
            runs = self._client.search_runs([experiment], filter_string=f"tags.`{_TAG}` = '{identity}'", max_results=1)
            if runs:
                self._client.update_run(runs[0].info.run_id, status="RUNNING")
                return str(runs[0].info.run_id)
        made = self._client.create_run(
            experiment, run_name=self.name, tags={} if identity is None else {_TAG: identity}
        )
        return str(made.info.run_id)

    def _go_back(self, run: RunHandle) -> int:
        return run.step

    def _add(self, rows: Sequence[Row]) -> None:
        if self._client is None:
            return
        metric, now = self._tool.entities.Metric, self._tool.utils.time.get_current_time_millis()
        numbers = [
            metric(self._named(name), value, now, row.step) for row in rows for name, value in row.values.items()
        ]
        for start in range(0, len(numbers), _BLOCK):
            self._client.log_batch(self._id, metrics=numbers[start : start + _BLOCK], synchronous=True)

    def _named(self, name: str) -> str:
        """The number's name as MLflow takes it, another one for each."""
        if name not in self._names:
            plain = re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)
            while plain in self._names.values():
                plain += "_"
            self._names[name] = plain
        return self._names[name]

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Log accuracies and weight norms."""
        super().on_evaluation(event)
        if self._stream is not None:
            self._stream.add_evaluation(weight_norms(weights_by_group(event.run)))

    def _close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.set_terminated(self._id)


def _package() -> str:
    """What MLflow is installed as: whole, or without its server."""
    for name in ("mlflow", "mlflow-skinny"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    return "mlflow"
