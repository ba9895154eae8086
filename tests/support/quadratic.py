"""A backend without any framework: it minimises a quadratic, by SGD and Adam as every textbook has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.arrays import Slots
from layered_lr.backend.base import Backend
from layered_lr.backend.session import NO_EXTRAS, Extras, Session, StepOutcome
from layered_lr.models.nn_modules import set_trainable, trainable_parameters
from layered_lr.plans.plan import Plan
from layered_lr.plans.reactive_rates import LiveRates
from layered_lr.state.training_state import TrainingState

NAMES = ("a", "b")
IMAGES, LABELS = np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.int64)


class Parameter:
    """What ``layered_lr.models.nn_modules`` sees of a framework's."""

    shape, dtype, grad, requires_grad = (2,), "x.float64", None, True

    def __init__(self) -> None:
        self.values = np.ones(2)

    def requires_grad_(self, value: bool) -> None:
        self.requires_grad = value


Module = type("Module", (), {"__module__": "torch.none"})


class Model(Module):  # type: ignore[misc, valid-type]
    """Two parameters, 1 each at the start; the loss is half the sum of ``curvature`` times their squares."""

    def __init__(self, curvature: float = 1.0) -> None:
        self._parameters = {name: Parameter() for name in NAMES}
        self._buffers: dict[str, Any] = {}
        self._modules: dict[str, Any] = {}
        self.curvature = curvature

    def train(self) -> None:
        """All of it always trains."""


class QuadraticSession(Session):
    """Notes what it is asked; a loss is a place in a list until ``losses`` reads it."""

    def __init__(self, log: list[str], plan: Plan, model: Model, extras: Extras, step: int) -> None:
        super().__init__(plan, 2, extras, step)
        self.model, self.log = model, log
        self.live = LiveRates(plan)
        self.memory: dict[str, dict[str, NDArray[Any]]] = {}
        self.applied: list[list[float]] = []
        self.norms: list[list[float]] = []
        self.computed: list[float] = []

    def _update(self, images: Any, labels: Any, parts: int) -> StepOutcome:
        rates, momenta = self.live.rates(self.step), self.plan.momenta(self.step)
        tensors = self.model._parameters
        self.computed.append(sum(float(np.sum(p.values**2)) for p in tensors.values()) * self.model.curvature / 2)
        norms = []
        for rate, momentum, group in zip(rates, momenta, self.plan.groups, strict=True):
            squares = 0.0
            for name in group.parameters:
                tensor = tensors[name]
                assert tensor.requires_grad == (name not in self.plan.frozen)
                if tensor.requires_grad:
                    gradient = self.model.curvature * tensor.values
                    squares += float(np.sum(gradient**2))
                    settings: Any = group.optimizer
                    if isinstance(settings, ll.SGD):
                        own = settings.momentum if momentum is None else momentum
                        tensor.values = tensor.values - rate * self._summed(name, gradient, own)
                    else:
                        tensor.values = tensor.values - rate * self._adam(name, gradient, settings)
            norms.append(squares**0.5)
        self.applied.append(rates)
        self.norms.append(norms)
        return StepOutcome(len(self.computed) - 1)

    def _summed(self, name: str, gradient: NDArray[Any], momentum: float) -> NDArray[Any]:
        if not momentum:
            return gradient
        old = self.memory.get(name, {}).get("momentum_buffer", 0.0)
        self.memory[name] = {"momentum_buffer": momentum * old + gradient}
        return self.memory[name]["momentum_buffer"]

    def _adam(self, name: str, gradient: NDArray[Any], settings: ll.Adam) -> NDArray[Any]:
        one, two = settings.betas
        zero = np.zeros(2)
        slots = self.memory.setdefault(name, {"step": np.zeros(()), "exp_avg": zero, "exp_avg_sq": zero})
        slots["step"] = np.array(slots["step"] + 1)
        slots["exp_avg"] = one * slots["exp_avg"] + (1 - one) * gradient
        slots["exp_avg_sq"] = two * slots["exp_avg_sq"] + (1 - two) * gradient**2
        size = np.sqrt(slots["exp_avg_sq"] / (1 - two ** slots["step"])) + settings.eps
        return np.asarray(slots["exp_avg"] / (1 - one ** slots["step"]) / size)

    def _losses(self, handles: Sequence[int]) -> NDArray[np.float64]:
        self.log.append(f"losses {len(handles)}")
        return np.array([self.computed[handle] for handle in handles])

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        self.live.observe(metrics, unit)

    def logits(self, images: Any, ema: bool = False, shares: bool = False) -> NDArray[Any]:
        return np.zeros((len(images), 2))

    def rates(self, start: int, stop: int) -> NDArray[np.float64]:
        assert self.start <= start <= stop
        return np.array(self.applied[start - self.start : stop - self.start]).reshape(-1, len(self.plan.groups))

    def grad_norms(self, start: int, stop: int) -> NDArray[np.float64]:
        assert self.start <= start <= stop
        return np.array(self.norms[start - self.start : stop - self.start]).reshape(-1, len(self.plan.groups))

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: p.values.copy() for name, p in self.model._parameters.items()}

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        return self.weights()

    def _slots(self) -> Slots:
        return {name: dict(slots) for name, slots in self.memory.items() if name not in self.plan.frozen}

    def _new_slots(self) -> Slots:
        zero, settings = np.zeros(2), self.plan.spec.optimizer
        adam = {"step": np.zeros(()), "exp_avg": zero, "exp_avg_sq": zero}
        slots = adam if isinstance(settings, ll.Adam) else {"momentum_buffer": zero}
        return {name: slots for name in NAMES if name not in self.plan.frozen}

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return self.live.state()

    def _random(self) -> Mapping[str, NDArray[Any]]:
        return {}

    def _import(self, state: TrainingState) -> None:
        for name, tensor in self.model._parameters.items():
            tensor.values = state.weights[name].copy()
        self.memory = {name: dict(slots) for name, slots in state.slots.items() if slots}
        self.live.restore(state.reactions)
        self.applied, self.norms = [], []


class Quadratic(Backend):
    """Opens sessions, and notes that it does."""

    name: ClassVar[str] = "quadratic"

    def __init__(self, device: str = "auto") -> None:
        self.log: list[str] = []

    def open(
        self,
        plan: Plan,
        model: Any,
        num_classes: int,
        extras: Extras = NO_EXTRAS,
        step: int = 0,
        timeline: Sequence[Plan] = (),
    ) -> QuadraticSession:
        self.log.append(f"open {step}")
        set_trainable(model, plan.frozen, trainable_parameters(model))
        return QuadraticSession(self.log, plan, model, extras, step)

    def build(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def load(self, model: Any, weights: Any) -> None:
        raise NotImplementedError

    def state(self, model: Any) -> Any:
        raise NotImplementedError

    def compile(self, plan: Plan, model: Any) -> Any:
        raise NotImplementedError
