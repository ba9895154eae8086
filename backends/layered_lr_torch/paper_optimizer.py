"""What LAMB, LARS and Lion share: the update's frame, and in which of two ways it is made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from layered_lr_torch.sharding import is_sharded
from layered_lr_torch.torch_types import Closure, ParameterState, ParamGroup, Tensor


class Moving(NamedTuple):
    """Parameters that an update moves, each with what the update needs of it.

    Args:
        parameters: Each with a gradient.
        rates: The rate of each.
        gradients: Of each; already negated if the group maximizes.
        states: Of each; an empty one has to be filled.
    """

    parameters: list[Tensor]
    rates: list[float]
    gradients: list[Tensor]
    states: list[ParameterState]


class MovingOne(NamedTuple):
    """One of them."""

    parameter: Tensor
    rate: float
    gradient: Tensor
    state: ParameterState


class PaperOptimizer(Optimizer):
    """What the three share: which param groups are updated together, and in which of two ways with the same result.

    Args:
        params: Parameters or param groups, as torch's optimizers take them.
        defaults: Hyperparameters of param groups that do not set them.
    """

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """Make one update.

        Args:
            closure: Evaluates the model once more and returns the loss.

        Returns:
            What the closure returns; None without a closure.

        Raises:
            RuntimeError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for groups in self._find_equal_groups():
            group = groups[0]
            moving = self._find_moving(groups)
            if any(gradient.is_sparse for gradient in moving.gradients):
                raise RuntimeError(
                    f"{type(self).__name__} does not support sparse gradients. Use sparse=False in the embedding."
                )
            can_combine = len({(parameter.device, parameter.dtype) for parameter in moving.parameters}) == 1
            can_combine = can_combine and not any(map(is_sharded, moving.parameters))  # norms are of whole tensors
            if can_combine and group["foreach"] is not False:
                if group["maximize"]:
                    moving = moving._replace(gradients=list(torch._foreach_neg(moving.gradients)))
                self._update_all(group, moving)
            else:
                for parameter, rate, gradient, state in zip(*moving, strict=True):
                    direction = -gradient if group["maximize"] else gradient
                    self._update_one(group, MovingOne(parameter, rate, direction, state))
        return loss

    def _find_moving(self, groups: list[ParamGroup]) -> Moving:
        """The parameters of some param groups that have a gradient."""
        found = [(parameter, of["lr"]) for of in groups for parameter in of["params"] if parameter.grad is not None]
        parameters, rates = [parameter for parameter, _ in found], [rate for _, rate in found]
        gradients = [parameter.grad for parameter in parameters]
        return Moving(parameters, rates, gradients, [self.state[parameter] for parameter in parameters])

    def _find_equal_groups(self) -> Iterable[list[ParamGroup]]:
        """Sort the param groups into lists that agree in everything except the rate."""
        names = [name for name in self.defaults if name != "lr"]
        found: dict[Any, list[ParamGroup]] = {}
        for group in self.param_groups:
            for like in group["params"][:1]:
                values = (group.get(name) for name in names)  # torch adds defaults when it loads a state
                same = tuple(tuple(value) if isinstance(value, list) else value for value in values)
                found.setdefault((like.device, like.dtype, same), []).append(group)
        return found.values()

    @abstractmethod
    def _update_all(self, group: ParamGroup, moving: Moving) -> None:
        """Update several parameters by operations on all of them at once.

        Args:
            group: Hyperparameters of all of them.
            moving: Parameters of one device and dtype.
        """

    @abstractmethod
    def _update_one(self, group: ParamGroup, moving: MovingOne) -> None:
        """Update one parameter by the same arithmetic."""
