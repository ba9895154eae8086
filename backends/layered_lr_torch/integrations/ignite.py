"""PyTorch-Ignite: a scheduler's steps as handlers of an engine. MONAI's trainers are such engines."""

from __future__ import annotations

from typing import Any

from layered_lr.tools import import_tool
from layered_lr_torch.integrations.tools import rates_by_name, tell_metrics
from layered_lr_torch.plan_scheduler import PlanScheduler


def attach(
    trainer: Any, scheduler: PlanScheduler, *, evaluator: Any = None, gradient_accumulation_steps: int = 1
) -> None:
    """Let an engine call a scheduler after each update, and note the rates.

    The rates of the update that was made stand in ``trainer.state.rates``, by the groups' names, when other handlers of
    ``ITERATION_COMPLETED`` run that were added later. Save the scheduler as any object:
    ``Checkpoint({"model": model, "optimizer": optimizer, "scheduler": scheduler, "trainer": trainer}, ...)``.

    Args:
        trainer: The engine whose iterations make updates.
        scheduler: From ``ll.compile`` or ``ll.scheduler``.
        evaluator: The engine of evaluations; ``ReduceLROnPlateau`` reads its metrics (``loss``, ``accuracy``).
        gradient_accumulation_steps: Iterations of an update, as ``create_supervised_trainer`` takes it.

    Raises:
        ToolUnavailable: Ignite is missing or too old.

    Example:
        >>> from layered_lr_torch.integrations import ignite as ll_ignite
        >>> def prepare(trainer, evaluator, scheduler):
        ...     ll_ignite.attach(trainer, scheduler, evaluator=evaluator)
    """
    events = import_tool("ignite.engine", "pytorch-ignite", "0.4.11").Events

    def go_on(engine: Any) -> None:
        engine.state.rates = rates_by_name(scheduler.optimizer)
        scheduler.step()

    trainer.add_event_handler(events.ITERATION_COMPLETED(every=gradient_accumulation_steps), go_on)
    if evaluator is not None:
        evaluator.add_event_handler(events.COMPLETED, lambda engine: tell_metrics(scheduler, engine.state.metrics, ""))
