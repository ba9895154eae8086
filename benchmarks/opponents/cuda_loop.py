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
from benchmarks.opponents import torch_loop
from benchmarks.opponents.draws import PADDING, draws
from benchmarks.opponents.job import Job


class Batches:
    """Batches on the device."""

    def __init__(self, job: Job, data: ll.Dataset) -> None:
        assert data.mean is not None and data.std is not None
        self.job, self.data, self.device = job, data, torch.device(job.device)
        self.train, self.labels = self._normalised(data, data.x_train), self._on_device(data.y_train)
        self.padded = nn.functional.pad(self.train, [PADDING] * 4, value=0.0)
        black = (-torch.from_numpy(data.mean) / torch.from_numpy(data.std)).to(self.device)
        edge = torch.ones(self.padded.shape[2:], dtype=torch.bool, device=self.device)
        edge[PADDING:-PADDING, PADDING:-PADDING] = False  # the padding is black before it is normalised
        self.padded = torch.where(edge, black[:, None, None], self.padded)
        self.images, self.wanted = self._normalised(data, data.x_test), self._on_device(data.y_test)

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
        columns, mirrored = rows[None], rows.flip(0)[None]
        channels = torch.arange(self.train.shape[1], device=self.device)[None, :, None, None]
        for start in range(0, size - job.batch_size + 1, job.batch_size):
            chosen = order[start : start + job.batch_size]
            if job.augment:
                down = (top[chosen, None] + rows)[:, None, :, None]
                across = torch.where(flip[chosen, None], mirrored, columns) + left[chosen, None]
                images = self.padded[chosen[:, None, None, None], channels, down, across[:, None, None, :]]
            else:
                images = self.train[chosen]
            yield images.contiguous(memory_format=torch.channels_last), self.labels[chosen]

    def test(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All test images at once."""
        yield self.images, self.wanted


class Opponent(torch_loop.Opponent):
    """The loop of ``torch_loop`` on these batches; ``job``: as ``Job``'s arguments."""

    batches = Batches

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job, keep_memory=False)
        torch.backends.cudnn.benchmark = True
