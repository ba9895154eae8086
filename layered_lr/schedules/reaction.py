"""What ``ReduceLROnPlateau`` decides during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from layered_lr.errors import SpecError
from layered_lr.scalars import unwrap_scalar
from layered_lr.schedules.arguments import check_lr

_STATE = ("rate", "best", "bad", "cooldown", "seen")


class ReactionSettings(Protocol):
    """The settings that decide how a rate reacts; ``ReduceLROnPlateau`` has them and explains each."""

    # ruff: noqa: D102
    @property
    def mode(self) -> str | None: ...
    @property
    def factor(self) -> float: ...
    @property
    def patience(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    @property
    def threshold_mode(self) -> str: ...
    @property
    def cooldown(self) -> int: ...
    @property
    def min_lr(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def metric(self) -> Callable[[Mapping[str, float]], float] | str | None: ...
    @property
    def unit(self) -> str: ...


def read_metric(metric: Any) -> float:
    """Read a number, or a zero-dimensional array or tensor that ``float()`` accepts.

    Raises:
        SpecError: It is not a number.
    """
    try:
        number = None if isinstance(metric, (str, bytes)) else float(metric)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = None
    if number is None:
        raise SpecError(f"ReduceLROnPlateau was given the metric {metric!r}: a metric must be a number.")
    return number


class Reaction:
    """The rate of one group under ``ReduceLROnPlateau``, from metric to metric.

    Attributes:
        settings: The schedule that says how to react.
        rate: The group's rate now, before ``lr_scale``.

    Args:
        settings: The schedule that says how to react.
        lr: The group's own rate, before ``lr_scale``.
    """

    def __init__(self, settings: ReactionSettings, lr: float) -> None:
        self.settings = settings
        self.rate = check_lr(lr)
        self._best = math.inf if settings.mode == "min" else -math.inf
        self._bad = 0
        self._cooldown = 0
        self._seen = 0

    def step(self, metric: float) -> float:
        """Read the next metric and decide the rate. NaN counts as no improvement, as in torch.

        Args:
            metric: A number, or a zero-dimensional array or tensor that ``float()`` accepts.

        Returns:
            The rate from now on, before ``lr_scale``.

        Raises:
            SpecError: ``metric`` is not a number.
        """
        current = read_metric(metric)
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
        """Return all numbers that the next decision depends on; ``best`` is infinite before the first metric."""
        values = (self.rate, self._best, self._bad, self._cooldown, self._seen)
        return dict(zip(_STATE, values, strict=True))

    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from a result of ``state``.

        Raises:
            SpecError: A name is missing or unknown, or a value is not a number.
        """
        if set(state) != set(_STATE) or not all(
            isinstance(unwrap_scalar(value), (int, float)) for value in state.values()
        ):
            raise SpecError(
                f"ReduceLROnPlateau: its state must have the numbers {', '.join(_STATE)}, but this has {dict(state)}."
            )
        self.rate, self._best = check_lr(state["rate"]), float(state["best"])
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
