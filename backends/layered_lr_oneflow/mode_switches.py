"""Modules of a compiled graph that go from training to evaluation mode and back without being compiled anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import numpy as np

from layered_lr.models.nn_modules import find_still_modules
from layered_lr.plans.plan import Plan
from layered_lr.spec.phases import Phase
from layered_lr_oneflow.dropout import MaskedDropout
from layered_lr_oneflow.runtime import flow

_NORMS = (flow.nn.BatchNorm1d, flow.nn.BatchNorm2d, flow.nn.BatchNorm3d)


def still_in(model: Any, plan: Plan) -> list[Any]:
    """The modules that stay in evaluation mode in a phase."""
    phase = plan.phase or Phase()
    return find_still_modules(model, plan.frozen, phase.batch_norm, phase.dropout)


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
        self._norms = {
            index: SwitchedNorm(module) for index, module in enumerate(self._modules) if isinstance(module, _NORMS)
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
        """Make what the graph needs beside the model part of a module."""
        for index, norm in self._norms.items():
            for name, tensor in norm.buffers.items():
                root.register_buffer(f"{name}_{index}", tensor)

    def refresh(self, plan: Plan) -> None:
        """Begin a phase with the weights and statistics that the model has."""
        trains = self.positions(plan)
        with flow.no_grad():
            for index, norm in self._norms.items():
                norm.refresh(trains[index])

    def settle(self, plan: Plan) -> None:
        """Give the model the statistics of those normalisations that train in this phase."""
        trains = self.positions(plan)
        with flow.no_grad():
            for index, norm in self._norms.items():
                if trains[index]:
                    norm.settle()

    @contextmanager
    def traced(self, positions: Any, lazy: Callable[[Any, str], Any]) -> Iterator[None]:
        """Have the model's forward pass, in a graph's trace, do both and take what the positions say.

        Args:
            positions: Shape (switches + 1,), 1 or 0 in the model's dtype; of the graph.
            lazy: See ``tracing.lazy_tensors``.
        """
        with ExitStack() as stack:
            for index, module in enumerate(self._modules):
                trains = positions[index : index + 1]
                norm = self._norms.get(index)
                forward = _dropout_forward(module, trains) if norm is None else norm.forward(trains, lazy)
                stack.callback(setattr, module, "training", module.training)
                stack.callback(module.__dict__.pop, "forward")
                module.training = True
                module.forward = MethodType(forward, module)
            yield


def _once(model: Any) -> list[Any]:
    return list({id(module): module for module in model.modules()}.values())


class SwitchedNorm:
    """A batch normalisation both ways: in training by OneFlow's own op, bitwise, and with statistics that hold still.

    Few ops, as each costs memory in a graph, and no ``where``: where one way is taken, the other one adds zeros. In
    training OneFlow makes NaN of a channel whose variance is next to nothing beside its mean, as happens with
    statistics that hold still: there the op is given zeros, and answers with the shift.

    Args:
        norm: Its statistics are the model's; the graph moves copies of them.

    Attributes:
        buffers: What the graph reads and writes beside the model.
    """

    def __init__(self, norm: Any) -> None:
        self._norm = norm
        statistics = (norm.running_mean, norm.running_var)
        moving = dict(
            zip(("moving_mean", "moving_variance"), (one.detach().clone() for one in statistics), strict=True)
        )
        self.buffers = moving | {name: flow.zeros_like(norm.running_mean) for name in ("centre", "factor")}

    def refresh(self, trains: bool) -> None:
        """Begin a phase with the weights and statistics that the model has."""
        norm, own = self._norm, self.buffers
        own["moving_mean"].copy_(norm.running_mean)
        own["moving_variance"].copy_(norm.running_var)
        factor = flow.rsqrt(norm.running_var + float(np.float32(norm.eps)))  # as OneFlow's op holds it
        factor = factor * norm.weight if norm.affine else factor
        own["centre"].copy_(norm.running_mean * (0.0 if trains else 1.0))
        own["factor"].copy_(flow.zeros_like(factor) if trains else factor)

    def settle(self) -> None:
        """Give the model the statistics after an update."""
        self._norm.running_mean.copy_(self.buffers["moving_mean"])
        self._norm.running_var.copy_(self.buffers["moving_variance"])

    def forward(self, trains: Any, lazy: Callable[[Any, str], Any]) -> Callable[[Any, Any], Any]:
        """What takes the place of the module's ``forward`` in a trace; ``trains``, shape (1,), is 1 or 0."""
        norm = self._norm
        own = {name: lazy(tensor, name) for name, tensor in self.buffers.items()}

        def forward(self: Any, x: Any) -> Any:
            trained = flow._C.normalization(
                x * trains,
                own["moving_mean"],
                own["moving_variance"],
                self.weight,
                self.bias,
                axis=norm.channel_axis,
                epsilon=norm.eps,
                momentum=norm.momentum,
                is_training=True,
            )
            shape = (1, -1) + (1,) * (x.ndim - 2)  # (1, C, 1, 1) of images
            still = (x - own["centre"].reshape(*shape)) * own["factor"].reshape(*shape)
            return trained + still

        return forward


def _dropout_forward(dropout: Any, trains: Any) -> Callable[[Any, Any], Any]:
    drop = type(dropout).forward

    def forward(self: Any, x: Any) -> Any:
        if isinstance(dropout, MaskedDropout) and dropout.mask is None:
            return x
        return flow.where(trains > 0, drop(self, x), x)

    return forward
