"""All that comes before a first training step, and nothing of the step: ``python ready.py WHAT BACKEND DATA.npz``.

``hand``: a script as a user writes it, which imports the framework and NumPy alone. ``command``: ``layered-lr run``,
ended where it would begin the step; nothing else of it is changed.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def hand(backend: str, data: str) -> None:
    """Imports, images, model, optimizer."""
    import numpy as np

    with np.load(data) as file:
        pixels = (file["x_train"].transpose(0, 3, 1, 2) / 255).astype(np.float32)
        labels = file["y_train"].astype(np.int64)
    made = _torch(pixels, labels) if backend.startswith("torch") else _oneflow(pixels, labels, backend.endswith("h"))
    assert all(part is not None for part in made)


def _torch(pixels: Any, labels: Any) -> tuple[Any, ...]:
    import torch
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=10).to(memory_format=torch.channels_last)
    groups = [{"params": model.features.parameters(), "lr": 0.01}, {"params": model.classifier.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True)
    images = torch.from_numpy(pixels).to(memory_format=torch.channels_last)
    return model, optimizer, images, torch.from_numpy(labels)


def _oneflow(pixels: Any, labels: Any, graph: bool) -> tuple[Any, ...]:
    import oneflow as flow
    from flowvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=10)
    groups = [{"params": model.features.parameters(), "lr": 0.01}, {"params": model.classifier.parameters(), "lr": 0.1}]
    optimizer = flow.optim.SGD(groups, lr=0.1, momentum=0.9)
    loss_function = flow.nn.CrossEntropyLoss()

    class Train(flow.nn.Graph):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_function = model, loss_function
            self.add_optimizer(optimizer)

        def build(self, images: Any, labels: Any) -> Any:
            loss = self.loss_function(self.model(images), labels)
            loss.backward()
            return loss

    step = Train() if graph else model
    return step, optimizer, flow.from_numpy(pixels), flow.from_numpy(labels)


def command(backend: str, data: str) -> None:
    """The command, with one line put before its first update."""
    from layered_lr.backend.session import Session
    from layered_lr.cli import main

    def stop(*_: Any) -> None:
        _end()

    Session.train_step = stop  # type: ignore[assignment]
    words = ["--data", data, "--backend", backend, "--max-steps", "1", "--batch-size", "64", "--no-progress"]
    sys.argv = ["layered-lr", "run", *words]
    main()


def _end() -> None:
    """At once: what taking the interpreter down costs is not asked, and OneFlow 0.9 crashes at times while it is."""
    print("ready", flush=True)
    os._exit(0)


if __name__ == "__main__":
    {"hand": hand, "command": command}[sys.argv[1]](*sys.argv[2:4])
    _end()
