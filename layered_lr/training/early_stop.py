"""``EarlyStop``: when a run ends before its last update, and whether its best weights come back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.training.metric_names import EMA_ACCURACY
from layered_lr.training.option import (
    GOES_ON,
    Refused,
    number,
    one_of,
    option,
    option_class,
    optional,
    whole_number,
    yes_or_no,
)

_NUMBER = re.compile(r"\s*\d{1,15}(?:\.\d*)?\s*", re.ASCII)


def choose_mode(called: str, prefix: str, metric: str, mode: str) -> str:
    """Whether more of a metric is better, ``"max"``, or less, ``"min"``.

    Args:
        called: The class of the options, for messages.
        prefix: Of the names of its fields ``metric`` and ``mode``.
        metric: Its name.
        mode: What was given; ``"auto"`` knows the accuracy, that of the moving average, and the loss.

    Raises:
        SpecError: It is not known, or the other way round.
    """
    known = {"accuracy": "max", EMA_ACCURACY: "max", "loss": "min"}.get(metric)
    said = f"{called}({prefix}metric={shown(metric)}"
    if mode == "auto" and known is None:
        raise SpecError(f"{said}): say whether more is better: {prefix}mode='max' or {prefix}mode='min'.")
    if mode == "auto":
        return str(known)
    if known is not None and mode != known:
        raise SpecError(
            f"{said}, {prefix}mode={mode!r}): the best {metric} is the {'highest' if known == 'max' else 'lowest'}. "
            f"Give {prefix}mode={known!r}, or leave it out."
        )
    return mode


def metric_name(value: Any) -> str:
    """Take the name of a metric, and refuse anything else."""
    if isinstance(value, str) and value.strip():
        return value
    raise Refused("'accuracy', 'loss', or the name of a metric")


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        from layered_lr.training.cadence import cadence

        if _NUMBER.fullmatch(value) and float(value) > 0:  # a flag's text
            return float(value)
        try:
            period = cadence(value)
        except SpecError:
            period = None
        if period is not None and period.unit == "second":
            return period.number
        raise Refused("a time, such as '30 seconds' or '20 minutes', or a number of seconds above 0")
    return float(
        number("a number of seconds above 0, or a time such as '20 minutes'", lambda seconds: seconds > 0)(value)
    )


@option_class
class EarlyStop:
    """When a run ends early, and that it then has the weights of its best epoch.

    The metric is looked at after each epoch. With ``restore_best`` the result has the weights after the epoch in which
    the metric was best, also where the run has come to its end; checkpoints keep the last ones.

    Example:
        >>> import layered_lr as ll
        >>> ll.EarlyStop("loss", patience=2, min_delta=0.01, target=0.1)
        EarlyStop(metric='loss', patience=2, min_delta=0.01, mode='min', target=0.1, restore_best=True, time_limit=None)
    """

    __called__: ClassVar[str] = "EarlyStop"

    metric: str = option(
        default="accuracy",
        help="What is looked at after each epoch: 'accuracy', 'ema accuracy', 'loss' (the epoch's mean), or the name "
        "of a metric.",
        check=metric_name,
        allowed="a metric's name",
        meaning=GOES_ON,
        flag="--stop-metric",
        metavar="NAME",
    )
    patience: int | None = option(
        default=None,
        help="After how many epochs in a row without a better value the run ends.",
        check=optional(whole_number(1)),
        meaning=GOES_ON,
        flag="--stop-patience",
        kind="int",
        shown_default="without end",
    )
    min_delta: float = option(
        default=0.0,
        help="By how much a value must be better than the best one to count as better; the first to reach target does.",
        check=number("a number >= 0", lambda value: value >= 0),
        meaning=GOES_ON,
        flag="--stop-min-delta",
        kind="float",
    )
    mode: Literal["auto", "max", "min"] = option(
        default="auto",
        help="Whether more is better ('max') or less ('min'); 'auto' knows it of accuracy and loss alone.",
        check=one_of("auto", "max", "min"),
        meaning=GOES_ON,
        flag="--stop-mode",
        metavar="WORD",
    )
    target: float | None = option(
        default=None,
        help="The value at which the run has reached its goal and ends.",
        check=optional(number("a number", lambda value: True)),
        allowed="a number, or None",
        meaning=GOES_ON,
        flag="--stop-target",
        kind="float",
        shown_default="no goal",
    )
    restore_best: bool = option(
        default=True,
        help="Whether the result has the weights of the epoch in which the metric was best.",
        check=yes_or_no,
        meaning=GOES_ON,
        flag="--restore-best",
        kind="bool",
    )
    time_limit: str | float | None = option(
        default=None,
        help="After how much time the run ends: '20 minutes', '30 seconds', or seconds. A resumed run counts anew.",
        check=_seconds,
        allowed="a time, or None",
        meaning=GOES_ON,
        flag="--time-limit",
        metavar="TIME",
        shown_default="no limit",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", choose_mode("EarlyStop", "", self.metric, self.mode))

    @staticmethod
    def of(value: Any) -> EarlyStop | None:
        """What ``early_stop=...`` stands for: the value itself, a table of its fields, or None.

        Example:
            >>> EarlyStop.of({"metric": "loss", "patience": 2}) == EarlyStop("loss", 2)
            True
        """
        if value is None or isinstance(value, EarlyStop):
            return value
        if isinstance(value, Mapping):
            return EarlyStop(**value)
        raise Refused("ll.EarlyStop(...), or None")
