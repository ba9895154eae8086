"""A torch model in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layered_lr.applied import AppliedRates
from layered_lr.backend import Extras, Session
from layered_lr.errors import SpecError, TrainingDiverged
from layered_lr.plans import Plan
from layered_lr.schedules import Float64
from layered_lr_torch import models
from layered_lr_torch.averages import MovingAverage
from layered_lr_torch.gradients import Gradients
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
        self.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self.gradients = Gradients(plan, model, self.extras.grad_norms)
        self.optimizer = build_optimizer(plan, model, self.gradients)
        self.scheduler = PlanScheduler(self.optimizer, plan)
        self._applied = AppliedRates(model, [group["params"] for group in self.optimizer.param_groups])
        self._average = None if extras.ema_decay is None else MovingAverage(model, extras.ema_decay)

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64], parts: int) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        batches = zip(self._on_device(images).chunk(parts), self._labels(labels).chunk(parts), strict=True)
        loss = sum(self._backward(*batch, parts) for batch in batches)
        self._applied.record(self.optimizer.param_groups)
        self._step()
        self.scheduler.step()
        if self._average is not None:
            self._average.update()
        return loss  # type: ignore[return-value] # there is at least one batch

    def _step(self) -> None:
        try:
            self.optimizer.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise TrainingDiverged(
                f"a product of the optimizer's hyperparameters is more than {self.dtype} holds. Try smaller ones."
            ) from None

    def _backward(self, images: torch.Tensor, labels: torch.Tensor, parts: int) -> torch.Tensor:
        """Add a part's share of the gradient; returns its share of the loss."""
        logits = self.forward(images)
        self.check_logits(logits, len(images))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        if parts > 1:
            loss = loss / parts
        loss.backward()
        return loss.detach()

    def _on_device(self, images: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(images).to(self.device, self.dtype)

    def _labels(self, labels: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(labels).to(self.device)

    def losses(self, handles: Sequence[torch.Tensor]) -> Float64:
        """See ``Session.losses``."""
        self.gradients.fetch(len(handles))  # of steps that this waits for anyhow
        return np.array(torch.stack(list(handles)).tolist(), dtype=np.float64) if handles else np.empty(0)

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """See ``Session.observe``."""
        self.scheduler.observe(metrics, unit)

    def logits(self, images: NDArray[np.float32], ema: bool = False) -> NDArray[Any]:
        """See ``Session.logits``."""
        forward = self.model if not ema else self._averaged().forward
        self.model.eval()
        with torch.no_grad():
            answer = forward(self._on_device(images)).cpu().numpy()
        self.model.train()
        return answer  # type: ignore[no-any-return]

    def rates(self, start: int, stop: int) -> Float64:
        """See ``Session.rates``: read from the optimizer's param groups at each update."""
        return self._applied.table(self.plan, start, stop)

    def grad_norms(self, start: int, stop: int) -> Float64:
        """See ``Session.grad_norms``."""
        return self.gradients.norms(start, stop)

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.ema_weights``."""
        return self._averaged().arrays()

    def _averaged(self) -> MovingAverage:
        if self._average is None:
            raise SpecError("there is no moving average: it needs ema_decay=..., such as 0.999.")
        return self._average

    def weights(self) -> dict[str, NDArray[Any]]:
        """See ``Session.weights``."""
        return models.state(self.model)
