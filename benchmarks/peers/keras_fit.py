"""Keras 3 on torch: ``compile`` and ``fit`` on torchvision's model, which Keras wraps as a layer.

A Keras optimizer has one rate: no groups. Everything trains at the head's rate, which is less to do and not more.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras.layers import TorchModuleWrapper

from benchmarks.opponents.job import Trained, plain
from benchmarks.opponents.models import build_torch
from benchmarks.peers.loaders import Peer, loaders


class Losses(keras.callbacks.Callback):  # type: ignore[misc]  # untyped
    """Keeps the loss that Keras shows after each step: the mean since the epoch began."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step."""
        self.values.append(float((logs or {}).get("loss", float("nan"))))


class Opponent(Peer):
    """``fit``, on one model that begins anew each time, so that what it compiled stays.

    Args:
        job: As ``Job``'s arguments.
        jit: Keras's ``jit_compile``.
    """

    def __init__(self, job: dict[str, Any], jit: bool) -> None:
        super().__init__(job)
        self.jit = jit
        self._model: Any = None
        self._module: Any = None
        self._start: dict[str, Any] = {}

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From the first weights on."""
        train, test, classes = loaders(self.job, one_batch)
        if self._model is None:
            self._module = build_torch(self.job, classes)
            self._start = {name: tensor.clone() for name, tensor in self._module.state_dict().items()}
            self._model = self._built(tuple(train.dataset[0][0].shape), classes)
        self._module.load_state_dict(self._start)
        for variable in self._model.optimizer.variables:
            if variable is not self._model.optimizer.learning_rate:  # momentum, and the count of steps
                variable.assign(keras.ops.zeros_like(variable))
        kept = Losses()
        history = self._model.fit(train, epochs=epochs, validation_data=test, verbose=0, callbacks=[kept])
        return plain(Trained(kept.values, history.history["val_accuracy"][-1], {}))

    def _built(self, shape: tuple[int, ...], classes: int) -> Any:
        job = self.job
        inputs = keras.Input(shape)
        model = keras.Model(inputs, TorchModuleWrapper(self._module, output_shape=(classes,))(inputs))
        model.compile(
            optimizer=keras.optimizers.SGD(job.lr, momentum=job.momentum, weight_decay=job.weight_decay),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=self.jit,
        )
        return model
