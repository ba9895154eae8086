"""Scales the loss under autocast to float16, so that small gradients do not become 0, and leaves out what overflows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from layered_lr.errors import TrainingDiverged
from layered_lr.scaling import LossScaling
from layered_lr_torch.torch_types import Tensor

SMALLEST: Final = 2.0**-24
"""Where a loss that is scaled by so little still overflows, it is the model whose numbers are not finite."""


class LossScaler:
    """torch's own ``GradScaler`` around the updates of one optimizer.

    The gradients are unscaled before the optimizer's hooks, which measure and clip them, see them.

    Args:
        device: Where the model is.
        settings: The scale to begin with, and how often it grows.
        optimizer: Of torch; it makes no step where a gradient has overflowed.
    """

    def __init__(self, device: torch.device, settings: LossScaling, optimizer: torch.optim.Optimizer) -> None:
        self._scaler = torch.amp.GradScaler(
            device.type, init_scale=settings.init_scale, growth_interval=settings.growth_interval
        )
        self._optimizer = optimizer
        self._has_stepped = False
        # A fused optimizer would hide from its hooks whether it makes the update.
        vars(optimizer)["_step_supports_amp_scaling"] = False
        optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, *_: Any) -> None:
        self._has_stepped = True

    def scale(self, loss: Tensor) -> Tensor:
        """Multiply a loss with the scale."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def step(self) -> str:
        """Make an update with the gradients that the optimizer's parameters hold, unless one has overflowed.

        Returns:
            Why no update was made; empty where one was.

        Raises:
            TrainingDiverged: Gradients overflow whatever the scale.
        """
        tensors = (tensor for group in self._optimizer.param_groups for tensor in group["params"])
        if all(tensor.grad is None for tensor in tensors):  # torch's scaler refuses to look at nothing
            self._optimizer.step()
            return ""
        self._has_stepped = False
        before = self._scaler.get_scale()
        self._scaler.unscale_(self._optimizer)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._has_stepped:
            return ""
        after = self._scaler.get_scale()
        if after < SMALLEST:
            raise TrainingDiverged(
                f"gradients are not finite although the loss is scaled by {before:g} only: the model's own numbers "
                "overflow in float16, or are NaN. Try lower rates, or precision='bfloat16'."
            )
        return f"a gradient overflowed with the loss scaled by {before:g}; the scale is {after:g} from now on"

    def state(self) -> dict[str, float]:
        """What the next update depends on, by torch's names."""
        said = self._scaler.state_dict()
        return {"scale": float(said["scale"]), "growth_tracker": float(said["_growth_tracker"])}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from ``state()``; where it is empty, as of a run in another precision, stay as it is."""
        if state:
            own = self._scaler.state_dict()
            changed = {"scale": state["scale"], "_growth_tracker": int(state["growth_tracker"])}
            self._scaler.load_state_dict({**own, **changed})
