"""The dropouts of a torch model, found and set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from layered_lr.errors import SpecError
from layered_lr.models.matching import find_paths, nothing_left
from layered_lr.models.patterns import compile_pattern
from layered_lr.spelling import did_you_mean
from layered_lr_torch.torch_types import Module

_ATTRIBUTES = ("dropout", "attention_dropout", "drop_rate")  # of attention, of torchvision's DenseNet
_DEPTH = ("StochasticDepth", "DropPath")


class DropoutPlace(NamedTuple):
    """A probability of a model.

    Args:
        path: The module's.
        module: That has it.
        attribute: Its name there.
        drops_paths: Whether it is stochastic depth, which leaves out whole branches.
    """

    path: str
    module: Module
    attribute: str
    drops_paths: bool


def list_dropouts(model: Module) -> Iterator[DropoutPlace]:
    """Yield every dropout of a model, in model order."""
    for path, module in model.named_modules():
        kind = type(module).__name__
        if kind in _DEPTH:
            yield DropoutPlace(path, module, "p" if hasattr(module, "p") else "drop_prob", True)
        elif "Dropout" in kind and not module._modules and isinstance(getattr(module, "p", None), float | int):
            yield DropoutPlace(path, module, "p", False)
        elif path:
            for attribute in _ATTRIBUTES:
                if isinstance(vars(module).get(attribute), float):
                    yield DropoutPlace(path, module, attribute, False)


def set_dropout(model: Module, chosen: float | Mapping[str, float]) -> None:
    """Set the probabilities of a model's dropouts.

    Args:
        model: Is changed.
        chosen: For every dropout, stochastic depth aside; or by pattern (as in ``Group.match``, of modules' paths), the
            first that matches, and there stochastic depth too.

    Raises:
        SpecError: The model has no dropout for a probability above 0, or a pattern matches none that others
            before it have left.
    """
    places = list(list_dropouts(model))
    if not isinstance(chosen, Mapping):
        plain = [place for place in places if not place.drops_paths]
        if not plain and chosen:
            depth = " It has stochastic depth, which a pattern sets." if places else ""
            raise SpecError(f"dropout={chosen:g}: the model has no dropout; leave it out.{depth}")
        for place in plain:
            setattr(place.module, place.attribute, float(chosen))
        return
    paths = find_paths(place.path for place in places)
    left = list(places)
    for pattern, value in chosen.items():
        test = compile_pattern(pattern, paths)
        if not any(test(place.path) for place in places):
            names = [place.path for place in places]
            has = f" Its dropouts are {', '.join(names[:4])}{', …' if len(names) > 4 else ''}." if names else ""
            raise SpecError(
                f"dropout={{{pattern!r}: {value:g}}}: matches none of the model's {len(names)} dropouts."
                f"{did_you_mean(pattern, paths) or has}"
            )
        if not any(test(place.path) for place in left):
            raise nothing_left("dropout", pattern, value)
        for place in [place for place in left if test(place.path)]:
            setattr(place.module, place.attribute, float(value))
            left.remove(place)
