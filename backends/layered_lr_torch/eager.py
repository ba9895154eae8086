"""Backend ``torch-eager``: torch runs each operation by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, final

import torch

from layered_lr.backend.processes import Launch
from layered_lr.plans.plan import Plan
from layered_lr_torch.backend import TorchBackend
from layered_lr_torch.narrowing import NarrowingWatch
from layered_lr_torch.processes import TorchProcesses
from layered_lr_torch.sharded_model import shard
from layered_lr_torch.shared_draws import may_draw
from layered_lr_torch.torch_types import Module


@final
class TorchEager(TorchBackend):
    """torch, op by op."""

    name: ClassVar[str] = "torch-eager"
    can_shard: ClassVar[bool] = True

    def join(self, launch: Launch) -> TorchProcesses:
        """Connect this process with the others; on GPUs each takes its own."""
        if self.device.type == "cuda" and self.device.index in (None, 0):
            self.device = torch.device("cuda", launch.local_rank % torch.cuda.device_count())
            torch.cuda.set_device(self.device)
        self.processes = TorchProcesses(launch, self.device)
        return self.processes

    def narrows(self, work: Callable[[], object]) -> bool:
        """Look at every operator."""
        watch = NarrowingWatch()
        with watch:
            work()
        return watch.has_narrowed

    def build_forward(self, model: Module) -> Module:
        """Return the model itself."""
        return model

    def prepare_to_shard(self) -> None:
        """Build models in main memory: a whole one may be larger than the GPU's."""
        self.place = torch.device("cpu")

    def shard(self, plan: Plan, model: Module) -> None:
        """Let each process hold a part of every parameter."""
        if isinstance(self.processes, TorchProcesses):
            shard(plan, model, self.processes, self.device)
            self.place = None

    def share_draws(self, model: Module, batch_shape: tuple[int, ...]) -> None:
        """Let a user's model draw its random numbers from the run's seed, as its translation does on OneFlow."""
        setattr(model, "layered_lr_shares_masks", may_draw(model, batch_shape))  # noqa: B010 # torch types attributes as tensors
