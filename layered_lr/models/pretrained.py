"""Pretrained weights: how those of a file fit a model, whose head may be for other classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Array, Weights
from layered_lr.errors import SpecError
from layered_lr.models.matching import find_common_prefix, match_names
from layered_lr.models.weight_files import check_numbers, read_tensor
from layered_lr.spelling import did_you_mean

_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
"""Names in the files of torchvision's DenseNets, which are older than its modules."""


_STATISTICS = ("running_mean", "running_var")


class Transform(NamedTuple):
    """What was done to the images that weights were trained on.

    Args:
        name: Of the weights.
        size: Pixels of a side.
        mean: Of each channel.
        std: Standard deviation of each channel.
    """

    name: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Pretrained(NamedTuple):
    """Weights that a model is to begin with.

    Args:
        name: What they are called in messages.
        arrays: By name, as the file has them; None where they are not read.
        transform: What goes with them; None where nobody knows.
    """

    name: str
    arrays: Mapping[str, Array] | None
    transform: Transform | None


class Fitted(NamedTuple):
    """Pretrained weights in a model.

    Args:
        arrays: By the model's names.
        new: Names of the head's parameters, which keep their first values.
    """

    arrays: dict[str, Array]
    new: tuple[str, ...]


def fit_pretrained(
    name: str, given: Weights, own: Mapping[str, Any], parameters: set[str], heads: Sequence[str]
) -> Fitted:
    """Find the arrays of a file that belong to a model.

    Names may have a prefix, which a wrapper has added. Auxiliary heads in the file are left out where the model has
    none. The head keeps its own first values where the file's has another number of classes, or is missing.

    Args:
        name: What the weights are called.
        given: The file's arrays.
        own: The model's parameters and buffers, by name: arrays, or a framework's tensors.
        parameters: Which of them are parameters.
        heads: The paths of the layers that answer.

    Raises:
        SpecError: These are the weights of another model, or numbers that do not fit its own (``check_numbers``), or
            without the running statistics of its normalisations.
    """
    named = _rename(given, own)
    found: dict[str, Array] = {}
    odd: list[str] = []
    for given_name, array in named.items():
        if given_name not in own:
            if not given_name.lower().startswith("aux") and not _is_under(given_name, heads):
                odd.append(given_name)
            continue
        shape = tuple(own[given_name].shape)
        if tuple(array.shape) != shape:
            if _is_under(given_name, heads):
                continue
            raise SpecError(
                f"pretrained={name!r}: are the weights of another model: {given_name!r} has shape {array.shape}, the "
                f"model's has {shape}. Give weights of this model."
            )
        mine = own[given_name]
        check_numbers(
            f"pretrained={name!r}", given_name, array, mine if isinstance(mine, np.ndarray) else read_tensor(mine)
        )
        found[given_name] = array
    missing = [each for each in own if each in parameters and each not in found and not _is_under(each, heads)]
    if missing:
        which = f"{len(missing)} of the model's parameters, {missing[0]!r} first"
        more = f", and hold {odd[0]!r}, which it has not.{did_you_mean(odd[0], own)}" if odd else "."
        raise SpecError(
            f"pretrained={name!r}: are the weights of another model: they lack {which}{more} Give weights of this "
            "model, or initial_weights=ll.InitialWeights(..., reset=[...])."
        )
    if odd:
        raise SpecError(
            f"pretrained={name!r}: holds {len(odd)} arrays that the model has not, {odd[0]!r} first, beside all of its "
            f"own. If they belong to something else, such as the training that made the file, save the others alone."
        )
    lost = [each for each in own if each.endswith(_STATISTICS) and each not in found and not _is_under(each, heads)]
    if lost:
        raise SpecError(
            f"pretrained={name!r}: lack {len(lost)} running statistics of normalisations, {lost[0]!r} first; a mean of "
            "0 and a variance of 1 do not go with trained weights. Save model.state_dict(), not parameters alone, or "
            "give initial_weights=ll.InitialWeights(...)."
        )
    answering = [each for each in own if each in parameters and _is_under(each, heads)]
    new = tuple(answering) if any(each not in found for each in answering) else ()
    return Fitted({each: array for each, array in found.items() if each not in new}, new)


def _is_under(name: str, paths: Sequence[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)


def _rename(given: Weights, own: Mapping[str, Any]) -> dict[str, Array]:
    """Give the arrays of a file the model's names, where they differ by a prefix, a wrapper or the version of it."""
    prefix = find_common_prefix(given, own)
    stripped = {name.removeprefix(prefix): array for name, array in given.items()}
    own_names = match_names(stripped, own)
    renamed: dict[str, Array] = {}
    for name, array in stripped.items():
        taken = own_names[name]
        old = _OLD_DENSENET.fullmatch(taken)
        if taken not in own and old is not None and f"{old[1]}{old[2]}" in own:
            taken = f"{old[1]}{old[2]}"
        renamed[taken] = array
    return renamed
