"""The parameters of a model for a plan: with the layers that it counts itself, as timm's do, and those that answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from layered_lr.models.answering_layer import OWN_HEADS, path_of_layer
from layered_lr.models.nn_modules import Module, framework_of, parameters_of
from layered_lr.models.parameter import Parameter
from layered_lr.models.wrappers import WRAPPERS, strip_wrappers

OWN_DEPTHS = "layered_lr_depths"
"""The attribute of a translated model that has the depths of the original, by name."""


def describe_parameters(model: Module) -> list[Parameter]:
    """Return every parameter of a model once, in model order, with what is known of it beside its name and shape.

    That is its depth, where the model itself counts layers, and whether it answers, where a forward pass has shown it.

    Raises:
        SpecError: As ``parameters_of``.
    """
    parameters = [parameter for parameter, _ in parameters_of(model)]
    if heads := set(getattr(model, OWN_HEADS, ())):
        plain = strip_wrappers(name for parameter in parameters for name in parameter.names)
        parameters = [
            parameter._replace(answers=any(path_of_layer(plain[name]) in heads for name in parameter.names))
            for parameter in parameters
        ]
    depths = find_own_depths(model, parameters)
    return [parameter._replace(depth=depths[parameter.name]) for parameter in parameters] if depths else parameters


def find_own_depths(model: Module, parameters: list[Parameter]) -> Mapping[str, int]:
    """Return the depth of each parameter, as timm's ``param_groups_layer_decay`` counts; empty for other models.

    A wrapper around the whole model, such as ``torch.compile`` or ``DistributedDataParallel``, changes nothing.

    Args:
        model: A module.
        parameters: All of its parameters.
    """
    kept: Mapping[str, int] | None = getattr(model, OWN_DEPTHS, None)
    if kept is not None:
        return kept
    inner = _unwrap(model)
    group_parameters: Callable[..., Any] | None = getattr(sys.modules.get("timm.models"), "group_parameters", None)
    if (
        group_parameters is None
        or framework_of(model) != "torch"
        or not callable(getattr(inner, "group_matcher", None))
    ):
        return {}
    plain = strip_wrappers(parameter.name for parameter in parameters)
    named = SimpleNamespace(named_parameters=lambda: ((short, None) for short in plain.values()))
    depths = group_parameters(named, inner.group_matcher(coarse=False), reverse=True)
    return {parameter.name: int(depths[plain[parameter.name]]) for parameter in parameters}


def _unwrap(model: Module) -> Module:
    """Return the module inside wrappers that have nothing else."""
    while len(model._modules) == 1 and {"module", *WRAPPERS}.issuperset(model._modules):
        (model,) = model._modules.values()
    return model
