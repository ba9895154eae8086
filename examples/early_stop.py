"""A run with a metric of its own, that ends when it no longer gets better and keeps the best weights."""

import os

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll


def balanced_accuracy(outputs: NDArray[np.float32], targets: NDArray[np.int64]) -> float:
    """The mean of the accuracies of each class."""
    right = outputs.argmax(axis=1) == targets
    return float(np.mean([right[targets == number].mean() for number in np.unique(targets)]))


spec = ll.Spec(
    ll.AdamW(lr=1e-3, weight_decay=0.05),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
)
result = ll.run(
    spec,
    epochs=20,
    max_steps=int(os.environ.get("MAX_STEPS", "400")),
    metrics=[balanced_accuracy],
    early_stop=ll.EarlyStop("balanced_accuracy", patience=3, mode="max", time_limit="30 minutes"),
)
print(result)
print(result.logged["balanced_accuracy"])
