"""Models of either framework as this library sees them: by name, without importing what they are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

from layered_lr.errors import SpecError
from layered_lr.models.parameter import Parameter


def framework_of(model: Any) -> str | None:
    """``"torch"`` or ``"oneflow"`` for an ``nn.Module`` object, None for anything else."""
    for base in type(model).__mro__:
        root = base.__module__.split(".")[0]
        if base.__name__ == "Module" and root in ("torch", "oneflow"):
            return root
    return None


def parameters_of(model: Any) -> list[tuple[Parameter, Any]]:
    """Every parameter of a model with the framework's own object, each once, in model order.

    Where one object stands under several names (tied weights), the first is its name and the others are
    aliases; both frameworks' ``named_parameters()`` leave the others out.

    Raises:
        SpecError: Not an ``nn.Module`` of either framework, or one whose shapes are not known yet.
    """
    if framework_of(model) is None:
        raise SpecError(f"{type(model).__name__} is not an nn.Module of torch or OneFlow.")
    found: dict[int, tuple[list[str], Any]] = {}
    for name, parameter in _walk(model, ""):
        found.setdefault(id(parameter), ([], parameter))[0].append(name)
    return [
        (Parameter(names[0], _shape(names[0], tensor), tuple(names[1:]), dtype_of(tensor)), tensor)
        for names, tensor in found.values()
    ]


def set_training(
    model: Any,
    frozen: Collection[str] = (),
    batch_norm: Literal["still", "moving"] = "still",
    dropout: Literal["on", "off"] = "on",
) -> None:
    """Bring a model into training mode, except for what is to hold still in its frozen parts.

    What parameters are frozen does not tell it all of a module without any. A batch normalisation without parameters
    of its own (``affine=False``) and a dropout go with the innermost module around them that holds parameters: they are
    frozen where all of those are. A batch normalisation with parameters is frozen where all of its own are, whatever
    the block around it does.

    Args:
        model: Of either framework.
        frozen: Names of the parameters that do not train in this phase; those with ``requires_grad=False`` of their
            own are no matter of the phase.
        batch_norm: ``"still"``: frozen modules with running statistics are in evaluation mode.
        dropout: ``"off"``: frozen dropouts are.
    """
    model.train()
    for module in find_still_modules(model, frozen, batch_norm, dropout):
        module.eval()


def find_still_modules(
    model: Any, frozen: Collection[str], batch_norm: Literal["still", "moving"], dropout: Literal["on", "off"]
) -> list[Any]:
    """The modules that ``set_training`` leaves in evaluation mode."""
    if not frozen or (batch_norm == "moving" and dropout == "on"):
        return []
    held = {id(tensor) for parameter, tensor in parameters_of(model) if parameter.name in frozen}
    found: dict[int, Any] = {}
    moving: set[int] = set()  # a module that stands in several places has to be frozen in each
    for module, tensors in _with_parameters(model, []):
        is_chosen = (batch_norm == "still" and _has_statistics(module)) or (dropout == "off" and _is_dropout(module))
        if is_chosen and tensors and all(id(tensor) in held for tensor in tensors):
            found[id(module)] = module
        else:
            moving.add(id(module))
    return [module for key, module in found.items() if key not in moving]


def set_trainable(model: Any, frozen: Collection[str], trainable: Iterable[Any] | None = None) -> None:
    """Have no gradients computed for frozen parameters, and drop those they have.

    Args:
        model: Of either framework.
        frozen: Names.
        trainable: Parameter objects that have gradients while they are not frozen; None is those that have them now.
            All others stay without.
    """
    free = None if trainable is None else {id(tensor) for tensor in trainable}
    for parameter, tensor in parameters_of(model):
        if parameter.name in frozen:
            tensor.requires_grad_(False)
            tensor.grad = None
        elif free is not None and id(tensor) in free:
            tensor.requires_grad_(True)


def trainable_parameters(model: Any) -> list[Any]:
    """The parameter objects that gradients are computed for."""
    return [tensor for _, tensor in parameters_of(model) if tensor.requires_grad]


def _with_parameters(module: Any, around: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Each module with the parameters that it holds, or else those of the innermost module around it that has any."""
    own = [tensor for _, tensor in _walk(module, "")] or around
    yield module, own
    for child in module._modules.values():
        if child is not None:
            yield from _with_parameters(child, own)


def _has_statistics(module: Any) -> bool:
    return module._buffers.get("running_mean") is not None


def _is_dropout(module: Any) -> bool:
    return "Dropout" in type(module).__name__ and not module._modules


def dtype_of(tensor: Any) -> str:
    """A tensor's dtype by its name alone, such as ``"float32"``."""
    return str(tensor.dtype).rpartition(".")[2]


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, parameter
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{prefix}{name}.")


def _shape(name: str, parameter: Any) -> tuple[int, ...]:
    try:
        return tuple(parameter.shape)
    except RuntimeError:  # torch's lazy layers have no shape before their first batch
        raise SpecError(f"parameter {name!r} has no shape yet: send one batch through the model first.") from None
