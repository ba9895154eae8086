"""What the torch backends have in common: everything but how the model's forward pass runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from layered_lr.backend.base import NO_EXTRAS, Backend, Dtype, Extras
from layered_lr.errors import SpecError, Unsupported
from layered_lr.plans.plan import Plan
from layered_lr.state.training_state import TrainingState
from layered_lr_torch import models, own_loop
from layered_lr_torch.optimizer import PlanScheduler, build_optimizer
from layered_lr_torch.own_loop_phases import compile_timeline
from layered_lr_torch.session import TorchSession


def pick_device(device: str) -> torch.device:
    """The torch device of that name; ``"auto"`` is the GPU where there is one.

    Raises:
        SpecError: No such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.split(":")[0] not in ("cpu", "cuda", "mps", "xpu"):
        raise SpecError(f"device={device!r}: must be 'auto', 'cpu' or 'cuda'.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SpecError(f"device={device!r}: torch finds no GPU here. Use device='cpu' or 'auto'.")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise SpecError(f"device={device!r}: {str(error).splitlines()[0]} Use device='cpu' or 'auto'.") from None


class TorchBackend(Backend):
    """Builds torch models and trains them with torch's own optimizers."""

    compiles_phases: ClassVar[bool] = True
    session: ClassVar[type[TorchSession]] = TorchSession

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)

    @abstractmethod
    def forward(self, model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """The model's forward pass, as this backend runs it in training."""

    def build(
        self, model: str | Callable[[], Any], num_classes: int, dropout: float, seed: int, dtype: Dtype = "float32"
    ) -> torch.nn.Module:
        """See ``Backend.build``: models known by name are ``torch.channels_last``, others are as they were made."""
        made = models.build(model, num_classes, dropout, seed).to(self.device, getattr(torch, dtype))
        if isinstance(model, str) and self.device.type in ("cpu", "cuda"):
            made.to(memory_format=torch.channels_last)  # half the time of an update
        return made

    def load(self, model: Any, weights: Mapping[str, NDArray[Any]]) -> None:
        """See ``Backend.load``."""
        models.load(model, weights)

    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        """See ``Backend.state``."""
        return models.state(model)

    def open(
        self,
        plan: Plan,
        model: Any,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> TorchSession:
        """See ``Backend.open``.

        Raises:
            Unsupported: Autocast on a device where releases of torch warn that they leave it out.
        """
        if extras.autocast is not None and self.device.type not in ("cpu", "cuda"):
            raise Unsupported(f"autocast={extras.autocast!r}: on 'cpu' and 'cuda', not on {self.device.type!r}.")
        return self.session(plan, model, num_classes, self.device, self.forward(model), extras, step)

    def compile(self, plan: Plan, model: Any) -> tuple[torch.optim.Optimizer, PlanScheduler]:
        """See ``Backend.compile``: phases may change everything but the kind of optimizer."""
        if plan.phases:
            return compile_timeline(plan, model)
        optimizer = build_optimizer(plan, model)
        return optimizer, PlanScheduler(optimizer, plan)

    def export_loop(self, model: Any, optimizer: Any, scheduler: Any) -> TrainingState:
        """See ``Backend.export_loop``."""
        return own_loop.export_loop(model, optimizer, scheduler)

    def import_loop(self, state: TrainingState, model: Any, optimizer: Any, scheduler: Any) -> None:
        """See ``Backend.import_loop``."""
        own_loop.import_loop(state, model, optimizer, scheduler)
