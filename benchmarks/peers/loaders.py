"""Images as all these peers take them: torchvision's transforms on PIL images, a DataLoader with two workers.

Beside a GPU with up to eight, and pinned memory.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.opponents.job import Job

WORKERS = 2
_kept: list[Any] = []


class Images(Dataset[tuple[Any, int]]):
    """Images and labels, each image through a transform.

    Args:
        pixels: uint8 ``(N, H, W, C)``.
        labels: ``(N,)``.
        transform: Of a PIL image.
    """

    def __init__(self, pixels: Any, labels: Any, transform: Any) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        """How many."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """One image, transformed, and its label."""
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def datasets(job: Job, one_batch: bool) -> tuple[Images, Images, int]:
    """To train and to test on, and the number of classes."""
    data = job.one_batch if one_batch else job.dataset
    assert data.mean is not None and data.std is not None
    plain = [transforms.ToTensor(), transforms.Normalize(data.mean.tolist(), data.std.tolist())]
    random = [transforms.RandomCrop(data.x_train.shape[1], padding=4), transforms.RandomHorizontalFlip()]
    train = transforms.Compose([*(random if job.augment else []), *plain])
    return (
        Images(data.x_train, data.y_train, train),
        Images(data.x_test, data.y_test, transforms.Compose(plain)),
        data.num_classes,
    )


def loaders(job: Job, one_batch: bool) -> tuple[DataLoader[Any], DataLoader[Any], int]:
    """To train and to test on, and the number of classes."""
    train, test, classes = datasets(job, one_batch)
    torch.manual_seed(job.seed)
    on_gpu = job.device != "cpu"
    workers = min(8, os.cpu_count() or 1) if on_gpu else WORKERS
    stay: dict[str, Any] = {"num_workers": workers, "persistent_workers": True, "pin_memory": on_gpu}
    return (
        kept(DataLoader(train, job.batch_size, shuffle=True, drop_last=True, **stay)),
        DataLoader(test, job.batch_size),
        classes,
    )


def kept(loader: Any) -> Any:
    """A loader that lives until its peer rests."""
    _kept.append(loader)
    return loader


class Peer:
    """What peers have in common.

    Args:
        job: As ``Job``'s arguments.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = Job(**job)

    def rest(self) -> None:
        """End the loaders' processes, outside of what is timed: at times torch waits five seconds for one of them."""
        _kept.clear()
        gc.collect()  # trainers hold their loaders in circles
