"""The loop of PyTorch's tutorials: DataLoader with PIL transforms, NCHW, plain SGD, the loss read at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.opponents.job import Trained, plain
from benchmarks.opponents.models import build_torch
from benchmarks.peers.loaders import Peer, loaders


class Opponent(Peer):
    """The loop; ``job``: as ``Job``'s arguments."""

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on."""
        job = self.job
        train, test, classes = loaders(job, one_batch)
        model = build_torch(job, classes)
        loss_function = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(
            [
                {"params": model.features.parameters(), "lr": job.lr * job.scale},
                {"params": model.classifier.parameters(), "lr": job.lr},
            ],
            momentum=job.momentum,
            weight_decay=job.weight_decay,
        )
        losses, right, count = [], 0, 0
        for _ in range(epochs):
            model.train()
            for images, labels in train:
                optimizer.zero_grad()
                loss = loss_function(model(images), labels)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            model.eval()
            right = count = 0
            with torch.no_grad():
                for images, labels in test:
                    right += int((model(images).argmax(1) == labels).sum())
                    count += len(labels)
        return plain(Trained(losses, right / count, {}))
