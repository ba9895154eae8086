"""A script of one training step as a user writes it, which imports nothing but the framework and NumPy."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np


def by_hand(backend: str, data: str) -> None:
    """Imports, model, optimizer, one step, one evaluation."""
    with np.load(data) as file:
        pixels = (file["x_train"].transpose(0, 3, 1, 2) / 255).astype(np.float32)
        labels = file["y_train"].astype(np.int64)
    if backend.startswith("torch"):
        _torch_step(pixels, labels)
    else:
        _oneflow_step(pixels, labels, backend.endswith("graph"))
    print("one step by hand", flush=True)
    if not backend.startswith("torch"):
        os._exit(0)  # as the command does: OneFlow 0.9 crashes at times while it is taken down


def _torch_step(pixels: Any, labels: Any) -> None:
    import torch
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=10).to(memory_format=torch.channels_last)
    groups = [{"params": model.features.parameters(), "lr": 0.01}, {"params": model.classifier.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True)
    images = torch.from_numpy(pixels).to(memory_format=torch.channels_last)
    loss = torch.nn.functional.cross_entropy(model(images), torch.from_numpy(labels))
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        model(images).argmax(1).tolist()


def _oneflow_step(pixels: Any, labels: Any, graph: bool) -> None:
    import oneflow as flow
    from flowvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=10)
    groups = [{"params": model.features.parameters(), "lr": 0.01}, {"params": model.classifier.parameters(), "lr": 0.1}]
    optimizer = flow.optim.SGD(groups, lr=0.1, momentum=0.9)
    loss_function = flow.nn.CrossEntropyLoss()
    images, wanted = flow.from_numpy(pixels), flow.from_numpy(labels)

    class Train(flow.nn.Graph):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_function = model, loss_function
            self.add_optimizer(optimizer)

        def build(self, images: Any, labels: Any) -> Any:
            loss = self.loss_function(self.model(images), labels)
            loss.backward()
            return loss

    class Answer(flow.nn.Graph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def build(self, images: Any) -> Any:
            return self.model(images)

    if graph:
        Train()(images, wanted).numpy()
    else:
        loss = loss_function(model(images), wanted)
        loss.backward()
        optimizer.step()
    model.eval()
    with flow.no_grad():
        (Answer() if graph else model)(images).numpy().argmax(1)


if __name__ == "__main__":
    by_hand(*sys.argv[1:3])
