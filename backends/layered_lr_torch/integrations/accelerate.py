"""accelerate: a scheduler that goes on once an update, however many processes there are."""

from __future__ import annotations

from typing import Any

from layered_lr.tools import import_tool
from layered_lr_torch.plan_scheduler import PlanScheduler


def prepare_scheduler(accelerator: Any, scheduler: PlanScheduler) -> Any:
    """Prepare a scheduler as ``accelerator.prepare`` does, but let it count updates.

    What accelerate itself prepares goes on as many steps in an update as there are processes. It also leaves out steps
    of batches whose gradients are only accumulated, and of updates that the scaler leaves out; this one does so too.

    Args:
        accelerator: The ``accelerate.Accelerator``. Prepare the model and the optimizer with it before.
        scheduler: From ``ll.compile`` or ``ll.scheduler``. Tell it metrics itself: ``scheduler.step(metrics=...)``.

    Returns:
        The ``AcceleratedScheduler``: call its ``step()`` after each ``optimizer.step()``. It is part of what
        ``accelerator.save_state`` saves.

    Raises:
        ToolUnavailable: accelerate is missing or too old.

    Example:
        >>> from layered_lr_torch.integrations import accelerate as ll_accelerate
        >>> def prepare(accelerator, model, optimizer, scheduler):
        ...     model, optimizer = accelerator.prepare(model, optimizer)
        ...     return model, optimizer, ll_accelerate.prepare_scheduler(accelerator, scheduler)
    """
    import_tool("accelerate", "accelerate", "0.30")
    prepared = accelerator.prepare_scheduler(scheduler)
    prepared.split_batches = True  # then it takes one step in an update
    return prepared
