"""The best training loop that we can write by hand in torch for this job. Copy it, and see what ``ll.run`` has to beat.

What makes it fast, and what each thing is worth is in NOTES.md:

- the model and its input are channels_last: on a CPU the convolutions then need no reordering of their memory;
- images stay uint8 NHWC until they are a tensor: a window of a padded copy of the training set is an index, not a loop,
  and NHWC pixels are a channels_last tensor as they lie in memory;
- one fused SGD with two param groups; gradients are set to None;
- losses are kept as tensors and read once an epoch: no step waits for one;
- glibc keeps freed memory instead of giving it back to the kernel at every step and taking it in again page by page.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import layered_lr as ll
from benchmarks.opponents.draws import PADDING, draws
from benchmarks.opponents.job import Job, Trained, plain
from benchmarks.opponents.models import build_torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: else thousands of page faults a step."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_TRIM_THRESHOLD, 1 << 30)
            libc.mallopt(_MMAP_THRESHOLD, 1 << 30)


class Batches:
    """Batches of a data set, as channels_last tensors."""

    def __init__(self, job: Job, data: ll.Dataset) -> None:
        self.job, self.data = job, data
        height, width = data.x_train.shape[1:3]
        edge = (PADDING, PADDING)
        padded = np.pad(data.x_train, ((0, 0), edge, edge, (0, 0)))  # (N, H + 8, W + 8, C)
        windows: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(
            padded,
            (height, width),
            axis=(1, 2),  # type: ignore[call-overload]  # NumPy 1.26 types one axis alone
        )
        self.windows = windows.transpose(0, 1, 2, 4, 5, 3)  # (N, 9, 9, H, W, C), nothing copied
        assert data.mean is not None and data.std is not None
        self.scale = torch.from_numpy(1 / (255 * data.std))
        self.shift = torch.from_numpy(data.mean / data.std)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The training batches of an epoch."""
        job, data = self.job, self.data
        drawn = draws(job.seed, epoch, len(data.y_train))
        for start in range(0, len(drawn.order) - job.batch_size + 1, job.batch_size):
            chosen = drawn.order[start : start + job.batch_size]
            if job.augment:
                pixels = self.windows[chosen, drawn.top[chosen], drawn.left[chosen]]  # (B, H, W, C)
                flip = drawn.flip[chosen]
                pixels[flip] = pixels[flip, :, ::-1]
            else:
                pixels = data.x_train[chosen]
            yield self.tensor(pixels), torch.from_numpy(data.y_train[chosen])

    def tensor(self, pixels: NDArray[Any]) -> torch.Tensor:
        """uint8 ``(B, H, W, C)`` to normalised float32 ``(B, C, H, W)``, channels_last."""
        images = torch.from_numpy(pixels).to(torch.float32)
        return images.mul_(self.scale).sub_(self.shift).permute(0, 3, 1, 2)

    def test(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The test images, as they are."""
        data, size = self.data, self.job.batch_size
        for start in range(0, len(data.y_test), size):
            # Copies: torch warns of arrays that must not be written to.
            pixels = np.array(data.x_test[start : start + size])
            yield self.tensor(pixels), torch.from_numpy(data.y_test[start : start + size].copy())


class Opponent:
    """The loop.

    Args:
        job: As ``Job``'s arguments.
        keep_memory: Whether glibc is told to keep freed memory.
    """

    batches: Callable[[Job, ll.Dataset], Any] = Batches

    def __init__(self, job: dict[str, Any], keep_memory: bool = True) -> None:
        self.job = Job(**job)
        if keep_memory:
            keep_freed_memory()

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on, as ``trained``."""
        return plain(self.trained(epochs, one_batch))

    def trained(self, epochs: int, one_batch: bool = False) -> Trained:
        """From new weights on; ``one_batch``: epochs of one step."""
        job = self.job
        data = job.one_batch if one_batch else job.dataset
        batches = self.batches(job, data)
        model = build_torch(job, data.num_classes).to(job.device, memory_format=torch.channels_last).train()
        head = list(model.classifier.parameters())
        backbone = list(model.features.parameters())
        groups = [{"params": backbone, "lr": job.lr * job.scale}, {"params": head, "lr": job.lr}]
        optimizer = torch.optim.SGD(groups, momentum=job.momentum, weight_decay=job.weight_decay, fused=True)
        losses: list[float] = []
        accuracy = 0.0
        for epoch in range(epochs):
            pending = []
            for images, labels in batches.epoch(epoch):
                optimizer.zero_grad(set_to_none=True)
                loss = nn.functional.cross_entropy(self._answer(model, images), labels)
                loss.backward()
                optimizer.step()
                pending.append(loss.detach())
            losses += torch.stack(pending).tolist()
            accuracy = self._accuracy(model, batches)
        return Trained(losses, accuracy, {name: value.cpu().numpy() for name, value in model.state_dict().items()})

    def _answer(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if self.job.autocast is None:
            return model(images)  # type: ignore[no-any-return]
        with torch.autocast(images.device.type, getattr(torch, self.job.autocast)):
            return model(images).float()  # type: ignore[no-any-return]

    def _accuracy(self, model: nn.Module, batches: Any) -> float:
        model.eval()
        with torch.no_grad():
            answers = ((self._answer(model, images).argmax(1), labels) for images, labels in batches.test())
            right = sum(int((found == labels).sum()) for found, labels in answers)
        model.train()
        return right / len(batches.data.y_test)
