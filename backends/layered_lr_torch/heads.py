"""The head of a torch model: the layer that answers, found and replaced."""

from __future__ import annotations

from typing import Any

import torch

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import find_head
from layered_lr.models.nn_modules import parameters_of
from layered_lr.spelling import did_you_mean
from layered_lr_torch.torch_types import Module


def list_outputs(model: Module, outputs: int) -> list[str]:
    """List the paths of linear layers and 1x1 convolutions with so many outputs, in model order."""
    return [path for path, module in model.named_modules() if path and count_outputs(module) == outputs]


def count_outputs(module: Module) -> int | None:
    """Return the outputs of a linear layer or a 1x1 convolution; None of anything else."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features
    if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1:
        return module.out_channels
    return None


def find_head_path(model: Module, head: str) -> str:
    """Return the path of the layer that ``head`` names.

    Args:
        model: The model.
        head: ``"auto"``, or a path.

    Raises:
        SpecError: There is no such layer, or it is one that cannot be a head.
    """
    linear = [path for path, module in model.named_modules() if path and count_outputs(module) is not None]
    if head == "auto":
        found = find_head([parameter for parameter, _ in parameters_of(model)])
        if found is None or found not in linear:
            raise SpecError(
                "head='auto': the model has no linear layer and no 1x1 convolution at its end. Give the path of its "
                "head, or leave head out and build the model for the data's classes."
            )
        return found
    modules = dict(model.named_modules())
    if head not in modules or not head:
        last = f" Its linear layers are {', '.join(linear[-3:])}." if linear else " It has no linear layer."
        raise SpecError(f"head={head!r}: the model has no module of that path.{did_you_mean(head, modules) or last}")
    if head not in linear:
        inside = [path for path in linear if path.startswith(f"{head}.")]
        hint = f" Did you mean {inside[-1]!r}?" if inside else f" Its linear layers are {', '.join(linear[-3:])}."
        raise SpecError(
            f"head={head!r}: is a {type(modules[head]).__name__}; must be a linear layer or a 1x1 convolution.{hint}"
        )
    return head


def put_head(model: Module, path: str, num_classes: int) -> None:
    """Put a new layer in the place of a head, with one output for each class, on the same device and of the same dtype.

    Args:
        model: Is changed.
        path: From ``find_head_path``.
        num_classes: Of the data.
    """
    old: Any = model.get_submodule(path)
    weight, has_bias = old.weight, old.bias is not None
    where = {"device": weight.device, "dtype": weight.dtype}
    new: Module
    if isinstance(old, torch.nn.Linear):
        new = torch.nn.Linear(old.in_features, num_classes, has_bias, **where)
    else:
        new = torch.nn.Conv2d(old.in_channels, num_classes, 1, bias=has_bias, **where)
    new.train(old.training)
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent).register_module(name, new)
