"""Several processes of OneFlow that train one model: ``oneflow.comm`` carries every number between them."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, final

import numpy as np

from layered_lr.backend.processes import Launch, Processes
from layered_lr.backend.session import Extras
from layered_lr.data.share import Share
from layered_lr.errors import Unsupported
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.operators.arithmetic import detach
from layered_lr_oneflow.process_watch import ProcessWatch
from layered_lr_oneflow.runtime import flow

T = TypeVar("T")


@final
class OneFlowProcesses(Processes):
    """The processes that OneFlow's launcher has started; OneFlow connects them where it is imported.

    Args:
        launch: Which process this is.

    Raises:
        Unsupported: OneFlow has found other processes than the launcher's.
        ProcessLost: The first process cannot be reached.
    """

    def __init__(self, launch: Launch) -> None:
        found = (flow.env.get_rank(), flow.env.get_world_size())
        if found != (launch.rank, launch.count):
            raise Unsupported(
                f"this is process {launch.rank} of {launch.count}, and OneFlow was imported as process {found[0]} of "
                f"{found[1]}. Start the processes with python -m oneflow.distributed.launch, and set no variable of it "
                "in a script."
            )
        self.share = Share(launch.rank, launch.count)
        self._watch = ProcessWatch(self.share, self.from_first)

    def close(self) -> None:
        """Let the others know that this process needs none of them any more."""
        self._watch.close()

    @contextlib.contextmanager
    def watching(self, advice: str) -> Iterator[None]:
        """Say what to do where another process ends; OneFlow raises no error then, and waits or aborts."""
        self._watch.prepare_last_words(advice)
        yield

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        return [self._broadcast(value, rank) for rank in range(self.share.count)]

    def from_first(self, value: T) -> T:
        """The first process's value."""
        return self._broadcast(value, 0)

    def _broadcast(self, value: T, rank: int) -> T:
        """The value of one process."""
        own = pickle.dumps(value) if rank == self.share.rank else None
        found: T = pickle.loads(flow._oneflow_internal.cpu_broadcast(own, rank))
        return found

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """The highest of all processes' numbers, place by place."""
        rows = self.stack(flow.tensor([list(numbers)], dtype=flow.int64))
        highest: list[int] = np.max(rows.numpy(), axis=0).tolist()
        return highest

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of all processes' tensors, which are equal in all of them afterwards."""
        with flow.no_grad():
            total = tensor.detach().clone()
            flow.comm.all_reduce(total)
            return total / self.share.count

    def stack(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one after the other; each has as many."""
        with flow.no_grad():
            own = detach(rows).contiguous()
            parts = [flow.zeros_like(own) for _ in range(self.share.count)]
            flow.comm.all_gather(parts, own)
            return flow.cat(parts, dim=0)

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Let tensors be those of the first process, in one message for each dtype."""
        with flow.no_grad():
            for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
                these = [tensor for tensor in tensors if tensor.dtype == dtype and tensor.numel()]
                if not these:
                    continue
                flat = flow.cat([tensor.detach().reshape(-1) for tensor in these], dim=0)
                flow.comm.broadcast(flat, 0)
                for tensor, piece in _cut(flat, these):
                    tensor.copy_(piece)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Let the gradients be the mean of all processes', in one message for each dtype.

        Where a parameter has a gradient in some processes alone, it is zero in the others.

        Args:
            parameters: Those that train, the same in all processes.
        """
        with flow.no_grad():
            for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
                these = [each for each in parameters if each.dtype == dtype and each.numel()]
                if not these:
                    continue
                marks = [float(each.grad is not None) for each in these]
                there = flow.tensor(marks, dtype=dtype, device=these[0].device)
                gradients = [
                    detach(flow.zeros_like(each) if each.grad is None else each.grad).reshape(-1) for each in these
                ]
                flat = self.mean(flow.cat([*gradients, there], dim=0))
                anywhere = flat[-len(these) :].numpy() > 0
                for (parameter, piece), has_gradient in zip(_cut(flat, these), anywhere, strict=True):
                    parameter.grad = piece.clone() if has_gradient else None


def _cut(flat: Tensor, like: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut pieces from a long tensor, each with the tensor whose shape it takes."""
    start = 0
    for tensor in like:
        yield tensor, flat[start : start + tensor.numel()].reshape(tensor.shape)
        start += tensor.numel()


def check_batch_norm(extras: Extras) -> None:
    """Refuse statistics over the images of all processes, which no normalisation of OneFlow 0.9 takes.

    Raises:
        Unsupported: They are asked for.
    """
    if extras.sync_batch_norm:
        raise Unsupported(
            "sync_batch_norm=True: OneFlow's batch normalisations take mean and variance over the images of one "
            "process. Leave it out, or use 'torch-eager'."
        )


class OwnPart:
    """The part of an update's images that this process has.

    Args:
        share: Which process this is.

    Attributes:
        part: This process's images among those of all, and the weight of their loss: gradients and losses are averaged
            over the processes.
        whole: How many images all have; 0 before the first update.
    """

    def __init__(self, share: Share) -> None:
        self.share = share
        self.whole = 0
        self.part = share.part(share.count)

    def begin(self, images: int, whole: int | None) -> int:
        """Begin an update.

        Args:
            images: That this process has, in each part of the batch.
            whole: Those of all processes; None where each has as many.

        Returns:
            The images of all processes.

        Raises:
            DataError: This process has another number of images than its part.
        """
        self.whole, self.part = self.share.part_of_update(images, whole)
        return self.whole

    def widen(self, x: Tensor) -> tuple[Tensor, slice]:
        """A tensor of rows for the images of all processes, of which this process's own ones have its values.

        Args:
            x: Its first axis is this process's images, each of which may have several rows.
        """
        each = len(x) // (self.part.stop - self.part.start)
        own = slice(each * self.part.start, each * self.part.stop)
        others = [
            flow.zeros(rows, *x.shape[1:], dtype=x.dtype, device=x.device)
            for rows in (own.start, each * self.whole - own.stop)
        ]
        return flow.cat([each for each in (others[0], x, others[1]) if len(each)], dim=0), own


def draw_for_all(dropouts: Sequence[Module], own_part: OwnPart) -> None:
    """Let dropouts of a user's model draw for the images of all processes, and take what is for this one's.

    Each image then gets the numbers that it gets where a single process trains.

    Args:
        dropouts: Modules of class ``nn.Dropout``.
        own_part: Of the update that is being made.
    """
    for dropout in dropouts:
        dropout.forward = _make_forward(dropout, own_part)


def _make_forward(dropout: Module, own_part: OwnPart) -> Any:
    own = type(dropout).forward

    def forward(x: Tensor) -> Any:
        if not dropout.training or not dropout.p or not x.ndim:
            return own(dropout, x)
        if dropout.inplace:
            raise Unsupported(
                "model: nn.Dropout(inplace=True) in several processes: OneFlow draws for all of their images in a new "
                "tensor. Leave inplace out."
            )
        whole, rows = own_part.widen(x)
        return own(dropout, whole)[rows]

    return forward
