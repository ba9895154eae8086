"""Keras 3 on torch: ``compile`` and ``fit`` on torchvision's model, which Keras wraps as a layer.

A Keras optimizer has one rate: no groups. Everything trains at the head's rate, which is less to do and not more.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras.layers import TorchModuleWrapper

from benchmarks.opponents.job import Job, Trained, plain
from benchmarks.opponents.models import build_torch
from benchmarks.peers.loaders import loaders


class Losses(keras.callbacks.Callback):  # type: ignore[misc]  # untyped
    """Keeps the loss that Keras shows after each step: the mean since the epoch began."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step."""
        self.values.append(float((logs or {}).get("loss", float("nan"))))


class Opponent:
    """``fit``.

    Args:
        job: As ``Job``'s arguments.
        jit: Keras's ``jit_compile``.
    """

    def __init__(self, job: dict[str, Any], jit: bool) -> None:
        self.job, self.jit = Job(**job), jit

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on."""
        job = self.job
        train, test, classes = loaders(job, one_batch)
        shape = tuple(train.dataset[0][0].shape)
        inputs = keras.Input(shape)
        model = keras.Model(inputs, TorchModuleWrapper(build_torch(job, classes), output_shape=(classes,))(inputs))
        model.compile(
            optimizer=keras.optimizers.SGD(job.lr, momentum=job.momentum, weight_decay=job.weight_decay),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=self.jit,
        )
        kept = Losses()
        history = model.fit(train, epochs=epochs, validation_data=test, verbose=0, callbacks=[kept])
        return plain(Trained(kept.values, history.history["val_accuracy"][-1], {}))
