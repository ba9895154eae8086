"""One of several processes that train with ``ll.run``: what an update takes, and what it sends."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import layered_lr as ll
from benchmarks.groups import MANY, spec_of
from benchmarks.many_processes.traffic import bytes_sent, read_collectives

MODELS = ("mobilenet_v2", "wide", "tiny")
_MARK = "scaling: "
_SETTLE_SECONDS = 0.05  # until the last bytes are confirmed


class Trainee:
    """A process of a group, or one that is alone.

    Args:
        rank: Its number.
        count: How many there are.
        store: The file through which they find each other; empty connects nothing.
    """

    def __init__(self, rank: int, count: int, store: str) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        if store:
            torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)

    def reduce_seconds(self, size_bytes: int, count: int) -> float:
        """Of one all-reduce of so many bytes: the median of ``count``."""
        distributed = self._torch.distributed
        numbers = self._torch.zeros(size_bytes // 4)
        seconds = []
        for _ in range(count + 1):
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(numbers)
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds[1:])

    def update_seconds(self, model: str, batch: int, groups: str, updates: int) -> float:
        """Of one update of ``ll.run``, with its batch and what the processes decide together: a median.

        Args:
            model: One of ``MODELS``.
            batch: Images of all processes together.
            groups: How the parameters are grouped, a word of ``benchmarks.groups``.
            updates: How many to make; the first two do not count.
        """
        ends: list[float] = []
        self._run(model, batch, groups, updates, lambda name: ends.append(time.perf_counter()))
        return float(np.median(np.diff(ends[1 : updates + 1])))

    def sent_bytes(self, model: str, batch: int, updates: int) -> float:
        """What this process sends in an update, by its sockets: a mean."""
        found: list[int] = []

        def count(name: str) -> None:
            if name in ("update 1", f"update {updates}"):
                time.sleep(_SETTLE_SECONDS)
                found.append(bytes_sent())

        self._run(model, batch, MANY, updates, count)
        return (found[1] - found[0]) / (updates - 1)

    def collectives(self, model: str, batch: int) -> dict[str, Any]:
        """The collectives of an update, an evaluation and a checkpoint, those until then, and the gradients' bytes."""
        torch = self._torch

        def mark(name: str) -> None:
            with torch.profiler.record_function(f"{_MARK}{name}"):
                pass

        with (
            torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler,
            tempfile.TemporaryDirectory() as folder,
        ):
            everyone = [folder]
            if torch.distributed.is_initialized():
                torch.distributed.broadcast_object_list(everyone, src=0)
            trained = self._run(model, batch, MANY, 4, mark, ll.Checkpoints(everyone[0], every="3 steps"))
        found = read_collectives(profiler, _MARK)
        return {
            "start": found["checkpoint 0"],
            "update": found["update 2"],  # no checkpoint, no end of an epoch
            "checkpoint": found["checkpoint 3"],  # and the decision to write it
            "evaluation": found["evaluation 4"],
            "gradient_bytes": sum(4 * math.prod(parameter.shape) for parameter in trained.plan.parameters),
        }

    def _run(
        self, model: str, batch: int, groups: str, updates: int, mark: Callable[[str], None], checkpoints: Any = None
    ) -> ll.Result:
        """Train on noise, and tell ``mark`` of each update, evaluation and checkpoint."""
        torch = self._torch
        torch.manual_seed(0)
        network = make_model(model)

        class Marks(ll.Callback):
            made = 0

            def on_update(self, event: Any) -> None:
                self.made += 1
                mark(f"update {self.made}")

            def on_evaluation(self, event: Any) -> None:
                mark(f"evaluation {self.made}")

            def on_checkpoint(self, event: Any) -> None:
                mark(f"checkpoint {self.made}")

        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch * updates, 32, 32, 3), dtype=np.uint8)
        labels = np.arange(len(images)) % 10
        data = ll.Dataset("noise", images, labels, images[:batch], labels[:batch])
        spec = spec_of("SGD", groups, [name for name, _ in network.named_parameters()])
        return ll.run(
            spec, "torch-eager", lambda: network, data, batch_size=batch, max_steps=updates, device="cpu",
            progress=False, callbacks=[Marks()], checkpoints=checkpoints,
        )  # fmt: skip


def make_model(name: str) -> Any:
    """A network of torch for 32x32 images and 10 classes.

    Args:
        name: ``mobilenet_v2``, of 158 parameters; ``wide``, of 17 MB and little work; or ``tiny``.
    """
    import torch

    if name == "mobilenet_v2":
        from torchvision.models import mobilenet_v2

        return mobilenet_v2(num_classes=10)
    if name == "wide":
        from torch.nn import Flatten, Linear, ReLU

        return torch.nn.Sequential(Flatten(1), Linear(3072, 1024), ReLU(), Linear(1024, 1024), Linear(1024, 10))
    from benchmarks.opponents.models import tiny_torch

    return tiny_torch()
