"""Measures a model in training on the test set."""

from __future__ import annotations

import numpy as np

from layered_lr.backend.base import Session
from layered_lr.data import Batches


def accuracy(session: Session, batches: Batches, ema: bool = False) -> float:
    """The fraction of the test set that the model, or its moving average, gets right."""
    right = 0
    for images, labels, count in batches.test(session.wants_channels_last):
        right += int(np.sum(session.logits(images, ema).argmax(axis=1)[:count] == labels[:count]))
    return right / len(batches.dataset.y_test)
