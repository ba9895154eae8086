"""What does ``ll.run`` cost beside the framework's work? An empty model, microseconds a step, and a long history.

    python -m benchmarks.overhead [--rounds 5] [--quick]

The model is two numbers, the logits of every image: what is left is the loop. ``ll.run`` shows its progress bar on a
terminal (a pseudo terminal whose other end is read and thrown away), records rates and losses, and makes the batches;
beside it the bare loop: forward, loss, backward, optimizer, on batches that are there already. *Per step* is the
difference of a long and a short run over the difference of their steps, so that set-up does not count. Memory of the
history is what the process grows by over a run, its result included, from a long and a longer one;
``growth`` makes a million steps.
"""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.machine import peak_megabytes, reset_peak, resident_megabytes
from benchmarks.frame.report import Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated
from benchmarks.frame.worker import Worker, WorkerError

BATCH = 1
SPEC = ll.Spec(ll.SGD(0.01), [ll.Group("head", lr_scale=0.5)], ll.CosineAnnealingLR(10**6))


def empty_model() -> Any:
    """Two numbers, which are the logits of every image."""
    import torch

    class Same(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(2))

        def forward(self, images: Any) -> Any:
            return self.logits.expand(len(images), 2)

    model = torch.nn.Sequential()
    model.add_module("head", Same())
    return model


def pixels(count: int) -> ll.Dataset:
    """Images of one pixel, and two classes."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 1, 1, 1)).astype(np.float32)
    labels = (images[:, 0, 0, 0] > 0).astype(np.int64)
    return ll.Dataset("pixels", images, labels, images[:8], labels[:8])


class OnTerminal:
    """A worker whose stderr is a terminal, so that the bar is drawn."""

    def __init__(self) -> None:
        master, slave = pty.openpty()
        os.dup2(slave, 2)
        os.close(slave)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        self.drawn = 0
        threading.Thread(target=self._read, args=(master,), daemon=True).start()

    def _read(self, master: int) -> None:
        with contextlib.suppress(OSError):
            while part := os.read(master, 65536):
                self.drawn += len(part)

    def run_seconds(self, short: int, long: int) -> float:
        """Of a step of ``ll.run``."""
        return (self._seconds(long) - self._seconds(short)) / (long - short)

    def bare_seconds(self, short: int, long: int) -> float:
        """Of a step of the bare loop."""
        return (_bare(long) - _bare(short)) / (long - short)

    def growth(self, steps: int) -> dict[str, float]:
        """What a run of so many steps makes the process grow by, in MB."""
        self._seconds(200)
        before = resident_megabytes()
        reset_peak()
        result = self._run(steps)
        assert len(result.losses) == steps
        return {"kept": resident_megabytes() - before, "peak": peak_megabytes() - before, "drawn": self.drawn}

    def _seconds(self, steps: int) -> float:
        began = time.perf_counter()
        self._run(steps)
        return time.perf_counter() - began

    def _run(self, steps: int) -> ll.Result:
        return ll.run(
            SPEC,
            "torch-eager",
            empty_model,
            pixels(100_000),
            batch_size=BATCH,
            max_steps=steps,
            device="cpu",
            epochs=99,
        )


def _bare(steps: int) -> float:
    import torch

    began = time.perf_counter()
    model = empty_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    batches: Iterator[Any] = iter(range(steps))
    images, labels = torch.randn(BATCH, 1, 1, 1), torch.zeros(BATCH, dtype=torch.int64)
    for _ in batches:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - began


class Overhead:
    """The loop alone."""

    name = "overhead"
    question = "What does ll.run cost per step beside the framework's own work, and per million steps of history?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """In one worker: both loops in turn; in another: the long history."""
        short, long = (20, 60) if quick else (500, 10_500)
        with Worker("benchmarks.overhead:OnTerminal", {}) as worker:
            taken = alternated(
                {
                    "ll.run": lambda: float(worker.call("run_seconds", short=short, long=long).value),
                    "bare loop": lambda: float(worker.call("bare_seconds", short=short, long=long).value),
                },
                rounds,
                say=say,
            )
        series = {name: _microseconds(name, values) for name, values in taken.values.items()}
        missing = dict(taken.failed)
        found, ratios = list(series.values()), []
        if len(series) == 2:
            ours, bare = series["ll.run"], series["bare loop"]
            extra = tuple(a - b for a, b in zip(ours.rounds, bare.rounds, strict=True))
            note = "progress bar, batches, rates and losses recorded"
            found.append(Series("ll.run minus bare loop", "overhead of a step", "µs", extra, Target(50), note))
            ratios.append(ratio(ours, bare))
        try:
            found += _history(*((100, 400) if quick else (20_000, 120_000)))
        except WorkerError as error:
            missing["memory of the history"] = str(error)
        return Report(
            self.name,
            self.question,
            series=tuple(found),
            ratios=tuple(ratios),
            missing=missing,
            notes=("A model of two numbers, batch 1, one group, a cosine of rates; torch-eager.",),
        )


def _microseconds(name: str, values: list[float]) -> Series:
    return Series(name, "time of a step", "µs", tuple(1e6 * value for value in values))


def _history(few: int, many: int) -> list[Series]:
    """MB of a million steps, from the difference of two lengths, each in a fresh process."""
    grown = []
    for steps in (few, many):
        say(f"a history of {steps} steps")
        with Worker("benchmarks.overhead:OnTerminal", {}) as worker:
            grown.append(worker.call("growth", steps=steps).value)
    what = {"kept": "memory of 10^6 steps of history", "peak": "peak memory of 10^6 steps of history"}
    note = f"from runs of {few:,} and {many:,} steps"
    scale = 1e6 / (many - few)
    return [
        Series("ll.run", quantity, "MB", (scale * (grown[1][key] - grown[0][key]),), Target(100), note)
        for key, quantity in what.items()
    ]


BENCHMARK = Overhead()

if __name__ == "__main__":
    main(BENCHMARK)
