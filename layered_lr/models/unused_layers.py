"""A head that a user has set under a misspelt name: a layer for the data's classes that is never used."""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher
from typing import NamedTuple

from layered_lr.errors import SpecError
from layered_lr.models.answering_layer import is_linear, path_of_layer
from layered_lr.models.nn_modules import Module, list_modules, parameters_of
from layered_lr.spelling import find_nearest

_TYPO = 0.9  # how alike two names are of which one is misspelt: classifer and classifier, but not used and unused


class Use(NamedTuple):
    """What a forward pass uses.

    Args:
        tensors: The names of the model's tensors that it uses.
        width: How many numbers it answers with for an image; None where it answers with something else.
        answering: The paths of the layers that make the answer, in model order; None where they cannot be seen.
    """

    tensors: set[str]
    width: int | None
    answering: tuple[str, ...] | None


def list_outputs(model: Module, outputs: int) -> list[str]:
    """List the paths of linear layers and 1x1 convolutions with so many outputs, in model order, by their shapes.

    Args:
        model: Of either framework.
        outputs: That are looked for.
    """
    weights = (each for each, _ in parameters_of(model) if each.name.endswith(".weight") and is_linear(each.shape))
    is_layer = ("Linear", "Conv2d")
    return [
        path_of_layer(each.name)
        for each in weights
        if each.shape[0] == outputs and any(kind in each.types for kind in is_layer)
    ]


def find_unused(paths: Collection[str], used: Collection[str]) -> list[str]:
    """Return the layers of which a forward pass uses nothing.

    Args:
        paths: Of layers.
        used: Names of the tensors that it uses.
    """
    return [path for path in paths if not any(name.startswith(f"{path}.") for name in used)]


def refuse_unused(model: Module, paths: Collection[str], num_classes: int, use: Use, answering: str | None) -> None:
    """Refuse a model with a layer for the data's classes that it never uses, unless it may be left out on purpose.

    Args:
        model: Of either framework.
        paths: Of the layers with an output for each of the data's classes.
        num_classes: Of the data.
        use: What its forward passes use.
        answering: The path of a layer that ``head=`` could replace; None where there is none.

    Raises:
        SpecError: There is such a layer.
    """
    modules = {prefix.removesuffix("."): module for prefix, module in list_modules(model)}
    for path in find_unused(paths, use.tensors):
        attribute = _outermost_unused(path, use.tensors)
        parent, _, name = attribute.rpartition(".")
        near = find_nearest(name, [each for each in modules[parent]._modules if each != name])
        if use.width == num_classes and (near is None or _likeness(name, near) < _TYPO):
            continue  # it may be left out on purpose
        answers = "" if use.width == num_classes else f"; the model answers with {_describe_answer(use.width)}"
        hint = f" Did you mean to set {_joined(parent, near)!r}?" if near else " Use it there, or take it away."
        if not near and answering is not None and use.width not in (None, num_classes):
            hint += f" head={answering!r} replaces the layer that answers now."
        raise SpecError(
            f"model: {attribute!r} has a layer for the data's {num_classes} classes ({path}), and the forward pass "
            f"never uses it{answers}.{hint}"
        )


def _describe_answer(width: int | None) -> str:
    return "something else than a tensor of shape (images, numbers)" if width is None else f"{width} numbers"


def _outermost_unused(path: str, used: Collection[str]) -> str:
    """Find the outermost module around a layer of which nothing is used."""
    parts = path.split(".")
    around = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return next((each for each in around if find_unused([each], used)), path)


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name.casefold(), other.casefold()).ratio()


def _joined(parent: str, name: str | None) -> str:
    return f"{parent}.{name}" if parent else str(name)
