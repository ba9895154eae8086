"""Models of either framework as this library sees them: by name, without importing what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.matching import Parameter


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
