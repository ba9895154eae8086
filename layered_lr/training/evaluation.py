"""Measures a model in training on the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend.base import Session
from layered_lr.data import Batches
from layered_lr.training.metrics import Metric, MetricSums


def evaluate(
    session: Session, batches: Batches, metrics: Mapping[str, Metric], ema: bool = False
) -> tuple[float, dict[str, float]]:
    """The fraction of the test set that the model, or its moving average, gets right, and further metrics.

    The fraction is NaN where the targets are no class numbers.

    Args:
        session: Who has the model.
        batches: Whose test set it is.
        metrics: What else to measure, by name.
        ema: Whether to measure the moving average.
    """
    right, sums = 0, MetricSums(metrics)
    has_classes = batches.dataset.facts.has_classes
    if not has_classes and not metrics:
        return float("nan"), {}
    for images, labels, count in batches.test(session.wants_channels_last):
        outputs = session.logits(images, ema, shares=True)
        if has_classes:
            right += int(np.sum(outputs.argmax(axis=1)[:count] == labels[:count]))
        if metrics:
            sums.add(outputs[:count], labels[:count])
    return right / len(batches.dataset.y_test) if has_classes else float("nan"), sums.numbers()


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
