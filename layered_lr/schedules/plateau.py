"""The settings of torch's ReduceLROnPlateau."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.errors import SpecError
from layered_lr.scalars import unwrap_scalar
from layered_lr.schedules.arguments import Count
from layered_lr.schedules.arithmetic import Value
from layered_lr.schedules.base import Schedule, Unit
from layered_lr.schedules.reaction import Reaction
from layered_lr.schedules.reference import check_function
from layered_lr.spelling import did_you_mean
from layered_lr.validation import NonNegative, value_class

_BelowOne = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]


Metric: TypeAlias = Callable[[Mapping[str, float]], float] | str
"""What a schedule watches: ``"loss"``, ``"accuracy"``, the name of another metric, or a function of all metrics.

``"ema accuracy"`` is that of the moving average.
"""


_OF_ACCURACY = ("accuracy", "ema accuracy")
_KNOWN = ("loss", *_OF_ACCURACY)  # whose better direction is known


def _check_metric(value: object) -> Metric | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip() and value.isprintable() and ":" not in value:
        return value
    try:
        return check_function(value)
    except PydanticCustomError:
        message = (
            "Input should be 'loss', 'accuracy', the name of a metric of the run, a function, or its import path "
            "'package.module:name'"
        )
        raise PydanticCustomError("metric", message) from None


@value_class
class ReduceLROnPlateau(Schedule):
    """``rate * factor``, not below ``min_lr``, whenever the metric has not improved for more than ``patience`` times.

    torch's ``ReduceLROnPlateau``, with the same decisions bit for bit. ``start_reaction(lr)`` returns the object that
    makes them during training. In ``"min"`` mode a metric is better if it is below ``best * (1 - threshold)``
    (``"rel"``) or ``best - threshold`` (``"abs"``); in ``"max"`` mode if it is above ``best * (1 + threshold)`` or
    ``best + threshold``. All rates here are before ``lr_scale``.

    ``schedule(step, reaction.rate)`` is the rate of a step; called with a group's ``lr``, the schedule returns ``lr``.
    It is not allowed in a ``SequentialLR`` or ``ChainedScheduler`` (in torch neither), but a ``Warmup`` may come before
    it.

    Args:
        mode: Whether the metric should become small (``"min"``) or large (``"max"``). None is ``"max"`` for the
            accuracy, and torch's default, ``"min"``, for everything else. The accuracy with ``"min"``, and the loss
            with ``"max"``, are refused.
        factor: Factor of one reduction, 0 <= factor < 1.
        patience: How many metrics without improvement are accepted before a reduction.
        threshold: Smallest improvement that counts.
        threshold_mode: Whether ``threshold`` is relative to the best metric (``"rel"``) or absolute (``"abs"``).
        cooldown: How many metrics after a reduction never count as bad.
        min_lr: Lowest rate.
        eps: If a reduction would change the rate by ``eps`` or less, it is not made.
        metric: What is watched: ``"loss"``, ``"accuracy"``, ``"ema accuracy"`` (of the moving average), the name of
            another metric of the run (``run(metrics={...})``), for which ``mode`` must be said, or a function of all
            metrics (or its import path), which is called once for all groups that have it. None is the accuracy with
            ``mode="max"``, else the loss.
        unit: How often the metric is read: each ``"epoch"`` or each ``"step"``.

    Example:
        >>> import layered_lr as ll
        >>> reaction = ll.ReduceLROnPlateau(factor=0.5, patience=1).start_reaction(lr=0.1)
        >>> [reaction.step(loss) for loss in (1.0, 0.9, 0.9, 0.9)]
        [0.1, 0.1, 0.1, 0.05]
    """

    mode: Literal["min", "max"] | None = None
    factor: _BelowOne = 0.1
    patience: Count = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Count = 0
    min_lr: NonNegative = 0.0
    eps: NonNegative = 1e-8
    metric: Annotated[Metric | None, PlainValidator(_check_metric)] = field(default=None, kw_only=True)
    unit: Unit = field(default="epoch", kw_only=True)

    def __post_init__(self) -> None:
        if self.every_step:
            raise SpecError(
                "ReduceLROnPlateau(every_step=True): it changes the rate when it reads a metric. Use unit='step' "
                "instead, which reads the metric of each step."
            )
        if self.metric in _OF_ACCURACY and self.mode == "min":
            raise SpecError(
                f"ReduceLROnPlateau(metric={self.metric!r}, mode='min'): a higher accuracy is better, but mode='min' "
                "would lower the rate when it rises. Give mode='max', or leave mode out."
            )
        if self.metric == "loss" and self.mode == "max":
            raise SpecError(
                "ReduceLROnPlateau(metric='loss', mode='max'): a lower loss is better, but mode='max' would lower the "
                "rate while it falls. Give mode='min', or leave mode out; to watch the accuracy, metric='accuracy'."
            )
        if isinstance(self.metric, str) and self.metric not in _KNOWN and ":" not in self.metric and self.mode is None:
            raise SpecError(
                f"ReduceLROnPlateau(metric={self.metric!r}): say whether this metric of yours should become small or "
                f"large: mode='min' or mode='max'.{did_you_mean(self.metric, _KNOWN)}"
            )
        if self.metric is None:
            object.__setattr__(self, "metric", "accuracy" if self.mode == "max" else "loss")
        if self.mode is None:
            object.__setattr__(self, "mode", "max" if self.metric in _OF_ACCURACY else "min")

    def start_reaction(self, lr: float) -> Reaction:
        """Return the object that decides the rate of one group during training, at its start.

        Args:
            lr: The group's own rate, before ``lr_scale``.
        """
        return Reaction(self, lr)

    def _rate(self, step: Value, lr: Value) -> Value:
        return lr
