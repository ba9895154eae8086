"""A moving average and clipping that leave parameters out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from layered_lr.errors import SpecError
from layered_lr.findings import Finding
from layered_lr.models.matching import match_names
from layered_lr.models.nn_modules import framework_of, parameters_of
from layered_lr_torch.audit.recipe import AuditedRecipe
from layered_lr_torch.torch_types import Tensor

_EMA_MEND = "average every parameter of the model, in copies: torch.optim.swa_utils.AveragedModel(model) does."


def find_missed_by_ema(recipe: AuditedRecipe, ema: Any) -> Iterator[Finding]:
    """Yield parameters that a moving average leaves out, has in another shape, or shares with the model.

    Raises:
        SpecError: ``ema`` is neither a module nor tensors.
    """
    training = {name: tensor for name, tensor in recipe.tensors.items() if name not in recipe.frozen}
    ema = _unwrap(ema)
    averaged = _named_average(recipe, ema)
    if averaged is None:
        tensors = _read_tensors("ema", ema)
        shared = {_storage(tensor) for tensor in tensors}
        wrong = {name for name, tensor in training.items() if _storage(tensor) in shared}
        left = [tuple(tensor.shape) for tensor in tensors]
        missing = set()
        for name, tensor in training.items():
            if tuple(tensor.shape) in left:
                left.remove(tuple(tensor.shape))
            else:
                missing.add(name)
    else:
        shared = {_storage(tensor) for tensor in averaged.values()}
        wrong = {name for name, tensor in training.items() if _storage(tensor) in shared and name in averaged}
        missing = {
            name for name, tensor in training.items() if name not in averaged or averaged[name].shape != tensor.shape
        }
    if missing:
        yield Finding(
            "ema-misses",
            f"The moving average lacks {len(missing)} of {len(training)} parameters that train.",
            _labels(recipe, missing),
            recipe.in_order(missing),
            "The averaged model has their first values, or none, beside averages of the others.",
            _EMA_MEND,
        )
    if wrong:
        yield Finding(
            "ema-misses",
            f"The moving average shares {len(wrong)} of {len(training)} parameters with the model.",
            _labels(recipe, wrong),
            recipe.in_order(wrong),
            "It is no average there: each update of one changes the other.",
            _EMA_MEND,
        )


def find_missed_by_clipping(recipe: AuditedRecipe, clipped: Any) -> Iterator[Finding]:
    """Yield parameters that train and are not clipped.

    Raises:
        SpecError: ``clipped`` has something else than tensors.
    """
    known = {id(tensor) for tensor in _read_tensors("clipped", clipped)}
    missing = {
        name
        for name, tensor in recipe.tensors.items()
        if name not in recipe.frozen and id(tensor) in recipe.groups_of and id(tensor) not in known
    }
    if missing:
        yield Finding(
            "clipping-misses",
            f"Clipping leaves out {len(missing)} of the parameters that the optimizer moves.",
            _labels(recipe, missing),
            recipe.in_order(missing),
            "Their gradients are not part of the norm and are never made smaller: a large one goes through.",
            "clip the parameters of all groups: [p for group in optimizer.param_groups for p in group['params']].",
        )


def _unwrap(ema: Any) -> Any:
    """The tensors inside an object that averages: torch_ema's, diffusers', YOLO's, or of a class with ``shadow``."""
    if framework_of(ema) == "torch" or isinstance(ema, Mapping | Iterable):
        return ema
    for name in ("shadow", "shadow_params", "ema_model", "ema", "module"):
        inner = getattr(ema, name, None)
        if framework_of(inner) == "torch" or isinstance(inner, Mapping | list | tuple):
            return inner
    return ema


def _named_average(recipe: AuditedRecipe, ema: Any) -> Mapping[str, Tensor] | None:
    """The tensors of an average by the model's names; None where they have no names."""
    if framework_of(ema) == "torch":
        named = {name: tensor for parameter, tensor in parameters_of(ema) for name in parameter.names}
    elif isinstance(ema, Mapping):
        named = dict(ema)
        if not all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in named.items()):
            raise SpecError("audit: ema is a mapping; must be tensors by the names of the model's parameters.")
    else:
        return None
    own = match_names(named, recipe.tensors)
    return {own[name]: tensor for name, tensor in named.items()}


def _read_tensors(what: str, given: Any) -> list[Tensor]:
    tensors = [given] if isinstance(given, torch.Tensor) else given
    if framework_of(given) == "torch":
        tensors = given.parameters()
    if isinstance(tensors, Iterable) and not isinstance(tensors, str | bytes | Mapping):
        found = list(tensors)
        if all(isinstance(each, torch.Tensor) for each in found):
            return found
    raise SpecError(f"audit: {what} is a {type(given).__name__}; must be tensors, such as model.parameters().")


def _storage(tensor: Tensor) -> tuple[int, int]:
    return (tensor.data_ptr(), tensor.numel()) if tensor.numel() and not tensor.is_meta else (id(tensor), 0)


def _labels(recipe: AuditedRecipe, names: set[str]) -> tuple[str, ...]:
    owners = {group.label for name in names for group in recipe.groups_of.get(id(recipe.tensors[name]), ())}
    return tuple(group.label for group in recipe.groups if group.label in owners)
