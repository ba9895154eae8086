"""The best training loop that we can write by hand in torch for this job on a GPU.

The images stay on the device, padded; an index cuts and a mask mirrors them there; channels_last; one fused
SGD; losses are read once an epoch, so that the host never waits for a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import layered_lr as ll
from benchmarks.opponents.draws import PADDING, draws
from benchmarks.opponents.job import Job, Trained, plain
from benchmarks.opponents.models import build_torch


class Batches:
    """Batches on the device."""

    def __init__(self, job: Job, data: ll.Dataset) -> None:
        assert data.mean is not None and data.std is not None
        self.job, self.device = job, torch.device(job.device)
        self.train, self.labels = self._normalised(data, data.x_train), self._on_device(data.y_train)
        self.padded = nn.functional.pad(self.train, [PADDING] * 4, value=0.0)
        black = (-torch.from_numpy(data.mean) / torch.from_numpy(data.std)).to(self.device)
        edge = torch.ones(self.padded.shape[2:], dtype=torch.bool, device=self.device)
        edge[PADDING:-PADDING, PADDING:-PADDING] = False  # the padding is black before it is normalised
        self.padded = torch.where(edge, black[:, None, None], self.padded)
        self.test, self.wanted = self._normalised(data, data.x_test), self._on_device(data.y_test)

    def _normalised(self, data: ll.Dataset, pixels: Any) -> torch.Tensor:
        assert data.mean is not None and data.std is not None
        images = self._on_device(pixels).float().div_(255)
        images = (images - self._on_device(data.mean)) / self._on_device(data.std)
        return images.permute(0, 3, 1, 2).contiguous()

    def _on_device(self, array: Any) -> torch.Tensor:
        return torch.tensor(array, device=self.device)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The training batches of an epoch."""
        job, size = self.job, len(self.labels)
        order, top, left, flip = (self._on_device(part) for part in draws(job.seed, epoch, size))
        rows = torch.arange(self.train.shape[2], device=self.device)
        for start in range(0, size - job.batch_size + 1, job.batch_size):
            chosen = order[start : start + job.batch_size]
            images = self.train[chosen]
            if job.augment:
                down = (top[chosen, None] + rows)[:, None, :, None]
                across = torch.where(flip[chosen, None], rows.flip(0), rows) + left[chosen, None]
                channels = torch.arange(images.shape[1], device=self.device)[None, :, None, None]
                images = self.padded[chosen[:, None, None, None], channels, down, across[:, None, None, :]]
            yield images.contiguous(memory_format=torch.channels_last), self.labels[chosen]


class Opponent:
    """The loop; ``job``: as ``Job``'s arguments."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = Job(**job)
        torch.backends.cudnn.benchmark = True

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on, as ``trained``."""
        return plain(self.trained(epochs, one_batch))

    def trained(self, epochs: int, one_batch: bool = False) -> Trained:
        """From new weights on; ``one_batch``: epochs of one step."""
        job = self.job
        data = job.one_batch if one_batch else job.dataset
        batches = Batches(job, data)
        model = build_torch(job, data.num_classes).to(batches.device, memory_format=torch.channels_last).train()
        groups = [
            {"params": list(model.features.parameters()), "lr": job.lr * job.scale},
            {"params": list(model.classifier.parameters()), "lr": job.lr},
        ]
        optimizer = torch.optim.SGD(groups, momentum=job.momentum, weight_decay=job.weight_decay, fused=True)
        losses: list[float] = []
        accuracy = 0.0
        for epoch in range(epochs):
            pending = []
            for images, labels in batches.epoch(epoch):
                optimizer.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                pending.append(loss.detach())
            losses += torch.stack(pending).tolist()
            model.eval()
            with torch.no_grad():
                accuracy = float((model(batches.test).argmax(1) == batches.wanted).float().mean())
            model.train()
        return Trained(losses, accuracy, {name: value.cpu().numpy() for name, value in model.state_dict().items()})
