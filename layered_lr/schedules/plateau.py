"""torch's ReduceLROnPlateau, as data."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Count, plain
from layered_lr.schedules.arithmetic import Value
from layered_lr.schedules.base import Schedule, Unit
from layered_lr.schedules.reaction import Reaction
from layered_lr.schedules.reference import function_of
from layered_lr.validation import NonNegative, value_class

_BelowOne = Annotated[float, BeforeValidator(plain), Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]


def _metric(value: Any) -> Any:
    if isinstance(value, str) and value in ("loss", "accuracy"):
        return value
    try:
        return function_of(value)
    except PydanticCustomError:
        message = "Input should be 'loss', 'accuracy', a function, or its import path 'package.module:name'"
        raise PydanticCustomError("metric", message) from None


@value_class
class ReduceLROnPlateau(Schedule):
    """``rate * factor``, not below ``min_lr``, whenever the metric has not improved for ``patience`` metrics.

    torch's ``ReduceLROnPlateau``, its decisions to the bit; ``reaction(lr)`` takes them. In ``"min"`` mode a
    metric is better when below ``best * (1 - threshold)`` (``"rel"``) or ``best - threshold`` (``"abs"``), in
    ``"max"`` mode when above the same with ``+``. The rate in question is the one before ``lr_scale``. Called as a
    function it gives ``lr``: ``schedule(step, reaction.rate)`` is the rate that acts. It cannot stand in a
    ``SequentialLR`` or ``ChainedScheduler`` (nor in torch); a ``Warmup`` may come before it.

    Args:
        mode: Whether the metric should become small (``"min"``) or large (``"max"``). Where left out it is torch's
            default, ``"min"``, but ``"max"`` for the accuracy, for which ``"min"`` is refused.
        factor: Factor of one reduction, 0 <= factor < 1.
        patience: Metrics without improvement that are let pass before a reduction.
        threshold: Smallest improvement that counts.
        threshold_mode: Whether ``threshold`` is relative to the best metric or absolute.
        cooldown: Metrics after a reduction that never count as bad.
        min_lr: Lowest rate, before ``lr_scale``.
        eps: A reduction by no more than this is not made.
        metric: What is watched: ``"loss"``, ``"accuracy"``, or a function or its import path.
        unit: How often a metric is looked at, each ``"epoch"`` or each ``"step"``.
    """

    mode: Literal["min", "max"] | None = None
    factor: _BelowOne = 0.1
    patience: Count = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Count = 0
    min_lr: NonNegative = 0.0
    eps: NonNegative = 1e-8
    metric: Annotated[Any, PlainValidator(_metric)] = field(default="loss", kw_only=True)
    unit: Unit = field(default="epoch", kw_only=True)

    def __post_init__(self) -> None:
        if self.every_step:
            raise SpecError("ReduceLROnPlateau(every_step=True): it acts when a metric comes; use unit='step'.")
        if self.metric == "accuracy" and self.mode == "min":
            raise SpecError(
                "ReduceLROnPlateau(metric='accuracy', mode='min'): an accuracy is better when it is higher, and would "
                "lower the rate as it improves. Give mode='max', or leave mode out."
            )
        if self.mode is None:
            object.__setattr__(self, "mode", "max" if self.metric == "accuracy" else "min")

    def reaction(self, lr: float) -> Reaction:
        """A fresh start for one group.

        Args:
            lr: The group's own rate, before ``lr_scale``.
        """
        return Reaction(self, lr)

    def _rate(self, step: Value, lr: Value) -> Value:
        return lr
