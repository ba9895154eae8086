"""An eager optimizer that computes what torch's computes, where OneFlow's own does not."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, final

import numpy as np

from layered_lr.arrays import fits_parameter
from layered_lr.errors import CheckpointError, Unsupported
from layered_lr.optimizers import Optimizer
from layered_lr_oneflow.oneflow_types import Closure, Message, NativeParamGroup, Options, Tensor
from layered_lr_oneflow.rules import AnyRule, RateAndMomentum, Scalars, make_rule, make_slots
from layered_lr_oneflow.runtime import flow

TORCH_ONLY = ("foreach", "fused")
EAGER_ONLY = (
    "this optimizer is for OneFlow's eager mode (lr_scale is multiplied into its rates). In a oneflow.nn.Graph "
    "call layered_lr.attach(spec, self, model) in __init__ instead of add_optimizer()."
)


@final
class ComposedOptimizer(flow.optim.Optimizer):
    """Any optimizer of this library on OneFlow, composed of ordinary ops.

    Param groups have torch's names for the hyperparameters; a new value applies from the next update on. The state of
    a parameter has torch's names too, and its counters (``step``) are Python numbers. As in torch, the state begins
    with the parameter's first gradient, and a parameter without a gradient stays as it is.

    Args:
        optimizers: Of each param group: which one, and the hyperparameters that the param group leaves out. They may be
            of several kinds.
        groups: Param groups.
        undecayed: Parameters that never decay, whatever their group says.
    """

    def __init__(
        self, optimizers: Sequence[Optimizer], groups: list[Options], undecayed: Iterable[Tensor] = ()
    ) -> None:
        self._optimizers = list(optimizers)
        self._undecayed = {id(tensor) for tensor in undecayed}
        self._rules: dict[tuple[Hashable, ...], AnyRule] = {}
        super().__init__(groups, {"lr": optimizers[0].lr})
        self._state: dict[Any, Any] = {"step": 0}
        self._state |= {tensor: {} for group in self.param_groups for tensor in group.parameters}

    def step(self, closure: Closure | None = None) -> Any:
        """Make one update.

        Args:
            closure: Evaluates the model once more and returns the loss.

        Returns:
            What the closure returns; None without a closure.

        Raises:
            SpecError: A hyperparameter in a param group has a value that is not allowed.
        """
        with flow.no_grad():
            loss = None
            if closure is not None:
                with flow.enable_grad():
                    loss = closure()
            for group, optimizer in zip(self.param_groups, self._optimizers, strict=True):
                self._update(group, optimizer)
            self._state["step"] += 1
            return loss

    def _update(self, group: NativeParamGroup, optimizer: Optimizer) -> None:
        rules = self._find_rules(group, optimizer)
        numbers = RateAndMomentum(float(group["lr"]), rules[0].optimizer.first_momentum)
        known: dict[tuple[Hashable, ...], tuple[Scalars, Scalars]] = {}  # most parameters share all their numbers
        for tensor in group.parameters:
            if tensor.grad is None:
                continue
            free = id(tensor) in self._undecayed
            rule, state = rules[free], self._state[tensor]
            counters = {name: state.get(name, start) for name, start in rule.counters.items()}
            key = (free, *counters.values())
            if key not in known:
                known[key] = rule.compute_scalars(numbers, counters)
            scalars, following = known[key]
            slots = self._slots(tensor, rule)
            if tensor.numel():
                rule.update(tensor, tensor.grad, slots, scalars)
            state.update(following)

    def _slots(self, tensor: Tensor, rule: AnyRule) -> dict[str, Tensor]:
        state, names = self._state[tensor], rule.list_slots(tuple(tensor.shape))
        if not all(name in state for name in names):
            state |= {name: slot for name, slot in make_slots(rule, tensor).items() if name not in state}
        return {name: state[name] for name in names}

    def set_undecayed(self, undecayed: Iterable[Tensor]) -> None:
        """Choose the parameters that never decay from now on, whatever their group says."""
        self._undecayed = {id(tensor) for tensor in undecayed}

    def fit_states(self, without: Collection[int]) -> None:
        """Let states fit the hyperparameters that the param groups have now.

        Slots that these do not use are dropped, and slots that are missing begin at 0. A parameter without a state
        stays without.

        Args:
            without: The ``id`` of each parameter whose state stays as it is.
        """
        for group, optimizer in zip(self.param_groups, self._optimizers, strict=True):
            rules = self._find_rules(group, optimizer)
            for tensor in group.parameters:
                state, rule = self._state[tensor], rules[id(tensor) in self._undecayed]
                names = rule.list_slots(tuple(tensor.shape))
                if id(tensor) in without or not state or state.keys() == {*names, *rule.counters}:
                    continue
                new = make_slots(rule, tensor)
                kept = {name: state[name] if name in state else flow.zeros_like(new[name]) for name in names}
                # SGD counts only where it dampens, and there only its first update differs.
                counters = {name: state.get(name, 1 if kept else start) for name, start in rule.counters.items()}
                self._state[tensor] = {**kept, **counters}

    def _find_rules(self, group: NativeParamGroup, optimizer: Optimizer) -> tuple[AnyRule, AnyRule]:
        """The rule of a group's parameters, and of those that never decay."""
        options = {f.name: group[f.name] for f in fields(optimizer) if f.name not in TORCH_ONLY}
        return self._rule(optimizer, options), self._rule(optimizer, {**options, "weight_decay": 0.0})

    def _rule(self, optimizer: Optimizer, options: Mapping[str, Any]) -> AnyRule:
        """Get the update rule of an optimizer with these hyperparameters; it does not depend on the rate."""
        key = (type(optimizer), *(value for name, value in options.items() if name != "lr"))
        if key not in self._rules:
            if len(self._rules) > 100:  # a momentum that moves makes a new one at every update
                self._rules.clear()
            self._rules[key] = make_rule(replace(optimizer, **{**options, "lr": optimizer.lr}))
        return self._rules[key]

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned; it is copied.

        Raises:
            CheckpointError: The param groups, or a slot's shape or dtype, differ; then nothing has been changed.
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
            tensor: {name: _copy_entry(tensor, name, value) for name, value in saved.get(place, {}).items()}
            for tensor, place in zip(tensors, places, strict=True)
        }
        self._state = {"step": int(saved.get("step", 0))}
        self._state |= states
        for group, new in zip(self.param_groups, groups, strict=True):
            group._options.update(new["_options"])

    def _generate_conf_for_graph(self, train_conf: Message, vars_conf: Message) -> None:
        raise Unsupported(EAGER_ONLY)


def _copy_entry(tensor: Tensor, name: str, value: Any) -> Any:
    """Copy a slot or number, after checking that it fits the parameter."""
    if not isinstance(value, flow.Tensor):
        return value
    if not fits_parameter(name, tuple(value.shape), tuple(tensor.shape)) or value.dtype != tensor.dtype:
        raise CheckpointError(
            f"optimizer state: {name!r} is {value.dtype} of shape {tuple(value.shape)}; must be {tensor.dtype} of "
            f"shape {tuple(tensor.shape)}."
        )
    return flow.tensor(np.array(value.numpy()), device=tensor.device)
