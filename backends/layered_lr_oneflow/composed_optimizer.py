"""An eager optimizer that computes what torch's computes, where OneFlow's own does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, final

import numpy as np

from layered_lr.errors import CheckpointError, Unsupported
from layered_lr.optimizers import Optimizer
from layered_lr_oneflow.rules import Numbers, Scalars, UpdateRule, rule_of
from layered_lr_oneflow.runtime import flow

TORCH_ONLY = ("foreach", "fused")
EAGER_ONLY = (
    "this optimizer is for OneFlow's eager mode (lr_scale is folded into its rates). In a oneflow.nn.Graph "
    "call layered_lr.attach(spec, self, model) in __init__ instead of add_optimizer()."
)


@final
class ComposedOptimizer(flow.optim.Optimizer):  # type: ignore[misc] # OneFlow has no types
    """Any optimizer of this library on OneFlow, composed of ordinary ops.

    Param groups have torch's names for the hyperparameters, and what is set there holds from the next update on. The
    state of a parameter has torch's names too, its numbers (``step``) as Python's; as in torch it begins with the
    parameter's first gradient, and a parameter without a gradient stays as it is.

    Args:
        optimizer: Which one, and what param groups leave out.
        groups: Param groups.
        undecayed: Parameters without weight decay, whatever their group says.
    """

    def __init__(self, optimizer: Optimizer, groups: list[dict[str, Any]], undecayed: Iterable[Any] = ()) -> None:
        self._optimizer = optimizer
        self._names = [f.name for f in fields(optimizer) if f.name not in TORCH_ONLY]
        self._undecayed = {id(tensor) for tensor in undecayed}
        self._rules: dict[tuple[Any, ...], UpdateRule[Any]] = {}
        super().__init__(groups, {name: getattr(optimizer, name) for name in self._names})
        self._state: dict[Any, Any] = {"step": 0}
        self._state |= {tensor: {} for group in self.param_groups for tensor in group.parameters}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one update.

        Args:
            closure: Computes the loss and its gradients anew, if given.

        Returns:
            What the closure returned.

        Raises:
            SpecError: A hyperparameter that was set to what it cannot be.
        """
        with flow.no_grad():
            loss = None
            if closure is not None:
                with flow.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                self._update(group)
            self._state["step"] += 1
            return loss

    def _update(self, group: Any) -> None:
        options = {name: group[name] for name in self._names}
        rules = [self._rule(options), self._rule({**options, "weight_decay": 0.0})]
        numbers = Numbers(float(group["lr"]), rules[0].optimizer.first_momentum)
        known: dict[tuple[Any, ...], tuple[Scalars, Scalars]] = {}  # most parameters have all their numbers in common
        for tensor in group.parameters:
            if tensor.grad is None:
                continue
            free = id(tensor) in self._undecayed
            rule, state = rules[free], self._state[tensor]
            carried = {name: state.get(name, start) for name, start in rule.carried.items()}
            key = (free, *carried.values())
            if key not in known:
                known[key] = rule.scalars(numbers, carried)
            scalars, following = known[key]
            slots = {name: self._slot(tensor, name, value) for name, value in rule.slots.items()}
            if tensor.numel():
                rule.update(tensor, tensor.grad, slots, scalars)
            state.update(following)

    def _slot(self, tensor: Any, name: str, value: float) -> Any:
        state = self._state[tensor]
        if name not in state:
            state[name] = flow.zeros_like(tensor).fill_(value)
        return state[name]

    def _rule(self, options: Mapping[str, Any]) -> UpdateRule[Any]:
        """The rule of these hyperparameters; the rate is none of its business."""
        key = tuple(value for name, value in options.items() if name != "lr")
        if key not in self._rules:
            if len(self._rules) > 100:  # a momentum that moves makes a new one at every update
                self._rules.clear()
            self._rules[key] = rule_of(replace(self._optimizer, **{**options, "lr": self._optimizer.lr}))
        return self._rules[key]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a copy of what ``state_dict`` returned.

        Raises:
            CheckpointError: Other param groups, or a slot of another shape or dtype; then nothing has been changed.
        """
        groups = state_dict["param_groups"]
        counts = [len(group.parameters) for group in self.param_groups]
        if [len(group["params"]) for group in groups] != counts:
            raise CheckpointError(
                f"optimizer state: its param groups have {[len(group['params']) for group in groups]} parameters, the "
                f"optimizer's have {counts}."
            )
        tensors = [tensor for group in self.param_groups for tensor in group.parameters]
        places = [place for group in groups for place in group["params"]]
        saved = state_dict["state"]
        states = {
            tensor: {name: _loaded(tensor, name, value) for name, value in saved.get(place, {}).items()}
            for tensor, place in zip(tensors, places, strict=True)
        }
        self._state = {"step": int(saved.get("step", 0))}
        self._state |= states
        for group, new in zip(self.param_groups, groups, strict=True):
            group._options.update(new["_options"])

    def _generate_conf_for_graph(self, train_conf: Any, vars_conf: Any) -> None:
        raise Unsupported(EAGER_ONLY)


def _loaded(tensor: Any, name: str, value: Any) -> Any:
    """A copy of a slot or number, if it can be this parameter's."""
    if not isinstance(value, flow.Tensor):
        return value
    if value.shape != tensor.shape or value.dtype != tensor.dtype:
        raise CheckpointError(
            f"optimizer state: {name!r} is {value.dtype} of shape {tuple(value.shape)}; must be {tensor.dtype} of "
            f"shape {tuple(tensor.shape)}."
        )
    return flow.tensor(np.array(value.numpy()), device=tensor.device)
