"""Switches modules of a compiled graph between training and evaluation mode, without compiling it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import TypeAlias

import numpy as np

from layered_lr.models.nn_modules import still_modules
from layered_lr.plans.plan import Plan
from layered_lr.spec.phases import Phase
from layered_lr_oneflow.dropout import MaskedDropout
from layered_lr_oneflow.oneflow_types import LazyLookup, Module, Tensor
from layered_lr_oneflow.runtime import flow

ModuleForward: TypeAlias = Callable[[Module, Tensor], Tensor]
"""A module's ``forward``, not bound: the module, then its input."""

_NORMS = (flow.nn.BatchNorm1d, flow.nn.BatchNorm2d, flow.nn.BatchNorm3d)


def find_still_modules(model: Module, plan: Plan) -> list[Module]:
    """Find the modules that stay in evaluation mode in a phase."""
    phase = plan.phase or Phase()
    return still_modules(model, plan.frozen, phase.batch_norm, phase.dropout)


class ModeSwitches:
    """Switches for the modules that train in some phases and hold still in others; the graph has both modes of each.

    Args:
        model: Whose modules are switched.
        plans: Of the phases.

    Attributes:
        are_possible: Whether all these modules are batch normalisations or dropouts; no others can be switched.
    """

    def __init__(self, model: Module, plans: Sequence[Plan]) -> None:
        self._model = model
        self._stills = [{id(module) for module in find_still_modules(model, plan)} for plan in plans]
        always, ever = set.intersection(*self._stills), set.union(*self._stills)
        self._modules = [module for module in _list_modules(model) if id(module) in ever - always]
        self._norms = {
            index: SwitchedBatchNorm(module) for index, module in enumerate(self._modules) if isinstance(module, _NORMS)
        }
        self.are_possible = all(isinstance(module, (*_NORMS, flow.nn.Dropout)) for module in self._modules)

    def covers(self, plan: Plan) -> bool:
        """Whether these switches can be set to a phase."""
        return {id(module) for module in find_still_modules(self._model, plan)} in self._stills

    def find_positions(self, plan: Plan) -> list[bool]:
        """Find whether each module trains in a phase; one more True follows, because a tensor must not be empty."""
        still = {id(module) for module in find_still_modules(self._model, plan)}
        return [id(module) not in still for module in self._modules] + [True]

    def register_buffers(self, root: Module) -> None:
        """Register the tensors that the graph needs beside the model as buffers of a module."""
        for index, norm in self._norms.items():
            for name, tensor in norm.buffers.items():
                root.register_buffer(f"{name}_{index}", tensor)

    def refresh(self, plan: Plan) -> None:
        """Begin a phase with the model's present weights and statistics."""
        trains = self.find_positions(plan)
        with flow.no_grad():
            for index, norm in self._norms.items():
                norm.refresh(trains[index])

    def write_statistics(self, plan: Plan) -> None:
        """Copy the statistics of normalisations that train in this phase to the model."""
        trains = self.find_positions(plan)
        with flow.no_grad():
            for index, norm in self._norms.items():
                if trains[index]:
                    norm.write_statistics()

    @contextmanager
    def trace_both_modes(self, positions: Tensor, lazy: LazyLookup) -> Iterator[None]:
        """Let the switched modules compute both modes and choose one, inside of a ``with`` block in a graph's trace.

        Args:
            positions: Whether each module trains, shape (switches + 1,), 1 or 0 in the model's dtype.
            lazy: From an eager tensor to the one that stands for it in the trace.
        """
        with ExitStack() as stack:
            for index, module in enumerate(self._modules):
                trains = positions[index : index + 1]
                norm = self._norms.get(index)
                forward = _make_dropout_forward(module, trains) if norm is None else norm.make_forward(trains, lazy)
                stack.callback(setattr, module, "training", module.training)
                stack.callback(module.__dict__.pop, "forward")
                module.training = True
                module.forward = MethodType(forward, module)
            yield


def _list_modules(model: Module) -> list[Module]:
    return list({id(module): module for module in model.modules()}.values())


class SwitchedBatchNorm:
    """Both modes of a batch normalisation: training by OneFlow's own op, bitwise, and with fixed statistics.

    It needs few ops, because each costs memory in a graph, and no ``where``: the mode that is not chosen adds zeros.
    In training OneFlow makes NaN of a channel whose variance is tiny beside its mean, which can happen while the
    statistics are fixed. So the op then gets zeros, and returns the shift.

    Args:
        norm: The model's module; the graph updates copies of its statistics.

    Attributes:
        buffers: The tensors that the graph reads and writes beside the model.
    """

    def __init__(self, norm: Module) -> None:
        self._norm = norm
        statistics = (norm.running_mean, norm.running_var)
        moving = dict(
            zip(("moving_mean", "moving_variance"), (one.detach().clone() for one in statistics), strict=True)
        )
        self.buffers = moving | {name: flow.zeros_like(norm.running_mean) for name in ("centre", "factor")}

    def refresh(self, trains: bool) -> None:
        """Begin a phase with the module's present weights and statistics."""
        norm, own = self._norm, self.buffers
        own["moving_mean"].copy_(norm.running_mean)
        own["moving_variance"].copy_(norm.running_var)
        factor = flow.rsqrt(norm.running_var + float(np.float32(norm.eps)))  # as OneFlow's op holds it
        factor = factor * norm.weight if norm.affine else factor
        own["centre"].copy_(norm.running_mean * (0.0 if trains else 1.0))
        own["factor"].copy_(flow.zeros_like(factor) if trains else factor)

    def write_statistics(self) -> None:
        """Copy the statistics after an update to the module."""
        self._norm.running_mean.copy_(self.buffers["moving_mean"])
        self._norm.running_var.copy_(self.buffers["moving_variance"])

    def make_forward(self, trains: Tensor, lazy: LazyLookup) -> ModuleForward:
        """Make what takes the place of the module's ``forward`` in a trace.

        Args:
            trains: 1 or 0, shape (1,).
            lazy: From an eager tensor to the one that stands for it in the trace.
        """
        norm = self._norm
        own = {name: lazy(tensor, name) for name, tensor in self.buffers.items()}

        def forward(self: Module, x: Tensor) -> Tensor:
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


def _make_dropout_forward(dropout: Module, trains: Tensor) -> ModuleForward:
    drop = type(dropout).forward

    def forward(self: Module, x: Tensor) -> Tensor:
        if isinstance(dropout, MaskedDropout) and dropout.mask is None:
            return x
        return flow.where(trains > 0, drop(self, x), x)

    return forward
