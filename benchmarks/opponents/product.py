"""``ll.run`` on a job."""

from __future__ import annotations

from typing import Any

import layered_lr as ll
from benchmarks.opponents.job import Job, Trained, initial, plain
from benchmarks.opponents.models import tiny_oneflow, tiny_torch


def spec_of(job: Job) -> ll.Spec:
    """The groups of a job: the backbone at a part of the head's rate."""
    optimizer = ll.SGD(job.lr, momentum=job.momentum, weight_decay=job.weight_decay)
    return ll.Spec(optimizer, [ll.Group("features", lr_scale=job.scale), ll.Group("classifier")])


class Opponent:
    """``ll.run`` with one backend.

    Args:
        job: As ``Job``'s arguments.
        backend: Of ``ll.run``.
    """

    def __init__(self, job: dict[str, Any], backend: str) -> None:
        self.job, self.backend = Job(**job), backend

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on, as ``trained``."""
        return plain(self.trained(epochs, one_batch))

    def trained(self, epochs: int, one_batch: bool = False) -> Trained:
        """From new weights on.

        Args:
            epochs: How many.
            one_batch: Epochs of one step.
        """
        result = self.run(epochs=epochs, one_batch=one_batch)
        return Trained(result.losses.tolist(), float(result.accuracies[-1]), result.weights)

    def run(self, one_batch: bool = False, **options: Any) -> ll.Result:
        """The whole result."""
        job = self.job
        tiny = tiny_torch if self.backend.startswith("torch") else tiny_oneflow
        return ll.run(
            spec_of(job),
            self.backend,
            tiny if job.model == "tiny" else job.model,
            job.one_batch if one_batch else job.dataset,
            **{
                "batch_size": job.batch_size,
                "seed": job.seed,
                "dropout": job.dropout,
                "augment": job.augment,
                "device": job.device,
                "precision": ll.Precision(autocast=job.autocast),
                "initial_weights": initial(job),
                "progress": False,
                **options,
            },
        )
