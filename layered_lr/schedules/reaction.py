"""torch's ReduceLROnPlateau: a rate that is decided while training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import Count, lr_of, plain
from layered_lr.schedules.arithmetic import Value
from layered_lr.schedules.base import Schedule, Unit
from layered_lr.schedules.reference import _function
from layered_lr.validation import NonNegative, value_class

_BelowOne = Annotated[float, BeforeValidator(plain), Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
_STATE = ("rate", "best", "bad", "cooldown", "seen")


def _metric(value: Any) -> Any:
    if isinstance(value, str) and value in ("loss", "accuracy"):
        return value
    try:
        return _function(value)
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


class Reaction:
    """The rate of one group under ``ReduceLROnPlateau``, from metric to metric.

    Attributes:
        settings: The schedule whose decisions these are.
        rate: The group's rate now, before ``lr_scale``.

    Args:
        settings: The schedule.
        lr: The group's own rate, before ``lr_scale``.
    """

    def __init__(self, settings: ReduceLROnPlateau, lr: float) -> None:
        self.settings = settings
        self.rate = lr_of(lr)
        self._best = math.inf if settings.mode == "min" else -math.inf
        self._bad = 0
        self._cooldown = 0
        self._seen = 0

    def step(self, metric: float) -> float:
        """Take the next metric in; a NaN counts as no improvement, as in torch.

        Args:
            metric: A number, or what ``float()`` makes one of (a zero-dimensional array or tensor).

        Returns:
            The rate from now on, before ``lr_scale``.

        Raises:
            SpecError: ``metric`` is not a number.
        """
        try:
            current = math.inf if isinstance(metric, (str, bytes)) else float(metric)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            current = None
        if current is None or isinstance(metric, (str, bytes)):
            raise SpecError(f"ReduceLROnPlateau was given the metric {metric!r}: a metric must be a number.")
        self._seen += 1
        if self._is_better(current):
            self._best, self._bad = current, 0
        else:
            self._bad += 1
        if self._cooldown > 0:
            self._cooldown, self._bad = self._cooldown - 1, 0
        if self._bad > self.settings.patience:
            self._reduce()
            self._cooldown, self._bad = self.settings.cooldown, 0
        return self.rate

    def state(self) -> dict[str, float]:
        """Everything that the next decision depends on, as plain numbers (``best`` is infinite before the first)."""
        values = (self.rate, self._best, self._bad, self._cooldown, self._seen)
        return dict(zip(_STATE, values, strict=True))

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what ``state`` gave.

        Raises:
            SpecError: something is missing, unknown or not a number.
        """
        if set(state) != set(_STATE) or not all(isinstance(plain(value), (int, float)) for value in state.values()):
            raise SpecError(f"ReduceLROnPlateau: its state is the numbers {', '.join(_STATE)}, not {dict(state)}.")
        self.rate, self._best = lr_of(state["rate"]), float(state["best"])
        self._bad, self._cooldown, self._seen = int(state["bad"]), int(state["cooldown"]), int(state["seen"])

    def _is_better(self, metric: float) -> bool:
        threshold, best = self.settings.threshold, self._best
        if self.settings.mode == "min":
            limit = best * (1.0 - threshold) if self.settings.threshold_mode == "rel" else best - threshold
            return metric < limit
        limit = best * (threshold + 1.0) if self.settings.threshold_mode == "rel" else best + threshold
        return metric > limit

    def _reduce(self) -> None:
        lower = max(self.rate * self.settings.factor, self.settings.min_lr)
        if self.rate - lower > self.settings.eps:
            self.rate = lower
