"""The models of a job, in torch and in OneFlow, with the same names."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from benchmarks.opponents.job import Job, initial


def build_torch(job: Job, classes: int) -> Any:
    """In torch, NCHW, on the CPU, in training mode."""
    import torch

    random.seed(job.seed)
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    if job.model == "tiny":
        model = tiny_torch(classes)
    else:
        from torchvision.models import mobilenet_v2

        model = mobilenet_v2(num_classes=classes, dropout=job.dropout)
    start = initial(job)
    if start is not None:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
    return model


def build_oneflow(job: Job, classes: int) -> Any:
    """In OneFlow."""
    import oneflow

    oneflow.manual_seed(job.seed)
    if job.model == "tiny":
        model = tiny_oneflow(classes)
    else:
        from flowvision.models import mobilenet_v2

        model = mobilenet_v2(num_classes=classes)
        model.classifier[0].p = job.dropout
    start = initial(job)
    if start is not None:
        model.load_state_dict({name: oneflow.tensor(array) for name, array in start.items()})
    return model


def tiny_torch(classes: int = 10) -> Any:
    """A convolution, a batch normalisation and a head, in torch."""
    import torch

    return _tiny(torch.nn, classes)


def tiny_oneflow(classes: int = 10) -> Any:
    """The same in OneFlow."""
    import oneflow

    return _tiny(oneflow.nn, classes)


def _tiny(nn: Any, classes: int) -> Any:
    model = nn.Sequential()
    features = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1)
    )
    model.add_module("features", features)
    model.add_module("classifier", nn.Linear(4 * 8 * 8, classes))
    return model
