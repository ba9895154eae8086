"""How fast does a folder of JPEGs become training batches? Beside torchvision's DataLoader, and timm's loader.

    python -m benchmarks.folder_pipeline [--rounds 5] [--quick]

The same work: decode photographs of 500x375 pixels, scale the shorter side to 224, cut the middle out, crop with
padding 4, flip, normalise, a tensor of torch. Each epoch decodes all images again, and ``kept`` is this library with
the pixels in memory, as a folder that fits there has them. Processes of a DataLoader are kept between epochs and
started before the clock. Where timm is not installed, the report says so.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frame.command import main, say
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated, one_line
from benchmarks.frame.worker import Worker, WorkerError

_OURS, _KEPT, _THEIRS, _TIMM = (
    "ImageFolder",
    "ImageFolder, kept",
    "torchvision's DataLoader, 2 workers",
    "timm's loader",
)
_SIZE, _WORKERS = 224, 2


class Product:
    """``ll.ImageFolder`` through ``Batches``.

    Args:
        folder: Of the images.
        batch_size: Images of a batch.
        keeps: Whether the pixels stay in memory.
    """

    def __init__(self, folder: str, batch_size: int, keeps: bool) -> None:
        import torch

        import layered_lr as ll
        from layered_lr.data import Batches

        memory = 1 << 40 if keeps else 0
        data = ll.ImageFolder(folder, _SIZE, share=0.05, memory_bytes=memory, workers=_WORKERS).load()
        self.batches, self.epoch, self.to_tensor = Batches(data, batch_size, augment=True), 0, torch.from_numpy

    def pass_over(self) -> float:
        """Images a second over one epoch."""
        began, count = time.perf_counter(), 0
        for pixels, _ in self.batches.epoch(self.epoch):
            count += len(self.to_tensor(pixels))
        self.epoch += 1
        return count / (time.perf_counter() - began)


class Loader:
    """torchvision's ImageFolder and transforms in a DataLoader.

    Args:
        folder: Of the images.
        batch_size: Images of a batch.
    """

    def __init__(self, folder: str, batch_size: int) -> None:
        from torch.utils.data import DataLoader
        from torchvision import datasets, transforms

        steps = [
            transforms.Resize(_SIZE),
            transforms.CenterCrop(_SIZE),
            transforms.RandomCrop(_SIZE, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
        images = datasets.ImageFolder(folder, transforms.Compose(steps))
        self.loader: Any = DataLoader(
            images, batch_size, shuffle=True, drop_last=True, num_workers=_WORKERS, persistent_workers=True
        )
        next(iter(self.loader))  # starts the workers

    def pass_over(self) -> float:
        """As ``Product``'s."""
        began = time.perf_counter()
        count = sum(len(pixels) for pixels, _ in self.loader)
        return count / (time.perf_counter() - began)


class TimmLoader(Loader):
    """timm's data set and loader, with its own random crop of the whole image; arguments as ``Loader``'s."""

    def __init__(self, folder: str, batch_size: int) -> None:
        from timm.data import create_dataset, create_loader

        self.loader = create_loader(
            create_dataset("", folder),
            (3, _SIZE, _SIZE),
            batch_size,
            is_training=True,
            num_workers=_WORKERS,
            persistent_workers=True,
            use_prefetcher=False,
            color_jitter=None,
            interpolation="bilinear",
        )
        next(iter(self.loader))


class FolderPipeline:
    """Images a second of a folder."""

    name = "folder_pipeline"
    question = (
        "How many JPEGs of a folder become augmented batches in a second, beside torchvision's and timm's loaders?"
    )
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Each in a process of its own, in turn."""
        count, batch_size = (24, 8) if quick else (640, 64)
        missing: dict[str, str] = {}
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="layered_lr-"))
            make_photographs(Path(folder), count)
            given = {"folder": folder, "batch_size": batch_size}
            entrants: dict[str, tuple[str, dict[str, Any]]] = {
                _OURS: ("Product", {**given, "keeps": False}),
                _KEPT: ("Product", {**given, "keeps": True}),
                _THEIRS: ("Loader", given),
            }
            if importlib.util.find_spec("timm"):
                entrants[_TIMM] = ("TimmLoader", given)
            turns = {}
            for name, (kind, settings) in entrants.items():
                try:
                    worker = stack.enter_context(Worker(f"benchmarks.folder_pipeline:{kind}", settings))
                except WorkerError as error:
                    missing[name] = one_line(error)
                    continue
                turns[name] = lambda worker=worker: worker.call("pass_over").value
            taken = alternated(turns, rounds, say=say)
        series = {
            name: Series(name, "images a second", "images/s", tuple(values)) for name, values in taken.values.items()
        }
        pairs = ((_OURS, _THEIRS, Target(1, at_most=False)), (_KEPT, _THEIRS, None))
        ratios = [ratio(series[a], series[b], target) for a, b, target in pairs if a in series and b in series]
        if _OURS in series and _TIMM in series:
            ratios.append(ratio(series[_OURS], series[_TIMM]))
        return Report(
            self.name,
            self.question,
            series=tuple(series.values()),
            ratios=tuple(ratios),
            missing=missing | taken.failed,
            notes=(
                f"{count} JPEGs of 500x375, batch {batch_size}, {_WORKERS} threads beside {_WORKERS} processes.",
                *(() if _TIMM in series else ("timm is not installed here, so its loader is not measured.",)),
            ),
        )


def make_photographs(folder: Path, count: int) -> None:
    """Write JPEGs of two classes that are as smooth as photographs are: noise, enlarged."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        place = folder / f"class {index % 2}"
        place.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(place / f"{index}.jpg", quality=90)


BENCHMARK = FolderPipeline()

if __name__ == "__main__":
    main(BENCHMARK)
