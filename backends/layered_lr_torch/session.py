"""A torch model in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.applied import AppliedRates
from layered_lr.backend import Extras, Session
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
        extras: Extras,
    ) -> None:
        super().__init__(plan, num_classes, extras)
        self.device = device
        self.model = model.train()
        self.forward = forward
        self.optimizer = build_optimizer(plan, model)
        self.scheduler = PlanScheduler(self.optimizer, plan)
        self._applied = AppliedRates(model, [group["params"] for group in self.optimizer.param_groups])

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64], parts: int) -> torch.Tensor:
        logits = self.forward(torch.from_numpy(images).to(self.device))
        self.check_logits(logits, len(images))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._applied.record(self.optimizer.param_groups)
        self.optimizer.step()
        self.scheduler.step()
        return loss.detach()

    def losses(self, handles: Sequence[torch.Tensor]) -> Float64:
        """See ``Session.losses``."""
        return np.array(torch.stack(list(handles)).tolist(), dtype=np.float64) if handles else np.empty(0)

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """See ``Session.observe``."""
        self.scheduler.observe(metrics, unit)

    def logits(self, images: NDArray[np.float32], ema: bool = False) -> NDArray[Any]:
        """See ``Session.logits``."""
        self.model.eval()
        with torch.no_grad():
            answer = self.model(torch.from_numpy(images).to(self.device)).cpu().numpy()
        self.model.train()
        return answer  # type: ignore[no-any-return]

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``: read from the optimizer's param groups at each update."""
        return self._applied.table(self.plan, start, stop)

    def grad_norms(self, start: int, stop: int) -> Float64:
        """See ``Session.grad_norms``."""
        raise NotImplementedError

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.ema_weights``."""
        raise NotImplementedError

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return models.state(self.model)
