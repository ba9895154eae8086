"""How fast do images become training batches? Beside torchvision's DataLoader with two workers.

    python -m benchmarks.data_pipeline [--rounds 5] [--quick] [--data FILE.npz]

The same work: shuffle, crop with padding 4, flip, normalise, a tensor of the framework. ``layered_lr.data.Batches``
makes it in one thread; the DataLoader's workers are kept between epochs and started before the clock. Memory: what the
process has after the last epoch beyond that after the first.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from benchmarks.frame import images
from benchmarks.frame.command import main, say
from benchmarks.frame.machine import resident_megabytes
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated, one_line
from benchmarks.frame.worker import Worker, WorkerError
from benchmarks.opponents.job import Job

_OURS, _FLOW, _THEIRS, _HAND = (
    "Batches to torch",
    "Batches to OneFlow",
    "torchvision's DataLoader, 2 workers",
    "by hand to torch",
)


class Product:
    """``layered_lr.data.Batches``, each batch to a tensor.

    Args:
        job: As ``Job``'s arguments.
        framework: ``"torch"`` or ``"oneflow"``.
    """

    def __init__(self, job: dict[str, Any], framework: str) -> None:
        import importlib

        from layered_lr.data import Batches

        given = Job(**job)
        self.batches = Batches(given.dataset, given.batch_size, given.seed, given.augment)
        self.from_numpy = importlib.import_module(framework).from_numpy
        self.epoch = 0

    def pass_over(self, epochs: int) -> dict[str, float]:
        """Images a second over so many epochs, and the memory after them."""
        began, count = time.perf_counter(), 0
        for _ in range(epochs):
            for pixels, labels in self.batches.epoch(self.epoch):
                tensor, _ = self.from_numpy(pixels), self.from_numpy(labels)
                count += len(tensor)
            self.epoch += 1
        return {"rate": count / (time.perf_counter() - began), "memory": resident_megabytes()}


class Loader:
    """torchvision's transforms in a DataLoader; ``job``: as ``Job``'s arguments."""

    def __init__(self, job: dict[str, Any]) -> None:
        from benchmarks.peers.loaders import loaders

        self.loader, _, _ = loaders(Job(**job), False)
        next(iter(self.loader))  # starts the workers

    def pass_over(self, epochs: int) -> dict[str, float]:
        """As ``Product``'s."""
        began, count = time.perf_counter(), 0
        for _ in range(epochs):
            for pixels, _ in self.loader:
                count += len(pixels)
        return {"rate": count / (time.perf_counter() - began), "memory": resident_megabytes()}


class ByHand:
    """What the hand-written loop does; ``job``: as ``Job``'s arguments."""

    def __init__(self, job: dict[str, Any]) -> None:
        from benchmarks.opponents.torch_loop import Batches

        given = Job(**job)
        self.batches, self.epoch = Batches(given, given.dataset), 0

    def pass_over(self, epochs: int) -> dict[str, float]:
        """As ``Product``'s."""
        began, count = time.perf_counter(), 0
        for _ in range(epochs):
            for pixels, _ in self.batches.epoch(self.epoch):
                count += len(pixels)
            self.epoch += 1
        return {"rate": count / (time.perf_counter() - began), "memory": resident_megabytes()}


class DataPipeline:
    """Images a second, and memory over epochs."""

    name = "data_pipeline"
    question = "How many images a second become augmented batches, beside torchvision's DataLoader with two workers?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Each in a process of its own, in turn."""
        data = "digits" if quick else images.source()
        job = Job(data, 64 if quick else 62 * 64, 8, batch_size=8 if quick else 64).to_dict()
        entrants: dict[str, tuple[str, dict[str, Any], int]] = {
            _OURS: ("Product", {"job": job, "framework": "torch"}, 5),
            _FLOW: ("Product", {"job": job, "framework": "oneflow"}, 5),
            _HAND: ("ByHand", {"job": job}, 5),
            _THEIRS: ("Loader", {"job": job}, 1),
        }
        missing: dict[str, str] = {}
        with ExitStack() as stack:
            turns = {}
            for name, (kind, settings, epochs) in entrants.items():
                try:
                    worker = stack.enter_context(Worker(f"benchmarks.data_pipeline:{kind}", settings))
                except WorkerError as error:
                    missing[name] = one_line(error)
                    continue
                turns[name] = lambda worker=worker, epochs=epochs: worker.call("pass_over", epochs=epochs).value
            taken = alternated(turns, rounds, say=say)
        series = {
            name: Series(name, "images a second", "images/s", tuple(of["rate"] for of in values))
            for name, values in taken.values.items()
        }
        grown = [
            Series(
                name,
                "memory after all rounds beyond the first one",
                "MB",
                (values[-1]["memory"] - values[0]["memory"],),
            )
            for name, values in taken.values.items()
        ]
        pairs = ((_OURS, _THEIRS, Target(10, at_most=False)), (_FLOW, _THEIRS, Target(10, at_most=False)))
        ratios = [ratio(series[a], series[b], target) for a, b, target in pairs if a in series and b in series]
        if _OURS in series and _HAND in series:
            ratios.append(ratio(series[_OURS], series[_HAND]))
        return Report(
            self.name,
            self.question,
            series=(*series.values(), *grown),
            ratios=tuple(ratios),
            missing=missing | taken.failed,
            notes=(f"{images.described(data)}, batch {64 if not quick else 8}, crop with padding 4, flip, normalise.",),
        )


BENCHMARK = DataPipeline()

if __name__ == "__main__":
    main(BENCHMARK)
