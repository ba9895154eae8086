"""Several processes of torch that train one model: ``torch.distributed`` carries every number between them."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from layered_lr.backend.processes import Launch, Processes
from layered_lr.data.share import Share
from layered_lr.errors import ProcessLost, Unsupported
from layered_lr.files import one_line
from layered_lr_torch.silent_processes import SilentProcesses
from layered_lr_torch.torch_types import Module, Tensor

T = TypeVar("T")

_NO_BUFFERS: dict[str, Any] = next(
    {name: False}
    for name in ("forward_sync_buffers", "broadcast_buffers")  # its name since torch 2.12, and before
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""No forward pass begins with the first process's buffers: the session takes care of them."""
_LOST = ("gloo/transport", "gloo::", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
"""What torch's engines say where another process has ended, or does not answer."""


_made_groups = itertools.count()


def _make_group(engine: str) -> None:
    """Make the process group that torchrun asks for.

    Its store outlives the processes that torchrun starts anew (``--max-restarts``), and the group of a run before.
    Under the plain keys they would find the addresses of those that are gone, and wait for them.
    """
    # Not at the top: a torch that is built without them can train alone.
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        engine, store=PrefixStore(f"attempt {attempt}, {next(_made_groups)}", store), rank=rank, world_size=count
    )


@final
class TorchProcesses(Processes):
    """The processes of a process group: that of the user's script, or a new one.

    Tensors go through the group's own engine: NCCL on GPUs, else gloo. Decisions of a few numbers go through gloo, on
    the CPU, so that they never wait for a GPU.

    Args:
        launch: Which process this is.
        device: Where the model trains.

    Attributes:
        signs: Says which process the others wait for.

    Raises:
        Unsupported: This torch has no ``torch.distributed``.
        ProcessLost: The others do not come.
    """

    def __init__(self, launch: Launch, device: torch.device) -> None:
        if not dist.is_available():
            raise Unsupported("this torch is built without torch.distributed. Start a single process.")
        self.share = Share(launch.rank, launch.count)
        self._is_ours = not dist.is_initialized()
        try:
            if self._is_ours:
                _make_group("nccl" if device.type == "cuda" else "gloo")
            is_gloo = dist.get_backend() == "gloo"
            self._decisions: Any = dist.group.WORLD if is_gloo else dist.new_group(backend="gloo")
            self.signs = SilentProcesses(self.share)
        except (RuntimeError, ValueError) as error:
            raise ProcessLost(
                f"process {launch.rank} of {launch.count} does not reach the others: {one_line(error)}"
            ) from error
        if not self._is_ours:
            self._check_engine(device)

    def _check_engine(self, device: torch.device) -> None:
        """Refuse a process group of the user's that cannot send the model's tensors, such as NCCL's on a CPU."""
        try:
            dist.all_reduce(torch.zeros(1, device=device))
        except (RuntimeError, ValueError) as error:
            self.signs.close()
            if (lost := self.explain(error)) is not None:
                raise lost from error
            raise Unsupported(
                f"the process group that the script has made ({dist.get_backend()}) cannot send tensors on "
                f"{device.type!r}: {one_line(error)}. Make it with init_process_group('gloo') for a CPU, or with "
                "'nccl' for GPUs; or give another device."
            ) from error

    def close(self) -> None:
        """End the process group, where it is not the user's."""
        self.signs.close()
        if self._is_ours and dist.is_initialized():
            with contextlib.suppress(RuntimeError):  # the others are gone
                dist.destroy_process_group()

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        self.signs.calls += 1
        found: list[Any] = [None] * self.share.count
        dist.all_gather_object(found, value, group=self._decisions)
        return found

    def from_first(self, value: T) -> T:
        """The first process's value."""
        self.signs.calls += 1
        found = [value]
        dist.broadcast_object_list(found, src=0, group=self._decisions)
        return found[0]

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """The highest of all processes' numbers, place by place."""
        self.signs.calls += 1
        found = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self._decisions)
        return found.tolist()

    def explain(self, error: Exception) -> ProcessLost | None:
        """What to raise where torch's engine says that another process has ended."""
        is_engine = isinstance(error, dist.DistError) or type(error) is RuntimeError
        if not is_engine or not any(words in str(error) for words in _LOST):
            return None
        self.signs.close()
        own = f"{self.share.rank} of {self.share.count}"
        return ProcessLost(f"another process than this one ({own}) has ended, so that the run cannot go on.")

    @torch.no_grad()
    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of all processes' tensors, which are equal in all of them afterwards."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total / self.share.count

    @torch.no_grad()
    def stack(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one after the other; each has as many."""
        parts = [torch.empty_like(rows) for _ in range(self.share.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Let tensors be those of the first process, in one message for each dtype."""
        self._exchange(tensors, lambda flat: dist.broadcast(flat, src=0))

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Let tensors be the mean of all processes', in one message for each dtype."""
        self._exchange(tensors, lambda flat: dist.all_reduce(flat.div_(self.share.count)))

    @torch.no_grad()
    def _exchange(self, tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
        """Bring tensors of one dtype into one, let it be changed in place, and take the numbers back."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            these = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in these])
            send(flat)
            pieces = flat.split([tensor.numel() for tensor in these])
            torch._foreach_copy_(these, [piece.view_as(own) for piece, own in zip(pieces, these, strict=True)])


class _WithUnused(torch.nn.Module):
    """A model with one parameter more, which nothing uses.

    Where torch looks for unused parameters and finds none, it prints a warning in each process. Whether a model uses
    all of them in every update cannot be known before: a layer may take part in some updates alone.

    Args:
        model: Whose parameters all have one device.
    """

    def __init__(self, model: Module) -> None:
        super().__init__()
        self.model = model
        some = next(parameter for parameter in model.parameters() if parameter.requires_grad)
        self.unused = torch.nn.Parameter(torch.zeros(1, dtype=some.dtype, device=some.device))

    def forward(self, *given: Any, **named: Any) -> Any:
        """The model's."""
        return self.model(*given, **named)


class Replica:
    """A model of which each process has a copy: torch's ``DistributedDataParallel`` averages the gradients.

    Args:
        model: Whose parameters that train now have ``requires_grad``.
        processes: That train it.
        always_uses_all: Whether every update reaches every parameter that trains, which torch need not find out then.

    Attributes:
        forward: The model's forward pass in training.
    """

    def __init__(self, model: Module, processes: TorchProcesses, always_uses_all: bool) -> None:
        self.forward: Module = model
        self._processes = processes
        self._parallel: DistributedDataParallel | None = None
        if any(parameter.requires_grad for parameter in model.parameters()):
            self._parallel = self.forward = DistributedDataParallel(
                model if always_uses_all else _WithUnused(model),
                find_unused_parameters=not always_uses_all,
                **_NO_BUFFERS,
            )
        self._buffers = list(model.buffers())

    def part(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around the forward and backward pass of a part of a batch; gradients are averaged with the last part."""
        return contextlib.nullcontext() if is_last or self._parallel is None else self._parallel.no_sync()

    def end_backward(self) -> None:
        """Nothing: torch has averaged the gradients in the backward pass."""

    def unify_buffers(self) -> None:
        """Let all copies have the buffers of the first process's, such as the statistics of batch normalisations."""
        if self._buffers:
            self._processes.take_from_first(self._buffers)
