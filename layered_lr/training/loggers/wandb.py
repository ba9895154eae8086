"""``WandB``: a log of Weights & Biases, online or offline."""

from __future__ import annotations

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

_MODES = ("online", "offline", "shared", "disabled")


class WandB(Logger):
    """Logs to Weights & Biases: loss, rates, gradient norms, accuracies and weight norms, as ``TensorBoard`` does.

    A run with a folder has the same run in Weights & Biases when it goes on (``resume="allow"``, by the folder's
    identifier). There a step can be logged only once, in order: of updates that a run makes again after a stop, the
    numbers of the first time stay.

    Args:
        project: The project's name.
        name: The run's name there; None lets Weights & Biases choose one.
        mode: ``"online"``, ``"offline"``, ``"shared"`` or ``"disabled"``; None is as ``WANDB_MODE`` says, else online.
        folder: Where its files go; None is the current folder.
        grad_norms: Whether to measure the gradient norms.

    Raises:
        ToolUnavailable: ``wandb`` is not installed.
        SpecError: An argument is wrong.

    Example:
        >>> import layered_lr as ll
        >>> def train(spec):
        ...     return ll.run(spec, callbacks=[ll.WandB("digits", mode="offline")])
    """

    asks_model = True

    def __init__(
        self,
        project: str,
        name: str | None = None,
        mode: str | None = None,
        folder: str | Path | None = None,
        grad_norms: bool = True,
    ) -> None:
        super().__init__(grad_norms)
        if not isinstance(project, str) or not project.strip():
            raise SpecError(f"WandB(project={shown(project)}): must be a project's name.")
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise SpecError(f"WandB(name={shown(name)}): must be a run's name, or None.")
        if mode is not None and (not isinstance(mode, str) or mode not in _MODES):
            raise SpecError(f"WandB(mode={shown(mode)}): must be one of {', '.join(map(repr, _MODES))}, or None.")
        self.project, self.name, self.mode = project, name, mode
        self.folder = None if folder is None else as_path("WandB: folder", folder).absolute()
        self._tool: Any = import_tool("wandb", "wandb", "0.18")
        self._run: Any = None

    def _open(self, run: RunHandle) -> int:
        self._close()
        identity = identity_of(run)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._run = self._tool.init(
            project=self.project,
            name=self.name,
            mode=self.mode,
            dir=None if self.folder is None else str(self.folder),
            id=identity,
            resume=None if identity is None else "allow",
            config={"backend": run.backend, "total_steps": run.total_steps, "spec": str(run.plan.spec)},
            reinit="finish_previous",
        )
        return run.step

    def _go_back(self, run: RunHandle) -> int:
        return run.step

    def _add(self, rows: Sequence[Row]) -> None:
        if self._run is not None:
            for row in rows:
                self._run.log(row.values, step=row.step)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Log accuracies and weight norms."""
        super().on_evaluation(event)
        if self._stream is not None:
            self._stream.add_evaluation(weight_norms(weights_by_group(event.run)))

    def _close(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.finish()
