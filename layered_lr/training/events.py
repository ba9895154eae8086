"""The events of a run: what each callback method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64, Targets
from layered_lr.training.divergence import OnDivergence
from layered_lr.training.run_handle import RunHandle


class LazyArray:
    """Numbers that are read when they are asked for, and kept from then on.

    ``float(lazy)`` and ``numpy.asarray(lazy)`` read them, and wait for the framework where it has not computed them
    yet. As long as nobody asks, nothing is waited for.

    Args:
        read: Gives the numbers.
    """

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read
        self._numbers: Float64 | None = None

    def numpy(self) -> Float64:
        """The numbers as an array of float64."""
        if self._numbers is None:
            self._numbers = np.array(self._read(), dtype=np.float64)
        return self._numbers

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        numbers = self.numpy()
        return numbers if dtype is None else numbers.astype(dtype)

    def __float__(self) -> float:
        return float(self.numpy())


@dataclass(frozen=True, eq=False)
class BeginEvent:
    """The run is ready for its first update, or for the next one where it goes on.

    Args:
        run: The run.
    """

    run: RunHandle


@dataclass(eq=False)
class BatchEvent:
    """The batch of the next update.

    Args:
        run: The run.
        step: The update that it is for, 0-based.
        images: Shape (N, C, H, W), float32. A callback may put others of this shape in their place.
        labels: Shape (N,), int64; with ``mix`` the share of each class, float64 (N, classes); or values or masks. A
            callback may put others of this shape in their place.
        parts: How many parts of one size the model takes one after the other (``accumulate_steps``).
    """

    run: RunHandle
    step: int
    images: NDArray[np.float32]
    labels: Targets
    parts: int
    skipped_because: str | None = None

    def skip(self, why: str = "a callback skipped the batch") -> None:
        """Leave this batch out: no update is made of it, and schedules stand still.

        Args:
            why: The reason in words; it goes into the run's events.
        """
        self.skipped_because = why


@dataclass(frozen=True, eq=False)
class UpdateEvent:
    """An update was made.

    Args:
        run: The run.
        step: Which one, 0-based.
        loss: The batch's mean cross-entropy before the update, one number.
        rates: Each group's rate as the framework applied it, shape (groups,).
        grad_norms: Each group's L2 gradient norm before clipping, shape (groups,); NaN where the run does not measure
            them.
    """

    run: RunHandle
    step: int
    loss: LazyArray
    rates: LazyArray
    grad_norms: LazyArray


@dataclass(frozen=True, eq=False)
class EvaluationEvent:
    """The model was evaluated on the test set.

    Args:
        run: The run.
        accuracy: The fraction of the test images that the model gets right; NaN where the targets are no class
            numbers.
        ema_accuracy: The same of the moving average; None without ``ema_decay``.
    """

    run: RunHandle
    accuracy: float
    ema_accuracy: float | None


@dataclass(frozen=True, eq=False)
class EpochEvent:
    """An epoch has ended, or the run has.

    Args:
        run: The run.
        epoch: Which one, 0-based.
        loss: The mean training loss of its updates; NaN where none was made.
    """

    run: RunHandle
    epoch: int
    loss: float


@dataclass(frozen=True, eq=False)
class CheckpointEvent:
    """A checkpoint was written.

    Args:
        run: The run.
        path: The checkpoint's folder.
    """

    run: RunHandle
    path: Path


@dataclass(frozen=True, eq=False)
class DivergenceEvent:
    """A loss or a gradient was not finite, and the run has acted on it.

    Args:
        run: The run, after the action.
        step: The update that went wrong, 0-based.
        why: What was found, in words.
        action: What the run did: it ends (``"stop"``), it has left the batch out (``"skip"``), or it has gone back to
            an earlier state at lower rates (``"rollback"``).
    """

    run: RunHandle
    step: int
    why: str
    action: OnDivergence


@dataclass(frozen=True, eq=False)
class OverflowEvent:
    """A scaled gradient has overflowed in float16: no update was made of the batch, and it counts nowhere.

    Args:
        run: The run.
        step: The update that the batch was for, 0-based; the next batch is for it, too.
        loss_scale: What the loss is multiplied with from now on.
        why: What happened, in words.
    """

    run: RunHandle
    step: int
    loss_scale: float
    why: str


@dataclass(frozen=True, eq=False)
class EndEvent:
    """The run ends. It is the last event of each run that has begun.

    Args:
        run: The run.
        error: What ended it; None where it came to its end or a callback stopped it.
    """

    run: RunHandle
    error: BaseException | None
