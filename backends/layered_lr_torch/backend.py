"""What both torch backends share: everything except how the model's forward pass runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch

from layered_lr.arrays import Array, Arrays, Float32, Floats, Weights
from layered_lr.backend.base import Backend, Dtype
from layered_lr.backend.output_checks import check_logits
from layered_lr.backend.processes import ALONE, Alone
from layered_lr.backend.session import NO_EXTRAS, Extras
from layered_lr.errors import SpecError, Unsupported
from layered_lr.losses import LossSettings
from layered_lr.models.user_models import check_all_float64
from layered_lr.plans.frozen_by_hand import find_frozen_by_hand
from layered_lr.plans.param_groups import list_param_groups
from layered_lr.plans.plan import Plan
from layered_lr.plans.single_optimizer import check_single_optimizer
from layered_lr.state.training_state import TrainingState
from layered_lr_torch import models, own_loop, own_optimizer, tried_updates
from layered_lr_torch.clipping import GradientClipper
from layered_lr_torch.losses import make_loss
from layered_lr_torch.optimizer import build_optimizer
from layered_lr_torch.plan_scheduler import PlanScheduler
from layered_lr_torch.processes import TorchProcesses
from layered_lr_torch.session import TorchSession
from layered_lr_torch.torch_types import Forward, Module, ParamGroup


def pick_device(device: str) -> torch.device:
    """Find the torch device of a name; ``"auto"`` is the GPU if there is one, else the CPU.

    Raises:
        SpecError: This machine has no such device.
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
    """Builds torch models and trains them with torch's own optimizers.

    Attributes:
        device: Where models train.
        place: Where models are until they are divided among processes; None is the device.
    """

    session: ClassVar[type[TorchSession]] = TorchSession

    def __init__(self, device: str = "auto") -> None:
        self.device = pick_device(device)
        self.place: torch.device | None = None
        self.processes: TorchProcesses | Alone = ALONE

    @abstractmethod
    def build_forward(self, model: Module) -> Forward:
        """Make the forward pass that this backend trains the model with."""

    def build(
        self,
        model: str | Callable[[], Any],
        num_classes: int,
        dropout: float,
        seed: int,
        dtype: Dtype = "float32",
        batch_shape: tuple[int, ...] | None = None,
        other_shapes: Sequence[tuple[int, ...]] = (),
    ) -> Module:
        """Make a new model on the backend's device.

        A model known by name has the given dtype, and is laid out in memory as ``torch.channels_last``. A user's model
        keeps its own layout and dtypes; only with ``"float64"`` what is float32 in it becomes float64.

        Raises:
            Unsupported: The dtype is float64, and a parameter of a user's model is narrower than float32.
        """
        built = models.build_model(model, num_classes, dropout, seed)
        if not isinstance(model, str) and dtype == "float64":
            check_all_float64(built)
        made = models.cast(built, self.place or self.device, getattr(torch, dtype))
        if isinstance(model, str) and self.device.type in ("cpu", "cuda"):
            made.to(memory_format=torch.channels_last)  # half the time of an update
        return made

    def load(self, model: Module, weights: Weights) -> None:
        """Copy arrays into the model's parameters and buffers, by name."""
        models.load_state(model, weights)

    def state(self, model: Module) -> dict[str, Array]:
        """Copy the model's parameters and buffers to arrays, by name."""
        return models.copy_state(model)

    def load_unsaved(self, model: Module, arrays: Arrays) -> None:
        """Copy arrays into what ``state_dict()`` leaves out."""
        models.load_unsaved(model, arrays)

    def answer(self, model: Module, images: Float32, num_classes: int) -> Array:
        """Compute a model's logits in evaluation mode, shape (N, outputs)."""
        model.eval()
        given = torch.from_numpy(images).to(self.place or self.device, models.find_dtype(model))
        with torch.no_grad():
            logits = model(given.contiguous(memory_format=models.find_memory_format(model)))
        check_logits(logits, len(images), num_classes, TorchSession.logits_dtypes)
        return models.to_array(logits.float() if logits.dtype == torch.bfloat16 else logits)

    def measure_loss(self, loss: LossSettings, outputs: Floats, targets: Array) -> float:
        """Return the loss of outputs that are known."""
        logits = torch.from_numpy(outputs).to(self.device)
        with torch.no_grad():
            compute = make_loss(loss, outputs.shape[1], self.device, logits.dtype)
            dtype = logits.dtype if targets.dtype.kind == "f" else None
            return float(compute(logits, torch.from_numpy(targets).to(self.device, dtype)))

    def open(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> TorchSession:
        """Put the model under the plan's optimizer, ready to make update ``step``.

        Raises:
            Unsupported: Autocast on a device where some releases of torch ignore it with a warning.
        """
        if extras.autocast is not None and self.device.type not in ("cpu", "cuda"):
            raise Unsupported(
                f"autocast={extras.autocast!r}: works on 'cpu' and 'cuda', not on {self.device.type!r}. Leave it out, "
                "or use one of these devices."
            )
        forward = self.build_forward(model)
        if isinstance(self.processes, TorchProcesses):
            return self.session(plan, model, num_classes, self.device, forward, extras, step, self.processes)
        return self.session(plan, model, num_classes, self.device, forward, extras, step)

    def compile(self, plan: Plan, model: Module) -> tuple[torch.optim.Optimizer, PlanScheduler]:
        """Make torch's optimizer for the model, and its scheduler, for a loop of the user's own.

        Phases may change everything except the kind of optimizer.
        """
        check_single_optimizer(plan)
        optimizer = build_optimizer(plan, model, GradientClipper(plan.plan_at(0), model))
        return optimizer, own_optimizer.build_scheduler(plan, optimizer, model)

    def list_param_groups(self, plan: Plan, model: Module, divides_always: bool) -> list[ParamGroup]:
        """Make the param groups of a plan for an optimizer of any class."""
        return list_param_groups(plan, model, divides_always, find_frozen_by_hand(plan.parameters))

    def build_scheduler(self, plan: Plan, optimizer: Any, model: Module | None) -> PlanScheduler:
        """Make the scheduler of an optimizer that exists."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SpecError(f"optimizer is a {type(optimizer).__name__}; must be a torch.optim.Optimizer of the model.")
        return own_optimizer.build_scheduler(plan, optimizer, model)

    def try_updates(
        self,
        plan: Plan,
        model: Module,
        batches: Iterable[Any],
        loss_fn: Callable[[Any, Any], Any] | None,
        batch_loss: Callable[[Module, Any], Any] | None,
        seed: int | None,
    ) -> Generator[tuple[float, list[float]], None, None]:
        """Train a user's model for a while, and give everything back as it was when the generator is closed."""

        def updates() -> Iterator[tuple[float, list[float]]]:
            optimizer, scheduler = self.compile(plan, model)
            loss_of = tried_updates.loss_function(model, loss_fn, batch_loss)
            return tried_updates.try_updates(optimizer, scheduler, batches, loss_of, plan.total_steps or 0)

        return tried_updates.tried(model, batches, seed, updates)

    def export_loop(self, model: Module, optimizer: Any, scheduler: Any) -> TrainingState:
        """Copy the state of a loop of the user's own."""
        return own_loop.export_loop(model, optimizer, scheduler)

    def import_loop(self, state: TrainingState, model: Module, optimizer: Any, scheduler: Any) -> None:
        """Let a loop of the user's own go on from a state."""
        own_loop.import_loop(state, model, optimizer, scheduler)
