"""Modules of torch and OneFlow, used only by what both have in common, so that neither framework is imported here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, Literal, TypeAlias

from layered_lr.errors import SpecError
from layered_lr.models.parameter import Parameter

Module: TypeAlias = Any
"""An ``nn.Module`` object of torch or OneFlow. ``Any``, because neither framework is imported here."""

Tensor: TypeAlias = Any
"""A tensor or parameter of torch or OneFlow."""

BatchNorm: TypeAlias = Literal["still", "moving"]
Dropout: TypeAlias = Literal["on", "off"]

CHECKPOINT_WRAPPER: Final = "_checkpoint_wrapped_module"
"""The child of torch's ``checkpoint_wrapper``; ``state_dict()`` leaves this component out of names, and so do we."""


def framework_of(model: object) -> str | None:
    """Return ``"torch"`` or ``"oneflow"`` for an ``nn.Module`` object, None for anything else."""
    for base in type(model).__mro__:
        root = base.__module__.split(".")[0]
        if base.__name__ == "Module" and root in ("torch", "oneflow"):
            return root
    return None


def parameters_of(model: Module) -> list[tuple[Parameter, Tensor]]:
    """Return every parameter of a model once, with the framework's own object, in model order.

    If one object has several names (tied weights), the first is its name and the others are aliases. The
    ``named_parameters()`` of both frameworks leave the other names out.

    Raises:
        SpecError: Not an ``nn.Module`` of either framework, or one whose shapes are not known yet.
    """
    if framework_of(model) is None:
        is_class = isinstance(model, type)
        hint = f" {model.__name__} is a class: give an object of it, {model.__name__}(...)." if is_class else ""
        raise SpecError(f"model: got a {type(model).__name__}; must be an nn.Module object of torch or OneFlow.{hint}")
    found: dict[int, tuple[list[str], dict[str, None], Tensor]] = {}
    for holder, name, parameter in _walk_with_holders(model, ""):
        names, types, _ = found.setdefault(id(parameter), ([], {}, parameter))
        names.append(name)
        types.update(dict.fromkeys(type_names(holder)))
    return [
        (
            Parameter(
                names[0],
                _shape(names[0], tensor),
                tuple(names[1:]),
                dtype_of(tensor),
                bool(tensor.requires_grad),
                tuple(types),
            ),
            tensor,
        )
        for names, types, tensor in found.values()
    ]


def type_names(module: Module) -> tuple[str, ...]:
    """Return the names of a module's class and of those that it is derived from, up to ``Module``.

    A class that stands for another framework's says the other's names in ``layered_lr_stands_for``.
    """
    stands_for: tuple[str, ...] | None = getattr(type(module), "layered_lr_stands_for", None)
    if stands_for is not None:
        return stands_for
    bases = [base.__name__ for base in type(module).__mro__ if base is not object]
    return tuple(bases[: bases.index("Module")]) if "Module" in bases else tuple(bases)


def list_modules(model: Module, prefix: str = "") -> list[tuple[str, Module]]:
    """Return every module with the prefix of its tensors' names, such as ``"body.0."``: once for each of its names."""
    found = [(prefix, model)]
    for name, child in model._modules.items():
        if child is not None:
            found += list_modules(child, prefix + _component(name))
    return found


def plain_name(name: str) -> str:
    """Return a name of ``named_parameters()`` as ``state_dict()`` has it: without the part of a checkpoint wrapper.

    Example:
        >>> plain_name("body._checkpoint_wrapped_module.weight")
        'body.weight'
    """
    parts = name.split(".")
    return ".".join(part for part in parts if part != CHECKPOINT_WRAPPER) if CHECKPOINT_WRAPPER in parts else name


def _component(name: str) -> str:
    """Return what a child of this name adds to the names of its tensors."""
    return "" if name == CHECKPOINT_WRAPPER else f"{name}."


def set_training(
    model: Module, frozen: Collection[str] = (), batch_norm: BatchNorm = "still", dropout: Dropout = "on"
) -> None:
    """Put a model into training mode, but leave frozen batch normalisations and dropouts in evaluation mode.

    A module with parameters is frozen if all of its own parameters are frozen. A module without parameters (a dropout,
    or a batch normalisation with ``affine=False``) is frozen if the innermost module around it that has parameters is
    frozen.

    Args:
        model: The model, of either framework.
        frozen: Names of the parameters that this phase freezes. Parameters that the user froze with
            ``requires_grad=False`` do not count.
        batch_norm: With ``"still"``, frozen modules with running statistics stay in evaluation mode.
        dropout: With ``"off"``, frozen dropouts stay in evaluation mode.
    """
    model.train()
    for module in find_still_modules(model, frozen, batch_norm, dropout):
        module.eval()


def find_still_modules(model: Module, frozen: Collection[str], batch_norm: BatchNorm, dropout: Dropout) -> list[Module]:
    """Return the modules that ``set_training`` leaves in evaluation mode."""
    if not frozen or (batch_norm == "moving" and dropout == "on"):
        return []
    held = {id(tensor) for parameter, tensor in parameters_of(model) if parameter.name in frozen}
    found: dict[int, Module] = {}
    moving: set[int] = set()  # a module that is used in several places must be frozen in all of them
    for module, tensors in _with_parameters(model, []):
        is_chosen = (batch_norm == "still" and _has_statistics(module)) or (dropout == "off" and _is_dropout(module))
        if is_chosen and tensors and all(id(tensor) in held for tensor in tensors):
            found[id(module)] = module
        else:
            moving.add(id(module))
    return [module for key, module in found.items() if key not in moving]


def set_trainable(model: Module, frozen: Collection[str], trainable: Iterable[Tensor] | None = None) -> None:
    """Switch gradients off for frozen parameters and on for the others, and drop the gradients of frozen ones.

    Args:
        model: The model, of either framework.
        frozen: Names of the frozen parameters.
        trainable: Parameter objects that get gradients when they are not frozen; None changes only frozen ones. All
            other parameters stay as they are.
    """
    free = None if trainable is None else {id(tensor) for tensor in trainable}
    for parameter, tensor in parameters_of(model):
        if parameter.name in frozen:
            tensor.requires_grad_(False)
            tensor.grad = None
        elif free is not None and id(tensor) in free:
            tensor.requires_grad_(True)


def trainable_parameters(model: Module) -> list[Tensor]:
    """Return the parameter objects with ``requires_grad=True``."""
    return [tensor for _, tensor in parameters_of(model) if tensor.requires_grad]


def trains_any(model: Module, frozen: Collection[str]) -> bool:
    """Return whether any parameter has ``requires_grad=True`` and is not one of the frozen ones."""
    return any(tensor.requires_grad and parameter.name not in frozen for parameter, tensor in parameters_of(model))


def _with_parameters(module: Module, around: list[Tensor]) -> Iterator[tuple[Module, list[Tensor]]]:
    """Yield each module with its parameters; if it has none, with those of the innermost module around it that has."""
    own = [tensor for _, tensor in _walk(module, "")] or around
    yield module, own
    for child in module._modules.values():
        if child is not None:
            yield from _with_parameters(child, own)


def _has_statistics(module: Module) -> bool:
    return module._buffers.get("running_mean") is not None


def _is_dropout(module: Module) -> bool:
    return "Dropout" in type(module).__name__ and not module._modules


def dtype_of(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype, such as ``"float32"``."""
    return str(tensor.dtype).rpartition(".")[2]


def _walk(module: Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for _, name, tensor in _walk_with_holders(module, prefix):
        yield name, tensor


def _walk_with_holders(module: Module, prefix: str) -> Iterator[tuple[Module, str, Tensor]]:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield module, prefix + name, parameter
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk_with_holders(child, prefix + _component(name))


def _shape(name: str, parameter: Tensor) -> tuple[int, ...]:
    try:
        return tuple(parameter.shape)
    except RuntimeError:  # torch's lazy layers have no shape until they have seen a batch
        raise SpecError(f"parameter {name!r} has no shape yet: send one batch through the model first.") from None
