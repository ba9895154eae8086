"""The head of a torch model: the layer that answers, found and replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import find_head
from layered_lr.models.nn_modules import parameters_of
from layered_lr.spelling import did_you_mean
from layered_lr_torch.torch_types import Module

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


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


def find_head_path(model: Module, head: str, answering: Sequence[str] | None = None) -> str:
    """Return the path of the layer that ``head`` names.

    Args:
        model: The model.
        head: ``"auto"``, or a path.
        answering: The layers that a forward pass has shown to answer; None where nobody has looked.

    Raises:
        SpecError: There is no such layer, or it is one that cannot be a head.
    """
    linear = [path for path, module in model.named_modules() if path and count_outputs(module) is not None]
    if head == "auto":
        if answering and len(answering) > 1:
            raise SpecError(
                f"head='auto': {' and '.join(map(repr, answering))} make the answer together. Leave head out, and "
                "build the model for the data's classes."
            )
        if answering and answering[0] not in linear:
            kind = type(model.get_submodule(answering[0])).__name__
            what = (
                f"{answering[0]!r} answers, which is a {kind}"
                if answering[0]
                else "a weight of the model itself answers"
            )
            raise SpecError(
                f"head='auto': {what}, and no linear layer or 1x1 convolution. "
                "Leave head out, and build the model for the data's classes."
            )
        found = answering[0] if answering else find_head([parameter for parameter, _ in parameters_of(model)])
        if found is None or found not in linear:
            raise SpecError(
                "head='auto': the model has no linear layer and no 1x1 convolution at its end. Give the path of its "
                "head, or leave head out and build the model for the data's classes."
            )
        return found
    modules = dict(model.named_modules(remove_duplicate=False))  # a head may have two names
    if head not in modules or not head:
        last = f" Its linear layers are {', '.join(linear[-3:])}." if linear else " It has no linear layer."
        raise SpecError(f"head={head!r}: the model has no module of that path.{did_you_mean(head, modules) or last}")
    if count_outputs(modules[head]) is None:
        inside = [path for path in linear if path.startswith(f"{head}.")]
        hint = f" Did you mean {inside[-1]!r}?" if inside else f" Its linear layers are {', '.join(linear[-3:])}."
        raise SpecError(
            f"head={head!r}: is a {type(modules[head]).__name__}; must be a linear layer or a 1x1 convolution.{hint}"
        )
    return head


def put_head(model: Module, path: str, num_classes: int) -> None:
    """Put a new layer in the place of a head, with one output for each class, on the same device and of the same dtype.

    It is of the old one's class, with its stride and padding, and stands wherever the old one stood.

    Args:
        model: Is changed.
        path: From ``find_head_path``.
        num_classes: Of the data.

    Raises:
        SpecError: A new layer would lack something that the old one has, such as a hook.
    """
    old: Any = model.get_submodule(path)
    check_replaceable(model, path)
    weight, has_bias = old.weight, old.bias is not None
    where = {"device": weight.device, "dtype": weight.dtype}
    new: Module
    if isinstance(old, torch.nn.Linear):
        new = type(old)(old.in_features, num_classes, has_bias, **where)
    else:
        places = {"stride": old.stride, "padding": old.padding, "padding_mode": old.padding_mode}
        new = type(old)(old.in_channels, num_classes, 1, bias=has_bias, **places, **where)
    new.train(old.training)
    for parent in list(model.modules()):
        for name in [name for name, child in parent._modules.items() if child is old]:
            parent.register_module(name, new)


def check_replaceable(model: Module, path: str) -> None:
    """Refuse a head that a new layer of its class could not stand for.

    Raises:
        SpecError: It is a lazy layer, has hooks, a weight that is computed or used elsewhere, an own constructor, or an
            attribute that was set from outside.
    """
    old: Any = model.get_submodule(path)
    plain = torch.nn.Linear if isinstance(old, torch.nn.Linear) else torch.nn.Conv2d
    elsewhere = {
        id(tensor) for module in model.modules() if module is not old for tensor in module._parameters.values()
    }
    if isinstance(old, torch.nn.modules.lazy.LazyModuleMixin):
        what = "is lazy: it has no shape before the first batch"
    elif torch.nn.utils.parametrize.is_parametrized(old) or "weight" not in old._parameters:
        what = "computes its weight from other parameters"
    elif any(getattr(old, hooks) for hooks in _HOOKS):
        what = "has hooks"
    elif type(old).__init__ is not plain.__init__:
        what = f"is a {type(old).__name__}, whose constructor is its own"
    elif added := _list_added(old, plain):
        what = f"has {added[0]!r}, which a {plain.__name__} has not"
    elif any(id(parameter) in elsewhere for parameter in old.parameters()):
        what = "shares a parameter with another module"
    else:
        return
    raise SpecError(
        f"head={path!r}: the layer {what}, and a new layer in its place would not be the same. Build the model for the "
        "data's classes, and leave head out."
    )


def _list_added(layer: Module, plain: type[Module]) -> list[str]:
    """List what a layer has beside what each new one of a plain class has: attributes, tensors, modules."""
    new = plain(1, 1, 1, device="meta")
    added = [name for name in vars(layer) if name not in vars(new)]
    for table in ("_parameters", "_buffers", "_modules"):
        added += [name for name in getattr(layer, table) if name not in getattr(new, table)]
    return added
