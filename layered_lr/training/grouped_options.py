"""Options that go together, as values: checkpoints, divergence, precision, initial weights."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.scaling import LossScaling
from layered_lr.training.early_stop import choose_mode, metric_name
from layered_lr.training.in_file import by_hand
from layered_lr.training.option import (
    GOES_ON,
    MAY_CHANGE,
    RUN_ONLY,
    TRAINING,
    Refused,
    number,
    one_of,
    option,
    option_class,
    whole_number,
    yes_or_no,
)

if TYPE_CHECKING:
    from layered_lr.backend.base import Dtype
    from layered_lr.training.divergence import OnDivergence


def anything(value: Any) -> Any:
    """Take whatever is given: it is checked where it is read."""
    return value


_AUTOCAST = {"bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16"}
_LARGEST_SCALE = 2.0**127  # that float32 holds


def _autocast(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and value in _AUTOCAST:
        return _AUTOCAST[value]
    raise SpecError(
        f"autocast={shown(value)}: must be 'bfloat16' or 'float16'; leave it out for dtype's own arithmetic."
    )


def _patterns(value: Any) -> tuple[str, ...]:
    from layered_lr.models.patterns import check_pattern

    patterns = value if isinstance(value, list | tuple) else (value,)
    return tuple(check_pattern(pattern, "reset") for pattern in patterns)


def path_or_none(name: str, value: Any) -> Path | None:
    """A path, or None.

    Raises:
        SpecError: Anything else.
    """
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or value == "":
        raise SpecError(f"{name}={shown(value)} ({type(value).__name__}): must be a path, or None.")
    from layered_lr.files import as_path

    return as_path(name, by_hand(name, value) if name == "folder" else value)


def _every(value: Any) -> Any:
    from layered_lr.training.cadence import cadence

    try:
        cadence(value)
    except SpecError:
        raise Refused("a time, such as '1 epoch', '100 steps' or '30 seconds', or a whole number of updates") from None
    return value


@option_class
class Checkpoints:
    """Where a run's checkpoints go, how often one is written, and how many stay.

    A run with a folder leaves its recipe, plan, versions, metrics, events, checkpoints and report there. Ctrl-C and
    SIGTERM then write a checkpoint and end the run, which ``ll.resume(folder)`` goes on with, bitwise; a second Ctrl-C
    ends it at once. One checkpoint is written at the start, and one at the end.

    Example:
        >>> import layered_lr as ll
        >>> ll.Checkpoints("runs/a", every="100 steps", keep=1).every
        '100 steps'
    """

    __called__: ClassVar[str] = "Checkpoints"

    folder: str | Path | None = option(
        default=None,
        help="The run's folder, from which it can be resumed.",
        check=functools.partial(path_or_none, "folder"),
        allowed="a path",
        meaning=RUN_ONLY,
        flag="--checkpoint-dir",
        metavar="DIR",
    )
    every: str | int = option(
        default="1 epoch",
        help=(
            "How often a checkpoint is written: '1 epoch', '100 steps', '30 seconds', '5 minutes', or a number of "
            "updates."
        ),
        check=_every,
        allowed="a time",
        meaning=GOES_ON,
        flag="--checkpoint-every",
        metavar="WHEN",
    )
    keep: int = option(
        default=3,
        help="How many of the newest checkpoints stay.",
        check=whole_number(1),
        meaning=GOES_ON,
        flag="--keep",
        kind="int",
    )
    keep_best: bool = option(
        default=True,
        help="Whether the best checkpoint stays too: the one with the highest test accuracy, or as best_metric says.",
        check=yes_or_no,
        meaning=GOES_ON,
        flag="--keep-best",
        kind="bool",
    )
    best_metric: str = option(
        default="accuracy",
        help="By what a checkpoint is the best: 'accuracy', 'ema accuracy', 'loss' (the epoch's mean), or the name "
        "of a metric.",
        check=metric_name,
        allowed="a metric's name",
        meaning=RUN_ONLY,
        flag="--best-metric",
        metavar="NAME",
    )
    best_mode: Literal["auto", "max", "min"] = option(
        default="auto",
        help="Whether more of it is better ('max') or less ('min'); 'auto' knows it of accuracy and loss alone.",
        check=one_of("auto", "max", "min"),
        meaning=RUN_ONLY,
        flag="--best-mode",
        metavar="WORD",
    )

    def __post_init__(self) -> None:
        mode = choose_mode("Checkpoints", "best_", self.best_metric, self.best_mode)
        object.__setattr__(self, "best_mode", mode)

    @staticmethod
    def of(value: Any) -> Checkpoints | None:
        """What ``checkpoints=...`` stands for: the value itself, a folder's path, a table of its fields, or None.

        Example:
            >>> Checkpoints.of("runs/a") == Checkpoints("runs/a") == Checkpoints.of({"folder": "runs/a"})
            True
        """
        if value is None or isinstance(value, Checkpoints):
            return value
        if isinstance(value, str | Path):
            return Checkpoints(value)
        if isinstance(value, Mapping):
            return Checkpoints(**value)
        raise Refused("ll.Checkpoints(...), the path of a folder, or None")


@option_class
class Divergence:
    """What a run does when a loss or a gradient is NaN or infinite.

    ``"stop"`` alone costs nothing: the others wait for each update, and ``"skip"`` copies the state before it.

    Example:
        >>> import layered_lr as ll
        >>> ll.Divergence("rollback", rollback_factor=0.1)
        Divergence(action='rollback', rollback_factor=0.1, skip_advances=False)
    """

    __called__: ClassVar[str] = "Divergence"

    action: OnDivergence = option(
        default="stop",
        help=(
            "What happens when a loss or a gradient is not finite: 'stop' ends the run; 'skip' undoes the update, "
            "leaves its batch out and goes on, while schedules stand still; 'rollback' goes back to the last "
            "checkpoint (without a folder: to the start) at lower rates."
        ),
        check=one_of("stop", "skip", "rollback"),
        meaning=GOES_ON,
        flag="--on-divergence",
        metavar="WHAT",
    )
    rollback_factor: float = option(
        default=0.5,
        help="What each rollback multiplies all rates with.",
        check=number("a number above 0 and below 1", lambda value: 0 < value < 1),
        meaning=GOES_ON,
        flag="--rollback-factor",
        kind="float",
    )
    skip_advances: bool = option(
        default=False,
        help="Whether skipped updates count, so that schedules advance over them.",
        check=yes_or_no,
        meaning=GOES_ON,
        flag="--skip-advances",
        kind="bool",
    )

    @staticmethod
    def of(value: Any) -> Divergence:
        """What ``divergence=...`` stands for: the value itself, an action, or a table of its fields.

        Example:
            >>> Divergence.of("skip") == Divergence("skip")
            True
        """
        if isinstance(value, Divergence):
            return value
        if isinstance(value, Mapping):
            return Divergence(**value)
        if isinstance(value, str):
            return Divergence(value)  # type: ignore[arg-type]
        raise Refused("ll.Divergence(...), 'stop', 'skip' or 'rollback'")


@option_class
class Precision:
    """The numbers that a run computes with.

    Example:
        >>> import layered_lr as ll
        >>> ll.Precision(autocast="bfloat16")
        Precision(dtype='float32', autocast='bfloat16', init_scale=65536.0, growth_interval=2000)
    """

    __called__: ClassVar[str] = "Precision"

    dtype: Dtype = option(
        default="float32",
        help="'float64' makes float64 of what is float32 in a model; 'float32' leaves a model of yours as it is.",
        check=one_of("float32", "float64"),
        meaning=TRAINING,
        flag="--dtype",
        metavar="NAME",
    )
    autocast: Literal["bfloat16", "float16"] | None = option(
        default=None,
        help=(
            "'bfloat16' or 'float16' runs the model under torch.autocast: its matrix products and convolutions in this "
            "dtype, while weights, loss and optimizer stay float32. With 'float16' the loss is scaled, and an update "
            "whose gradient overflows is left out and counts nowhere. On torch only."
        ),
        check=_autocast,
        allowed="'bfloat16', 'float16', or None",
        meaning=TRAINING,
        flag="--autocast",
        metavar="NAME",
    )
    init_scale: float = option(
        default=65536.0,
        help="What the loss is multiplied with at first under autocast to 'float16'. Each overflow halves it.",
        check=number("a number above 0 and at most 2**127", lambda value: 0 < value <= _LARGEST_SCALE),
        meaning=TRAINING,
        flag="--init-scale",
        kind="float",
    )
    growth_interval: int = option(
        default=2000,
        help="After how many updates in a row without an overflow that scale is doubled.",
        check=whole_number(1, 2**31),
        allowed="a whole number >= 1",
        meaning=TRAINING,
        flag="--growth-interval",
        kind="int",
    )

    @property
    def scaling(self) -> LossScaling:
        """How the loss is scaled under autocast to float16."""
        return LossScaling(self.init_scale, self.growth_interval)

    @staticmethod
    def of(value: Any) -> Precision:
        """What ``precision=...`` stands for: the value itself, a dtype, autocast to one, or a table of its fields.

        Example:
            >>> Precision.of("bf16") == Precision.of("bfloat16") == Precision(autocast="bfloat16")
            True
        """
        if isinstance(value, Precision):
            return value
        if isinstance(value, Mapping):
            return Precision(**value)
        if isinstance(value, str) and value in _AUTOCAST:
            return Precision(autocast=value)  # type: ignore[arg-type]
        if isinstance(value, str) and value in ("float32", "float64"):
            return Precision(value)  # type: ignore[arg-type]
        raise Refused("ll.Precision(...), 'float32', 'float64', or autocast: 'bfloat16' ('bf16'), 'float16' ('fp16')")


@option_class
class InitialWeights:
    """The weights that a run begins with, instead of the model's own start.

    Example:
        A pretrained backbone under a new head:

        >>> import layered_lr as ll
        >>> ll.InitialWeights("mobilenet_v2.pth", reset=["classifier"])
        InitialWeights(source='mobilenet_v2.pth', reset=('classifier',))
    """

    __called__: ClassVar[str] = "InitialWeights"

    source: Any = option(
        default=None,
        help="Arrays by name, or the path of a .npz, .safetensors or .pth file, to begin with.",
        check=anything,
        allowed="a path, or a mapping of arrays",
        meaning=MAY_CHANGE,
        flag="--initial-weights",
        metavar="FILE",
    )
    reset: Sequence[str] = option(
        default=(),
        help=(
            "Patterns (as in Group.match) of parameters that are initialised and do not take these weights, such as a "
            "new head."
        ),
        check=_patterns,
        allowed="patterns",
        meaning=MAY_CHANGE,
        flag="--reset-weights",
        metavar="PATTERN",
        kind="list",
    )

    @staticmethod
    def of(value: Any) -> InitialWeights | None:
        """What ``initial_weights=...`` stands for: the value itself, a source, a table of its fields, or None.

        Example:
            >>> InitialWeights.of("weights.npz") == InitialWeights("weights.npz")
            True
        """
        if value is None or isinstance(value, InitialWeights):
            return value
        if isinstance(value, Mapping) and value and set(value) <= {"source", "reset"}:
            return InitialWeights(**value)
        return InitialWeights(value)
