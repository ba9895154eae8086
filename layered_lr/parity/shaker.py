"""Adds the rounding errors of a ``Disturbance`` to a model while it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Weights
from layered_lr.models.nn_modules import Module, parameters_of
from layered_lr.parity.disturbance import Disturbance
from layered_lr.training.prepare import Prepared


class Shaker:
    """Puts errors into a model's weights before each gradient, and takes them out of what the update made.

    Args:
        ready: The run.
        start: What its model begins with.
        disturbance: Where the errors come from.
        frozen: Names of the parameters that train in no phase, because of ``requires_grad=False``.
    """

    def __init__(self, ready: Prepared, start: Weights, disturbance: Disturbance, frozen: frozenset[str]) -> None:
        self._ready, self._disturbance = ready, disturbance
        self._names = [parameter.name for parameter in ready.plan.parameters if parameter.name not in frozen]
        self._errors: dict[str, NDArray[Any]] = {}
        self._step = 0
        self._shake({name: start[name] for name in self._names})

    def settle(self, state: Weights) -> dict[str, NDArray[Any]]:
        """The weights after an update without the errors that its gradient saw; new errors go into the model."""
        calm = {name: state[name] - error for name, error in self._errors.items()}
        self._step += 1
        self._shake(calm)
        return {**state, **calm}

    def _shake(self, calm: Weights) -> None:
        still = self._ready.plan.plan_at(self._step).frozen  # which no update rounds
        kept, shaken = dict(calm), dict(calm)
        numbers = np.concatenate([np.zeros(0), *(array.ravel() for array in calm.values())])
        typical = float(np.sqrt(np.mean(numbers**2))) if len(numbers) else 0.0
        for name in [name for name in calm if name not in still]:
            kept[name] = self._disturbance.kept(calm[name])
            shaken[name] = self._disturbance.passing(kept[name], typical)
        self._errors = {name: shaken[name] - kept[name] for name in kept}
        self._ready.backend.load(self._ready.model, shaken)


def frozen_parameters(model: Module) -> frozenset[str]:
    """Names of the parameters that do not train because of ``requires_grad=False``."""
    return frozenset(parameter.name for parameter, tensor in parameters_of(model) if not tensor.requires_grad)
