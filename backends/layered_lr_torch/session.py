"""A torch model in training."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.backend import Session
from layered_lr.plans import Plan
from layered_lr.schedules import Float64
from layered_lr_torch import models
from layered_lr_torch.optimizer import PlanScheduler, build_optimizer


class TorchSession(Session):
    """A torch model in training; ``forward`` is the model, or a compiled form of it."""

    def __init__(
        self,
        plan: Plan,
        model: torch.nn.Module,
        num_classes: int,
        device: torch.device,
        forward: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__(plan, num_classes)
        self.device = device
        self.model = model.train()
        self.forward = forward
        self.optimizer = build_optimizer(plan, model)
        self.scheduler = PlanScheduler(self.optimizer, plan)
        self._rates = array("d")

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> torch.Tensor:
        logits = self.forward(torch.from_numpy(images).to(self.device))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._rates.extend(float(group["lr"]) for group in self.optimizer.param_groups)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def losses(self, handles: Sequence[torch.Tensor]) -> Float64:
        """See ``Session.losses``."""
        return np.array(torch.stack(list(handles)).tolist(), dtype=np.float64) if handles else np.empty(0)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Session.logits``."""
        self.model.eval()
        with torch.no_grad():
            answer = self.model(torch.from_numpy(images).to(self.device)).cpu().numpy()
        self.model.train()
        return answer  # type: ignore[no-any-return]

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``: read from the optimizer's param groups at each update."""
        groups = len(self.plan.groups)
        return np.array(self._rates[start * groups : stop * groups]).reshape(-1, groups)

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return models.state(self.model)
