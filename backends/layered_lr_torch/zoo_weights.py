"""Pretrained weights of the zoo: which there are, where their file is, and what goes with them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from layered_lr.arrays import Array
from layered_lr.errors import DataError, SpecError
from layered_lr.files import describe_error
from layered_lr.models.pretrained import Transform
from layered_lr.models.weight_files import read_weights
from layered_lr.models.zoo import TIMM
from layered_lr.spelling import did_you_mean
from layered_lr_torch import models, zoo_building
from layered_lr_torch.weight_downloads import fetch


def has_weights(name: str, chosen: str) -> bool:
    """Whether a model has weights of a name.

    Args:
        name: Of the model; it is there.
        chosen: The name of weights, as the option has it.
    """
    try:
        find_weights(name, chosen)
    except SpecError:
        return False
    return True


def find_weights(name: str, chosen: str) -> Any:
    """Find weights of a model by their name; every question about them begins here.

    Args:
        name: Of the model.
        chosen: ``"DEFAULT"`` for the best; the name of an entry of torchvision's enumeration, with its class or
            without; or a tag of timm's, with the model's name or without.

    Returns:
        torchvision's entry, or timm's configuration.

    Raises:
        SpecError: There are none of that name.
    """
    zoo_building.check_name(name)
    if name.startswith(TIMM):
        return _find_in_timm(name, chosen)
    known = importlib.import_module("torchvision.models").get_model_weights(name)
    names = [each.name for each in known]
    own = chosen.removeprefix(f"{known.__name__}.")
    if names and own == "DEFAULT":
        return known.DEFAULT
    if own not in names:
        raise _no_such_weights(name, chosen, own, names)
    return known[own]


def _find_in_timm(name: str, chosen: str) -> Any:
    """timm's configuration of the weights that the option, or else the model's name, chooses by a tag."""
    timm = importlib.import_module("timm")
    model, _, tag = name.removeprefix(TIMM).partition(".")
    names = [each.partition(".")[2] for each in timm.list_pretrained(model)]
    own = chosen.removeprefix(TIMM).removeprefix(f"{model}.")
    if own == "DEFAULT":
        config = timm.get_pretrained_cfg(f"{model}.{tag}" if tag else model)
        own = "" if config is None else str(config.tag)
    if own not in names:
        raise _no_such_weights(name, chosen, own, names)
    if tag and own != tag:
        raise SpecError(
            f"pretrained={chosen!r}: the name of model {name!r} chooses the weights {tag!r} already. Give pretrained="
            f"True, or the model's name without them: {TIMM + model!r}."
        )
    return timm.get_pretrained_cfg(f"{model}.{own}")


def _no_such_weights(name: str, chosen: str, own: str, names: list[str]) -> SpecError:
    best = ", True for the best" if names else ""
    return SpecError(
        f"pretrained={chosen!r}: model {name!r} has {'the weights ' + ', '.join(names) if names else 'no weights'}; "
        f"give {'one of them' if names else 'none'}{best}, or the path of a file that is there."
        f"{did_you_mean(own, names)}"
    )


def find_transform(name: str, chosen: str) -> Transform:
    """Find what was done to the images that weights were trained on.

    Args:
        name: Of the model.
        chosen: The name of weights.

    Raises:
        SpecError: There are none of that name.
    """
    return _transform_of(find_weights(name, chosen))


def find_file_transform(name: str, file: str) -> Transform | None:
    """Find what was done to the images of a file of weights; None where nobody knows.

    Args:
        name: Of the model. One of timm with a tag says whose weights they are.
        file: The path; the libraries' own files say it by their names.
    """
    if not name.startswith(TIMM):
        known = list(importlib.import_module("torchvision.models").get_model_weights(name))
    elif "." in name:
        return _transform_of(find_weights(name, "DEFAULT")) if has_weights(name, "DEFAULT") else None
    else:
        timm = importlib.import_module("timm")
        known = [timm.get_pretrained_cfg(each) for each in timm.list_pretrained(name.removeprefix(TIMM))]
    own = Path(file).name
    entry = next((each for each in known if own == str(each.url or "").rpartition("/")[2]), None)
    return None if entry is None else _transform_of(entry)


def _transform_of(weights: Any) -> Transform:
    """What goes with an entry of torchvision's enumeration, or with a configuration of timm's."""
    if not hasattr(weights, "transforms"):
        size = int(weights.input_size[-1])
        return Transform(str(weights.tag or "timm's"), size, tuple(weights.mean), tuple(weights.std))
    made = weights.transforms()
    return Transform(weights.name, int(made.crop_size[0]), tuple(made.mean), tuple(made.std))


def read_named(name: str, chosen: str, progress: bool = True) -> Mapping[str, Array]:
    """Read weights of a model by their name; they are downloaded where they are not in torch's cache.

    Raises:
        SpecError: There are no weights of that name.
        DataError: They cannot be downloaded; the message says where to put the file.
    """
    if name.startswith(TIMM):
        return _read_timm(name, str(find_weights(name, chosen).tag))
    return read_weights(fetch_weights(name, chosen, progress), "pretrained")


def _read_timm(name: str, tag: str) -> Mapping[str, Array]:
    """Let timm load its own weights."""
    own = f"{name.removeprefix(TIMM).partition('.')[0]}.{tag}"
    try:
        made = importlib.import_module("timm").create_model(own, pretrained=True)
    except Exception as error:  # of timm, of the network, of Hugging Face's library
        raise DataError(
            f"pretrained: timm cannot load the weights of {own!r}: {describe_error(error)}. Give the path of a file "
            "as pretrained."
        ) from None
    return models.copy_state(made)


def fetch_weights(name: str, chosen: str, progress: bool = True) -> Path:
    """Return the file of weights in torch's cache, whole; it is downloaded where it is missing or damaged.

    Args:
        name: Of the model.
        chosen: The name of its weights.
        progress: Whether to show a bar.

    Raises:
        SpecError: There are no weights of that name.
        DataError: The file cannot be downloaded; the message says where to put it.
    """
    url = str(find_weights(name, chosen).url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return fetch(url, file, progress)
