"""Modules of a compiled graph that go from training to evaluation mode and back without being compiled anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

from layered_lr.modules import still_modules
from layered_lr.phases import Phase
from layered_lr.plans import Plan
from layered_lr_oneflow.dropouts import MaskedDropout
from layered_lr_oneflow.rules import assign
from layered_lr_oneflow.runtime import flow

_NORMS = (flow.nn.BatchNorm1d, flow.nn.BatchNorm2d, flow.nn.BatchNorm3d)


def still_in(model: Any, plan: Plan) -> list[Any]:
    """The modules that stay in evaluation mode in a phase."""
    phase = plan.phase or Phase()
    return still_modules(model, plan.frozen, phase.batch_norm, phase.dropout)


class Switches:
    """The modules that train in some phases and hold still in others, each with both ways compiled.

    Args:
        model: Whose modules they are.
        plans: Of the phases.

    Attributes:
        possible: Whether all of them are of kinds that this can be done with: batch normalisations and dropouts.
    """

    def __init__(self, model: Any, plans: Sequence[Plan]) -> None:
        self._model = model
        self._stills = [{id(module) for module in still_in(model, plan)} for plan in plans]
        always, ever = set.intersection(*self._stills), set.union(*self._stills)
        self._modules = [module for module in _once(model) if id(module) in ever - always]
        self.possible = all(isinstance(module, (*_NORMS, flow.nn.Dropout)) for module in self._modules)

    def covers(self, plan: Plan) -> bool:
        """Whether a phase is one that these switches can be set to."""
        return {id(module) for module in still_in(self._model, plan)} in self._stills

    def positions(self, plan: Plan) -> list[bool]:
        """Whether each of them trains in a phase; one more that says nothing, as a tensor must not be empty."""
        still = {id(module) for module in still_in(self._model, plan)}
        return [id(module) not in still for module in self._modules] + [True]

    @contextmanager
    def traced(self, positions: Any, lazy: Callable[[Any, str], Any]) -> Iterator[None]:
        """Have the model's forward pass, in a graph's trace, do both and take what the positions say.

        Args:
            positions: Shape (switches + 1,), bool; of the graph.
            lazy: See ``tracing.lazy_tensors``.
        """
        with ExitStack() as stack:
            for index, module in enumerate(self._modules):
                trains = positions[index : index + 1]
                if isinstance(module, _NORMS):
                    forward = _norm_forward(module, trains, lazy)
                else:
                    forward = _dropout_forward(module, trains)
                stack.callback(setattr, module, "training", module.training)
                stack.callback(module.__dict__.pop, "forward")
                module.training = True
                module.forward = MethodType(forward, module)
            yield


def _once(model: Any) -> list[Any]:
    return list({id(module): module for module in model.modules()}.values())


def _norm_forward(norm: Any, trains: Any, lazy: Callable[[Any, str], Any]) -> Callable[[Any, Any], Any]:
    """As in training where it trains, which moves the statistics; as in evaluation elsewhere."""

    def forward(self: Any, x: Any) -> Any:
        mean, variance = lazy(norm.running_mean, "running_mean"), lazy(norm.running_var, "running_var")
        settings = {"axis": norm.channel_axis, "epsilon": norm.eps, "momentum": norm.momentum}
        trained = flow._C.normalization(x, None, None, self.weight, self.bias, **settings, is_training=True)
        still = flow._C.normalization(x, mean, variance, self.weight, self.bias, **settings, is_training=False)
        with flow.no_grad():
            for old, new in zip((mean, variance), _statistics(x.detach()), strict=True):
                assign(old, flow.where(trains, old * (1 - norm.momentum) + new * norm.momentum, old))
        return flow.where(trains, trained, still)

    return forward


def _statistics(x: Any) -> tuple[Any, Any]:
    """Mean and variance of each channel, shape (C,); of ``n`` numbers, over ``n - 1``."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    count = x.numel() // x.shape[1]
    mean = x.mean(dim=axes, keepdim=True)
    apart = x - mean
    return mean.reshape(-1), (apart * apart).sum(dim=axes) / (count - 1)


def _dropout_forward(dropout: Any, trains: Any) -> Callable[[Any, Any], Any]:
    drop = type(dropout).forward

    def forward(self: Any, x: Any) -> Any:
        if isinstance(dropout, MaskedDropout) and dropout.mask is None:
            return x
        return flow.where(trains, drop(self, x), x)

    return forward
