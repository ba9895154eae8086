"""Hugging Face's Trainer: any of its kinds, with the optimizer and the scheduler of a spec."""

from __future__ import annotations

from typing import Any

import layered_lr as ll
from layered_lr.tools import import_tool
from layered_lr_torch.integrations.tools import check_clips_once, rates_by_name, tell_metrics
from layered_lr_torch.own_optimizer import build_bare_optimizer, innermost
from layered_lr_torch.plan_scheduler import PlanScheduler


def use_spec(trainer: Any, spec: ll.Spec) -> None:
    """Let a Trainer train with the optimizer and the scheduler of a spec, and log the rate of each group.

    Both are made when ``trainer.train()`` asks for them, for the model that the trainer then has, with its count of
    updates. An optimizer that was given (``optimizers=(optimizer, None)``) stays: make it from ``ll.param_groups``.
    After each evaluation ``ReduceLROnPlateau`` reads ``loss`` and ``accuracy`` (``eval_loss``, ``eval_accuracy``).
    The state is saved and loaded by the trainer's own checkpoints.

    Args:
        trainer: A ``transformers.Trainer``, or of a class derived from it.
        spec: Groups, optimizer, schedule, phases. ``learning_rate``, ``weight_decay``, ``warmup_steps``, ``optim`` and
            ``lr_scheduler_type`` of the ``TrainingArguments`` do not count any more.

    Raises:
        ToolUnavailable: transformers is missing or too old.
        SpecError: When training begins: the spec does not fit the model, or spec and trainer both clip (the trainer
            does so unless ``max_grad_norm=0``).

    Example:
        >>> from layered_lr_torch.integrations import transformers as ll_transformers
        >>> def train(trainer, spec):
        ...     ll_transformers.use_spec(trainer, spec)
        ...     return trainer.train()
    """
    callback = import_tool("transformers", "transformers", "4.40").TrainerCallback
    _check_scheduler(trainer)
    rates: dict[str, float] = {}
    log = trainer.log

    def create_optimizer(model: Any = None) -> Any:
        if trainer.optimizer is None:
            trainer.optimizer = build_bare_optimizer(spec, trainer.model if model is None else model)
        return trainer.optimizer

    def create_scheduler(num_training_steps: int, optimizer: Any = None) -> Any:
        if trainer.lr_scheduler is None:
            inner = innermost(trainer.optimizer if optimizer is None else optimizer)
            scheduler = ll.scheduler(
                spec, inner, trainer.model, num_training_steps, _count_updates(trainer, num_training_steps)
            )
            check_clips_once(scheduler, bool(trainer.args.max_grad_norm), "TrainingArguments(max_grad_norm=0)")
            trainer.lr_scheduler = scheduler
            trainer._created_lr_scheduler = True  # the next train() makes a new one
        return trainer.lr_scheduler

    def log_with_rates(logs: dict[str, float], *rest: Any, **named: Any) -> None:
        log({**logs, **rates} if "learning_rate" in logs else logs, *rest, **named)

    class ReadMetrics(callback):  # type: ignore[misc, valid-type]
        """Tells schedules the metrics of each evaluation, and keeps the rates of each update for the log."""

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            """Note the rates of this update."""
            rates.update(rates_by_name(innermost(trainer.optimizer)))

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            """Let schedules look at the metrics of an evaluation during training."""
            if trainer.is_in_train and isinstance(trainer.lr_scheduler, PlanScheduler):
                tell_metrics(trainer.lr_scheduler, metrics or {}, "eval_")

    trainer.create_optimizer, trainer.create_scheduler, trainer.log = create_optimizer, create_scheduler, log_with_rates
    trainer.add_callback(ReadMetrics())


def _check_scheduler(trainer: Any) -> None:
    if getattr(trainer, "lr_scheduler", None) is not None:
        raise ll.SpecError(
            "the trainer already has a scheduler. Give it an optimizer alone, optimizers=(optimizer, None), or nothing."
        )


def _count_updates(trainer: Any, total_steps: int) -> int | None:
    """Updates of an epoch, as the Trainer counts them; None where the data have no length."""
    try:
        batches = len(trainer.get_train_dataloader())
    except TypeError:
        return None
    each: int = trainer.args.gradient_accumulation_steps
    return max(-(-batches // each), 1)
