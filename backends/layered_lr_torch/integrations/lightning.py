"""Lightning: a spec in ``configure_optimizers``, and a callback that logs the rate of each group."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

import layered_lr as ll
from layered_lr.errors import SpecError
from layered_lr.tools import import_tool
from layered_lr_torch.integrations.tools import rates_by_name
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.torch_types import Module


def configure_optimizers(spec: ll.Spec, module: Any, model: Module | None = None, *, monitor: str | None = None) -> Any:
    """Make what ``LightningModule.configure_optimizers`` returns: the optimizer and the scheduler of a spec.

    The length of the run and of an epoch come from the Trainer, in updates.

    Args:
        spec: Groups, optimizer, schedule, phases.
        module: The ``LightningModule``; its Trainer is asked.
        model: What the spec is about; None is the whole ``LightningModule``, whose names begin with the attribute's
            name (``model.features.0.weight``).
        monitor: The name of the logged number that ``ReduceLROnPlateau`` reads, such as ``"val_loss"``.

    Returns:
        Optimizers and schedulers as Lightning takes them.

    Raises:
        SpecError: The spec does not fit the model, or a schedule reads a metric and ``monitor`` is None.
        Unsupported: A phase switches the optimizer.

    Example:
        >>> import layered_lr as ll
        >>> from layered_lr_torch.integrations import lightning as ll_lightning
        >>> def make_module(lightning, model, spec):
        ...     class Module(lightning.LightningModule):
        ...         def configure_optimizers(self):
        ...             return ll_lightning.configure_optimizers(spec, self, model)
        ...     return Module()
    """
    module.trainer.fit_loop.setup_data()  # else the length of an epoch is not known, where max_steps alone is given
    total = module.trainer.estimated_stepping_batches
    optimizer, scheduler = ll.compile(
        spec,
        module if model is None else model,
        total_steps=None if math.isinf(total) else int(total),
        steps_per_epoch=_count_updates(module.trainer),
    )
    entries: list[dict[str, Any]] = [{"scheduler": scheduler, "interval": "step", "name": "layered_lr"}]
    units = sorted(scheduler.plan.reacting_units)
    if units and monitor is None:
        raise SpecError(
            "a schedule of the spec reads a metric: give configure_optimizers(..., monitor='val_loss'), the name "
            "under which the module logs it."
        )
    entries += [
        {
            "scheduler": _MetricReader(scheduler, unit),
            "interval": unit,
            "frequency": 1 if unit == "step" else module.trainer.check_val_every_n_epoch or 1,
            "monitor": monitor,
            "reduce_on_plateau": True,
            "name": f"layered_lr metric, each {unit}",
        }
        for unit in units
    ]
    return [optimizer], entries


def log_rates(prefix: str = "lr/") -> Any:
    """Make a callback that logs the rate of each group, by the group's name, for every update.

    Args:
        prefix: Stands before the names: ``lr/head``.

    Returns:
        A ``Callback`` of the Lightning that is imported, ``lightning`` or ``pytorch_lightning``.

    Raises:
        ToolUnavailable: Neither is installed, or only an old release.

    Example:
        >>> from layered_lr_torch.integrations import lightning as ll_lightning
        >>> def make_trainer(lightning):
        ...     return lightning.Trainer(max_epochs=3, callbacks=[ll_lightning.log_rates()])
    """
    return _make_callback_class(_find_callbacks())(prefix)


class _MetricReader(LRScheduler):
    """What Lightning takes for a ``ReduceLROnPlateau``: it gives a metric on to a scheduler, which has the state.

    Lightning demands the base class; nothing of it is used.
    """

    def __init__(self, scheduler: PlanScheduler, unit: str) -> None:
        self.optimizer, self._scheduler, self._unit = scheduler.optimizer, scheduler, unit

    def step(self, metrics: Any = None) -> None:
        """Let the schedules of the unit look at the metric."""
        self._scheduler.observe(float(metrics), self._unit)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the scheduler itself is saved beside it."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing."""


def _count_updates(trainer: Any) -> int | None:
    """Updates of an epoch; Lightning also makes one of the batches that are left at its end."""
    batches = trainer.num_training_batches
    return None if math.isinf(batches) or not batches else math.ceil(batches / trainer.accumulate_grad_batches)


def _find_callbacks() -> tuple[type, ...]:
    imported = [name for name in ("lightning.pytorch", "pytorch_lightning") if name in sys.modules]
    modules = [sys.modules[name] for name in imported] or [import_tool("lightning.pytorch", "lightning", "2.0")]
    return tuple(dict.fromkeys(module.Callback for module in modules))


@functools.cache
def _make_callback_class(bases: tuple[type, ...]) -> Callable[[str], Any]:
    class LogRates(*bases):  # type: ignore[misc]
        """Logs rates before each update."""

        def __init__(self, prefix: str) -> None:
            super().__init__()
            self.prefix = prefix

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            """Log them under the groups' names."""
            pl_module.log_dict(rates_by_name(optimizer, self.prefix))

        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return log_rates, (self.prefix,)

    return LogRates
