"""fastai's Learner, with a rate for each of its parameter groups."""

from __future__ import annotations

from functools import partial
from typing import Any

import fastai.callback.progress  # noqa: F401 - gives Learner no_bar
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.torch_core import params

from benchmarks.opponents.job import Trained, plain
from benchmarks.opponents.models import build_torch
from benchmarks.peers.loaders import Peer, loaders


class KeptLosses(Callback):  # type: ignore[misc]  # untyped
    """Keeps each batch's loss."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def after_batch(self) -> None:
        """After a step."""
        if self.learn.training:
            self.values.append(self.learn.loss.detach())


class Opponent(Peer):
    """The Learner; ``job``: as ``Job``'s arguments."""

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on."""
        job = self.job
        train, test, classes = loaders(job, one_batch)
        kept = KeptLosses()
        learner = Learner(
            DataLoaders(train, test),
            build_torch(job, classes),
            loss_func=CrossEntropyLossFlat(),
            opt_func=partial(SGD, mom=job.momentum, wd=job.weight_decay, decouple_wd=False),
            splitter=lambda model: [params(model.features), params(model.classifier)],
            metrics=accuracy,
            cbs=[kept],
            train_bn=True,
            wd_bn_bias=True,
        )
        with learner.no_bar(), learner.no_logging():
            learner.fit(epochs, lr=[job.lr * job.scale, job.lr])
        return plain(Trained([float(loss) for loss in kept.values], float(learner.recorder.values[-1][-1]), {}))
