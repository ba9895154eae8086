"""``Callback``: the user's own code in a run. Its methods are called at each event of the training loop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Targets
from layered_lr.errors import DataError, SpecError, TrainingDiverged
from layered_lr.printed import shown
from layered_lr.training.divergence import OnDivergence
from layered_lr.training.events import (
    BatchEvent,
    BeginEvent,
    CheckpointEvent,
    DivergenceEvent,
    EndEvent,
    EpochEvent,
    EvaluationEvent,
    LazyArray,
    OverflowEvent,
    UpdateEvent,
)
from layered_lr.training.run_handle import RunHandle

DIVERGED: Final = 2


class Callback:
    """Told of what happens in a run: ``ll.run(callbacks=[...])``.

    Override the methods of the events that you need; the others cost nothing. Each gets an event with what happened,
    whose ``run`` can ``stop()`` the run, ask for a ``checkpoint()`` and ``log()`` numbers. Callbacks are called in the
    order in which they are given. A callback that raises ends the run with ``CallbackError``, which names it; where the
    run has a folder, a checkpoint is written first. Of several processes all end then.

    Example:
        Stop when the loss is low enough. Reading ``event.loss`` waits for the update; an epoch's mean is known already.

        >>> import layered_lr as ll
        >>> class StopWhenLow(ll.Callback):
        ...     def on_epoch(self, event):
        ...         event.run.log(mean_loss=event.loss)
        ...         if event.loss < 0.1:
        ...             event.run.stop("the loss is below 0.1")

    Attributes:
        wants_grad_norms: Whether the run is to measure each group's gradient norm at each update for this callback.
    """

    writes: bool = False
    wants_grad_norms: bool = False

    def on_begin(self, event: BeginEvent) -> None:
        """The run is ready for its first update.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_begin(self, event):
            ...         print("begins")
        """

    def on_batch(self, event: BatchEvent) -> None:
        """A batch comes next; its images and labels may be changed, or the batch skipped.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_batch(self, event):
            ...         event.images = event.images + 0.1
        """

    def on_update(self, event: UpdateEvent) -> None:
        """An update was made.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_update(self, event):
            ...         if event.step % 100 == 0:
            ...             event.run.log(loss=float(event.loss))
        """

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """The model was evaluated on the test set.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_evaluation(self, event):
            ...         event.run.log(accuracy=event.accuracy)
        """

    def on_epoch(self, event: EpochEvent) -> None:
        """An epoch has ended.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_epoch(self, event):
            ...         if event.loss < 0.1:
            ...             event.run.stop("the loss is below 0.1")
        """

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """A checkpoint was written.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_checkpoint(self, event):
            ...         print(event.path)
        """

    def on_divergence(self, event: DivergenceEvent) -> None:
        """A loss or a gradient was not finite.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_divergence(self, event):
            ...         print(event.step, event.why)
        """

    def on_overflow(self, event: OverflowEvent) -> None:
        """A scaled gradient has overflowed in float16, and the batch was left out (``precision="float16"``).

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_overflow(self, event):
            ...         print(event.step, event.loss_scale)
        """

    def on_end(self, event: EndEvent) -> None:
        """The run ends, after its last update or because of an error.

        Example:
            >>> import layered_lr as ll
            >>> class Mine(ll.Callback):
            ...     def on_end(self, event):
            ...         print(event.error)
        """


class CallbackFailed(Exception):
    """A callback raised: which one, in which method, and what. The loop makes a ``CallbackError`` of it."""

    def __init__(self, callback: Callback, method: str, error: Exception) -> None:
        self.name, self.method, self.error = type(callback).__name__, method, error
        super().__init__(f"callback {self.name} raised {type(error).__name__} in {method}: {error}")


_HELD: Final = (CallbackFailed, DataError, TrainingDiverged)


class Announcer:
    """Tells all callbacks of a run's events. An event that no callback listens to is not even made.

    Args:
        callbacks: In the order in which they are called.
        run: What they are given of the run.
        holds_errors: Whether an error waits until all processes of the run can end with it; else it is raised at once.

    Attributes:
        held: The first error that waits.
    """

    def __init__(self, callbacks: Iterable[Callback], run: RunHandle, holds_errors: bool = False) -> None:
        self.run, self._holds_errors = run, holds_errors
        self.held: CallbackFailed | DataError | TrainingDiverged | None = None
        given = tuple(callbacks)
        self._listeners = {
            method: [callback for callback in given if _overrides(callback, method)]
            for method in vars(Callback)
            if method.startswith("on_")
        }
        self.hears_batches = bool(self._listeners["on_batch"])  # asked at each update, for speed
        self.hears_updates = bool(self._listeners["on_update"])

    @property
    def failed(self) -> int:
        """0 where no error waits; ``DIVERGED`` where a loss that was read is not finite; else 1."""
        return 0 if self.held is None else DIVERGED if isinstance(self.held, TrainingDiverged) else 1

    def _tell(self, method: str, event: Any) -> None:
        for callback in self._listeners[method]:
            try:
                _call(callback, method, event)
            except _HELD as error:
                self._hold(error)

    def _hold(self, error: CallbackFailed | DataError | TrainingDiverged) -> None:
        """Keep an error, if it is to wait; else raise it."""
        if not self._holds_errors:
            raise error
        self.held = self.held or error

    def begin(self) -> None:
        """The run is ready."""
        self._tell("on_begin", BeginEvent(self.run))

    def batch(self, step: int, images: NDArray[np.float32], labels: Targets, parts: int) -> BatchEvent:
        """A batch comes next; the event says what the callbacks made of it.

        Raises:
            DataError: One has put something in its place that no update can be made of.
        """
        event = BatchEvent(self.run, step, images, labels, parts)
        for callback in self._listeners["on_batch"]:
            before = event.images, event.labels
            try:
                _call(callback, "on_batch", event)
                if self._holds_errors and callback.writes:
                    _check_unchanged(type(callback).__name__, event, *before)
                _check_batch(type(callback).__name__, event, images.shape[1:], labels)
            except _HELD as error:
                self._hold(error)
        return event

    def update(self, step: int) -> None:
        """Update ``step`` was made."""
        run = self.run  # weak: what a callback keeps of an event does not keep the session alive
        loss = LazyArray(lambda: run.read_loss(step))
        rates = LazyArray(lambda: run.read_rates(step))
        self._tell("on_update", UpdateEvent(run, step, loss, rates, LazyArray(lambda: run.read_grad_norms(step))))

    def evaluation(self, accuracy: float, ema_accuracy: float | None) -> None:
        """The model was evaluated."""
        self._tell("on_evaluation", EvaluationEvent(self.run, accuracy, ema_accuracy))

    def epoch(self, epoch: int, loss: float) -> None:
        """An epoch has ended."""
        self._tell("on_epoch", EpochEvent(self.run, epoch, loss))

    def checkpoint(self, path: Path) -> None:
        """A checkpoint was written."""
        self._tell("on_checkpoint", CheckpointEvent(self.run, path))

    def divergence(self, step: int, why: str, action: OnDivergence) -> None:
        """Update ``step`` was not finite, and the run has acted on it."""
        self._tell("on_divergence", DivergenceEvent(self.run, step, why, action))

    def overflow(self, step: int, loss_scale: float, why: str) -> None:
        """A scaled gradient has overflowed, and no update ``step`` was made."""
        self._tell("on_overflow", OverflowEvent(self.run, step, loss_scale, why))

    def end(self, error: BaseException | None) -> list[CallbackFailed]:
        """The run ends; one callback that raises here does not keep the others from being told.

        Returns:
            Those that raised.
        """
        failures = []
        for callback in self._listeners["on_end"]:
            try:
                _call(callback, "on_end", EndEvent(self.run, error))
            except CallbackFailed as failed:
                failures.append(failed)
                self.held = self.held or failed
            except TrainingDiverged:  # of a loss that it reads: the run has ended with that
                if error is None:
                    raise
        return failures


def _overrides(callback: Callback, method: str) -> bool:
    """Whether a callback's class has a method of its own, or the object itself was given one."""
    return getattr(type(callback), method) is not getattr(Callback, method) or method in vars(callback)


def _call(callback: Callback, method: str, event: Any) -> None:
    """Call a callback's method, whose errors then say whose they are."""
    try:
        getattr(callback, method)(event)
    except TrainingDiverged:  # of a loss that the callback has read
        raise
    except Exception as error:
        raise CallbackFailed(callback, method, error) from error


def _check_unchanged(called: str, event: BatchEvent, images: NDArray[np.float32], labels: Targets) -> None:
    """Refuse what a callback that only writes has put in the place of a batch.

    Args:
        called: The callback's name, for the message.
        event: With what the callback left there.
        images: As they were before.
        labels: The same.

    Raises:
        DataError: It is something else.
    """
    if event.images is not images or event.labels is not labels:
        raise DataError(
            f"callback {called}: on_batch has changed the batch in the first process alone, because its class has "
            "writes = True. Leave that out: each process calls it then."
        )


def _check_batch(called: str, event: BatchEvent, one_image: tuple[int, ...], labels: Targets) -> None:
    """Refuse images and labels that a callback has put in the place of the batch's, and that are of another kind.

    Args:
        called: The callback's name, for the message.
        event: With what the callback left there.
        one_image: The shape of each image before.
        labels: As they were before.

    Raises:
        DataError: They are.
    """
    whose = f"callback {called}: on_batch has put"
    for name, given in (("images", event.images), ("labels", event.labels)):
        if not isinstance(given, np.ndarray) or not given.ndim:
            raise DataError(f"{whose} a {type(given).__name__} in event.{name}; must be a NumPy array.")
    if event.images.shape[1:] != one_image or event.images.dtype.kind != "f":
        raise DataError(
            f"{whose} {event.images.dtype} of shape {event.images.shape} in event.images; must be float32 of shape "
            f"({len(event.images)}, {', '.join(map(str, one_image))}), as the images of the batch are."
        )
    if event.labels.ndim == labels.ndim and event.labels.dtype != labels.dtype:
        if not np.can_cast(event.labels.dtype, labels.dtype, "same_kind") or event.labels.dtype.kind == "b":
            raise DataError(
                f"{whose} {event.labels.dtype} of shape {event.labels.shape} in event.labels; must be {labels.dtype}, "
                "as the labels of the batch are."
            )
        event.labels = event.labels.astype(labels.dtype)  # type: ignore[assignment]  # one of the kinds of labels


def check_callbacks(value: Any) -> tuple[Callback, ...]:
    """The callbacks that were given, as a tuple.

    Raises:
        SpecError: Not a list of ``ll.Callback`` objects.
    """
    if isinstance(value, Callback):
        value = (value,)
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise SpecError(f"callbacks={shown(value)}: must be a list of ll.Callback objects.")
    found = tuple(value)
    for callback in found:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise SpecError(f"callbacks: {callback.__name__} is a class; give an object of it: {callback.__name__}().")
        if not isinstance(callback, Callback):
            raise SpecError(
                f"callbacks: got a {type(callback).__name__}; must be an object of a class that derives from "
                "ll.Callback."
            )
    return found
