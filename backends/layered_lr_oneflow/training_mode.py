"""Which modules train: a stand-in until the core has one for both frameworks."""

from __future__ import annotations

from typing import Any

from layered_lr.modules import parameters_of
from layered_lr.plans import Plan
from layered_lr_oneflow.runtime import flow

_NORMS = (flow.nn.BatchNorm1d, flow.nn.BatchNorm2d, flow.nn.BatchNorm3d)
_FROZEN = "_layered_lr_frozen"  # of the model: names of what a session froze


def set_training(model: Any, plan: Plan) -> None:
    """Training mode, but for batch normalisations that are wholly frozen, whose statistics stay still."""
    model.train()
    for module in still_norms(model, plan.frozen):
        module.eval()


def freeze(model: Any, plan: Plan) -> None:
    """Let nothing but what the plan trains have gradients; what the user froze stays so."""
    ours: set[str] = model.__dict__.setdefault(_FROZEN, set())
    for parameter, tensor in parameters_of(model):
        if parameter.name in plan.frozen and tensor.requires_grad:
            tensor.requires_grad = False
            tensor.grad = None
            ours.add(parameter.name)
        elif parameter.name in ours and parameter.name not in plan.frozen:
            tensor.requires_grad = True
            ours.remove(parameter.name)


def still_norms(model: Any, frozen: frozenset[str]) -> list[Any]:
    """The batch normalisations all of whose parameters are frozen."""
    names = {id(tensor): parameter.name for parameter, tensor in parameters_of(model)}
    found = []
    for module in model.modules():
        if isinstance(module, _NORMS):
            own = [names[id(tensor)] for tensor in module._parameters.values() if tensor is not None]
            if own and frozen.issuperset(own):
                found.append(module)
    return found
