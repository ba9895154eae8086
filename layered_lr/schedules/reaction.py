"""torch's ReduceLROnPlateau: a rate that is decided while training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from layered_lr.errors import SpecError
from layered_lr.schedules.arguments import lr_of, plain

_STATE = ("rate", "best", "bad", "cooldown", "seen")


class ReactionSettings(Protocol):
    """What decides how a rate reacts; ``ReduceLROnPlateau`` has it, and tells what each means."""

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
    def metric(self) -> Any: ...
    @property
    def unit(self) -> str: ...


class Reaction:
    """The rate of one group under ``ReduceLROnPlateau``, from metric to metric.

    Attributes:
        settings: The schedule whose decisions these are.
        rate: The group's rate now, before ``lr_scale``.

    Args:
        settings: The schedule.
        lr: The group's own rate, before ``lr_scale``.
    """

    def __init__(self, settings: ReactionSettings, lr: float) -> None:
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
