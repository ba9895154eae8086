"""Measures a model in training on the test set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array, Floats
from layered_lr.backend.processes import ALONE, Processes
from layered_lr.backend.session import Session
from layered_lr.data import Batches
from layered_lr.training.metric_names import TEST_LOSS
from layered_lr.training.metrics import Metric, MetricSums


class MeasuredLoss(NamedTuple):
    """A loss of outputs and targets that are at hand.

    Args:
        of: Computes it of a batch: outputs and targets of shapes (N, ...).
        is_sum: Whether it is a sum over the images; else it is their mean.
    """

    of: Callable[[Floats, Array], float]
    is_sum: bool = False


class LossSum:
    """Measures a loss over many images, batch by batch, so that not all answers must be in memory.

    The batches' means count by their images, as in most training loops: for a loss that is a mean over the images this
    is the mean over all of them.

    Args:
        loss: Of a batch.
    """

    def __init__(self, loss: MeasuredLoss) -> None:
        self._loss, self._total, self._images = loss, 0.0, 0

    def add(self, outputs: Floats, targets: Array) -> None:
        """Add a batch: outputs and targets of shapes (N, ...)."""
        self._total += self._loss.of(outputs, targets) * (1 if self._loss.is_sum else len(outputs))
        self._images += len(outputs)

    @property
    def value(self) -> float:
        """The loss of all images so far."""
        return self._total if self._loss.is_sum else self._total / self._images


def evaluate(
    session: Session,
    batches: Batches,
    metrics: Mapping[str, Metric],
    ema: bool = False,
    loss: MeasuredLoss | None = None,
    processes: Processes = ALONE,
) -> tuple[float, dict[str, float]]:
    """The fraction of the test set that the model, or its moving average, gets right, and further metrics.

    The fraction is NaN where the targets are no class numbers.

    Args:
        session: Who has the model.
        batches: Whose test set it is.
        metrics: What else to measure, by name.
        ema: Whether to measure the moving average.
        loss: Of the test set, which is measured too; None measures none.
        processes: That evaluate together: where a metric raises in one of them, it does in all.

    Raises:
        SpecError: A metric raised, or is not a single number.
    """
    right, sums = 0, MetricSums(metrics)
    has_classes = batches.dataset.facts.has_classes
    losses = None if loss is None else LossSum(loss)
    if not has_classes and not metrics and losses is None:
        return float("nan"), {}
    for images, labels, count in batches.test(session.wants_channels_last):
        outputs = session.logits(images, ema, shares=True)
        if has_classes:
            right += int(np.sum(outputs.argmax(axis=1)[:count] == labels[:count]))
        if metrics:
            sums.add(outputs[:count], labels[:count])
        if losses is not None:
            losses.add(outputs[:count], labels[:count])
    further = {} if losses is None else {TEST_LOSS: losses.value}
    if metrics:
        further |= processes.agree(sums.numbers)
    return right / len(batches.dataset.y_test) if has_classes else float("nan"), further


_MOST_BATCHES = 10  # to look for wrong answers in: of a good model, a whole test set has few


class WrongAnswers(NamedTuple):
    """Test images that a model gets wrong.

    Args:
        images: As the data set has them: uint8 (n, H, W, C), or float32 (n, C, H, W).
        labels: What they are, shape (n,).
        answers: What the model says that they are, shape (n,).
        class_names: A name for each class; None where they have none.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    answers: NDArray[np.int64]
    class_names: Sequence[str] | None = None


def find_wrong_answers(session: Session, batches: Batches, most: int) -> WrongAnswers:
    """The first images of the test set that the model gets wrong.

    Args:
        session: Who answers.
        batches: Of the data.
        most: How many to look for, in the first batches of the test set.
    """
    places: list[int] = []
    answers: list[int] = []
    for number, (shown, labels, count) in enumerate(batches.test(session.wants_channels_last)):
        if len(places) >= most or number == _MOST_BATCHES or labels.ndim != 1:  # targets beyond class numbers
            break
        answered = session.logits(shown).argmax(axis=1)[:count]
        wrong = np.flatnonzero(answered != labels[:count])
        places += (number * batches.batch_size + wrong).tolist()
        answers += answered[wrong].tolist()
    chosen, dataset = np.array(places[:most], dtype=np.int64), batches.dataset
    images = dataset.x_test[chosen] if len(chosen) else np.empty((0, 1, 1, 1), np.uint8)
    said = np.array(answers[:most], dtype=np.int64)
    return WrongAnswers(images, dataset.y_test[chosen], said, dataset.class_names)
