"""The best training loops that we can write by hand in OneFlow for this job: eager, and a static Graph.

As in ``torch_loop``: pixels are cut and mirrored by one index, normalised in NumPy, and become a tensor in one copy
(``oneflow.from_numpy`` shares memory, and OneFlow reads it later: every batch is a new array); losses are read once an
epoch. OneFlow 0.9 has no channels_last on a CPU and no fused optimizer there. OpenBLAS in OneFlow's wheel does not know
new processors and takes its slowest kernels: a variable, set before the import, names a kernel it has. OneFlow's own
convolutions are slow on a CPU: the model is the library's, which computes them as matrix products.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from benchmarks.opponents.draws import PADDING, draws
from benchmarks.opponents.job import Job, Trained, plain
from benchmarks.opponents.models import build_oneflow


class Batches:
    """Batches of a data set, float32 NCHW."""

    def __init__(self, job: Job, data: ll.Dataset) -> None:
        self.job, self.data = job, data
        height, width = data.x_train.shape[1:3]
        edge = (PADDING, PADDING)
        padded = np.pad(data.x_train.transpose(0, 3, 1, 2), ((0, 0), (0, 0), edge, edge))  # (N, C, H + 8, W + 8)
        windows: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(
            padded,
            (height, width),
            axis=(2, 3),  # type: ignore[call-overload]  # NumPy 1.26 types one axis alone
        )
        self.windows = windows.transpose(0, 2, 3, 1, 4, 5)  # (N, 9, 9, C, H, W), nothing copied
        assert data.mean is not None and data.std is not None
        self.scale = (1 / (255 * data.std))[:, None, None]
        self.shift = (data.mean / data.std)[:, None, None]

    def epoch(self, epoch: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """The training batches of an epoch."""
        job, data = self.job, self.data
        order, top, left, flipped = draws(job.seed, epoch, len(data.y_train))
        for start in range(0, len(order) - job.batch_size + 1, job.batch_size):
            chosen = order[start : start + job.batch_size]
            if job.augment:
                pixels = self.windows[chosen, top[chosen], left[chosen]]  # (B, C, H, W)
                flip = flipped[chosen]
                pixels[flip] = pixels[flip, :, :, ::-1]
            else:
                pixels = data.x_train[chosen].transpose(0, 3, 1, 2)
            yield self.normalised(pixels), data.y_train[chosen]

    def normalised(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """uint8 to float32."""
        images = np.ascontiguousarray(pixels, np.float32)
        images *= self.scale
        images -= self.shift
        return images

    def test(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """The test images, as they are; whole batches, since a graph has one shape."""
        data, size = self.data, self.job.batch_size
        for start in range(0, len(data.y_test) - size + 1, size):
            part = slice(start, start + size)
            yield self.normalised(data.x_test[part].transpose(0, 3, 1, 2)), data.y_test[part]


class Opponent:
    """The loop.

    Args:
        job: As ``Job``'s arguments.
        graph: A static Graph instead of eager mode.
        flat: The library's model, or flowvision's.
    """

    def __init__(self, job: dict[str, Any], graph: bool, flat: bool = True) -> None:
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")  # unknown processors get SSE kernels
        self.job, self.graph, self.flat = Job(**job), graph, flat

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on, as ``trained``."""
        return plain(self.trained(epochs, one_batch))

    def trained(self, epochs: int, one_batch: bool = False) -> Trained:
        """From new weights on; ``one_batch``: epochs of one step."""
        import oneflow as flow

        job = self.job
        data = job.one_batch if one_batch else job.dataset
        batches = Batches(job, data)
        model = build_oneflow(job, data.num_classes, self.flat).train()
        loss_function = flow.nn.CrossEntropyLoss()
        backbone, head = model.features.parameters(), model.classifier.parameters()
        optimizer = flow.optim.SGD(
            [{"params": backbone, "lr": job.lr * job.scale}, {"params": head, "lr": job.lr}],
            momentum=job.momentum,
            weight_decay=job.weight_decay,
        )
        if self.graph:
            step, answer = _graphs(model, loss_function, optimizer)
        else:
            answer = model

            def step(images: Any, labels: Any) -> Any:
                optimizer.zero_grad(set_to_none=True)
                loss = loss_function(model(images), labels)
                loss.backward()
                optimizer.step()
                return loss.detach()

        losses: list[float] = []
        accuracy = 0.0
        for epoch in range(epochs):
            pending = [step(flow.from_numpy(x), flow.from_numpy(y)) for x, y in batches.epoch(epoch)]
            losses += flow.stack([loss.reshape(1) for loss in pending]).flatten().tolist()
            accuracy = _accuracy(model, answer, batches)
        return Trained(losses, accuracy, {name: value.numpy() for name, value in model.state_dict().items()})


def _graphs(model: Any, loss_function: Any, optimizer: Any) -> tuple[Any, Any]:
    import oneflow as flow

    class Train(flow.nn.Graph):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_function = model, loss_function
            self.add_optimizer(optimizer)

        def build(self, images: Any, labels: Any) -> Any:
            loss = self.loss_function(self.model(images), labels)
            loss.backward()
            return loss

    class Answer(flow.nn.Graph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def build(self, images: Any) -> Any:
            return self.model(images)

    return Train(), Answer()


def _accuracy(model: Any, answer: Any, batches: Batches) -> float:
    import oneflow as flow

    model.eval()
    right = count = 0
    with flow.no_grad():
        for images, labels in batches.test():
            right += int((answer(flow.from_numpy(images)).numpy().argmax(1) == labels).sum())
            count += len(labels)
    model.train()
    return right / max(count, 1)
