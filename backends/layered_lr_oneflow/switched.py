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
        self._moving = {  # the graph's own statistics: they are in use only where the normalisation trains
            index: tuple(tensor.detach().clone() for tensor in _statistics(module))
            for index, module in enumerate(self._modules)
            if isinstance(module, _NORMS)
        }
        self.possible = all(isinstance(module, (*_NORMS, flow.nn.Dropout)) for module in self._modules)

    def covers(self, plan: Plan) -> bool:
        """Whether a phase is one that these switches can be set to."""
        return {id(module) for module in still_in(self._model, plan)} in self._stills

    def positions(self, plan: Plan) -> list[bool]:
        """Whether each of them trains in a phase; one more that says nothing, as a tensor must not be empty."""
        still = {id(module) for module in still_in(self._model, plan)}
        return [id(module) not in still for module in self._modules] + [True]

    def register(self, root: Any) -> None:
        """Make the statistics that the graph moves part of a module."""
        for index, (mean, variance) in self._moving.items():
            root.register_buffer(f"moving_mean_{index}", mean)
            root.register_buffer(f"moving_variance_{index}", variance)

    def refresh(self) -> None:
        """Have the graph move statistics on from those that the model has."""
        with flow.no_grad():
            for index, moving in self._moving.items():
                for own, copy in zip(_statistics(self._modules[index]), moving, strict=True):
                    copy.copy_(own)

    def settle(self, plan: Plan) -> None:
        """Give the model the statistics of those normalisations that train in this phase."""
        trains = self.positions(plan)
        with flow.no_grad():
            for index, moving in self._moving.items():
                for own, copy in zip(_statistics(self._modules[index]), moving, strict=True):
                    if trains[index]:
                        own.copy_(copy)

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
                if index in self._moving:
                    moving = tuple(lazy(tensor, "a statistic") for tensor in self._moving[index])
                    forward = _norm_forward(module, trains, moving)
                else:
                    forward = _dropout_forward(module, trains)
                stack.callback(setattr, module, "training", module.training)
                stack.callback(module.__dict__.pop, "forward")
                module.training = True
                module.forward = MethodType(forward, module)
            yield


def _once(model: Any) -> list[Any]:
    return list({id(module): module for module in model.modules()}.values())


def _statistics(norm: Any) -> tuple[Any, Any]:
    return norm.running_mean, norm.running_var


def _norm_forward(norm: Any, trains: Any, moving: tuple[Any, ...]) -> Callable[[Any, Any], Any]:
    """As in training where it trains, as in evaluation elsewhere, both by OneFlow's own op and so bitwise.

    The scale and shift of the way that is not taken are 0, and the choice is the sum of both: a ``where`` took 150 MB
    more with MobileNetV2 for its way back.
    """

    def forward(self: Any, x: Any) -> Any:
        settings = {"axis": norm.channel_axis, "epsilon": norm.eps, "momentum": norm.momentum}
        on = trains.to(x.dtype)
        scale = self.weight if norm.affine else self.running_mean * 0 + 1
        shift = self.bias if norm.affine else self.running_mean * 0
        trained = flow._C.normalization(x, *moving, scale * on, shift * on, **settings, is_training=True)
        off = 1 - on
        scale, shift = scale.detach() * off, shift.detach() * off  # they are frozen where it holds still
        means = self.running_mean, self.running_var
        return trained + flow._C.normalization(x, *means, scale, shift, **settings, is_training=False)

    return forward


def _dropout_forward(dropout: Any, trains: Any) -> Callable[[Any, Any], Any]:
    drop = type(dropout).forward

    def forward(self: Any, x: Any) -> Any:
        if isinstance(dropout, MaskedDropout) and dropout.mask is None:
            return x
        return flow.where(trains, drop(self, x), x)

    return forward
