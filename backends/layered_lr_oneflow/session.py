"""What sessions of OneFlow have in common: how arrays go in and come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from layered_lr.backend import Extras, Session
from layered_lr.plans import Plan
from layered_lr.schedules import Float64
from layered_lr_oneflow import models
from layered_lr_oneflow.runtime import flow


class OneFlowSession(Session):
    """A OneFlow model in training."""

    # OneFlow takes orders far faster than it carries them out: 50 updates ahead, Ctrl-C took 18 s on MobileNetV2.
    steps_ahead: ClassVar[int] = 2

    def __init__(self, plan: Plan, model: Any, num_classes: int, device: str, extras: Extras) -> None:
        super().__init__(plan, num_classes, extras)
        self.device = device
        self.model = model.train()

    def tensor(self, array: NDArray[Any]) -> Any:
        """A copy of an array: ``from_numpy`` would share memory with what OneFlow reads later, asynchronously."""
        return flow.tensor(array, device=self.device)

    def losses(self, handles: Sequence[Any]) -> Float64:
        """See ``Session.losses``."""
        return np.array([float(loss.numpy()) for loss in handles], dtype=np.float64)

    def logits(self, images: NDArray[np.float32], ema: bool = False) -> NDArray[Any]:
        """See ``Session.logits``; in eager mode also where training runs in a graph, which shares the weights."""
        models.sync()
        self.model.eval()
        with flow.no_grad():
            answer = self.model(self.tensor(images)).numpy().copy()
        self.model.train()
        return answer  # type: ignore[no-any-return]

    def grad_norms(self, start: int, stop: int) -> Float64:
        """See ``Session.grad_norms``."""
        raise NotImplementedError

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.ema_weights``."""
        raise NotImplementedError

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return models.state(self.model)
