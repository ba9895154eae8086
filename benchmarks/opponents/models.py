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


def build_oneflow(job: Job, classes: int, flat: bool = False) -> Any:
    """In OneFlow; ``flat``: the library's MobileNetV2 instead of flowvision's."""
    import oneflow

    oneflow.manual_seed(job.seed)
    if job.model == "tiny":
        model = tiny_oneflow(classes)
    elif flat:
        from layered_lr_oneflow.flat_mobilenet_v2 import FlatMobileNetV2

        model = FlatMobileNetV2(classes, oneflow.nn.Dropout(job.dropout))
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


def tiny_weights(seed: int, classes: int = 10) -> dict[str, Any]:
    """A start for both tiny models."""
    rng = np.random.default_rng(seed)
    shapes = {"features.0.weight": (4, 3, 3, 3), "classifier.weight": (classes, 256), "classifier.bias": (classes,)}
    found: dict[str, Any] = {
        name: (0.2 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()
    }
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    found |= {"features.1.weight": ones, "features.1.bias": zeros}
    found |= {"features.1.running_mean": zeros, "features.1.running_var": ones}
    found["features.1.num_batches_tracked"] = np.zeros((), np.int64)
    return found


def _tiny(nn: Any, classes: int) -> Any:
    model = nn.Sequential()
    features = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(1)
    )
    model.add_module("features", features)
    model.add_module("classifier", nn.Linear(4 * 8 * 8, classes))
    return model
