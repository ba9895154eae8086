"""The zoo: models of torchvision and timm by name, which the torch package builds. Nothing here imports torch."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.models.catalogue import MODELS
from layered_lr.registry import load_zoo
from layered_lr.spelling import did_you_mean
from layered_lr.tools import is_installed

TIMM: Final = "timm:"
"""What the name of a model of timm begins with."""


class ZooFacts(NamedTuple):
    """What a list of models says of one.

    Args:
        name: The model's.
        parameters: How many numbers it learns, with a head for 1,000 classes.
        least_size: The least pixels of a side of square images that it trains on; None where none was found.
        groups: Paths that suggest themselves as groups, in model order.
        head: The path of the layer that answers.
    """

    name: str
    parameters: int
    least_size: int | None
    groups: tuple[str, ...]
    head: str


def is_catalogued(model: object) -> bool:
    """Whether a model is one that the library knows without torch, such as ``"mobilenet_v2"``."""
    return isinstance(model, str) and model in MODELS


def open_zoo(name: str, backend: str = "torch-eager", what: str = "") -> Any:
    """Import the module that makes models by name, and knows their weights.

    Args:
        name: Of the model that is asked for.
        backend: That is to train it, for the message.
        what: The option that names weights, for the message, where these are asked for.

    Raises:
        BackendUnavailable: torch is not installed.
        SpecError: The name is a misspelling of a model that needs no torch.
    """
    if not is_installed("torch"):
        if name in MODELS:
            raise BackendUnavailable(
                backend,
                f"finds weights by name ({what}) with torchvision, which needs torch, and torch is not installed",
                "Give the path of a .npz or .safetensors file, or install it: pip install 'layered-lr[torch]'.",
            )
        if hint := did_you_mean(name, MODELS):
            raise SpecError(f"model={name!r}: must be one of {', '.join(MODELS)} where torch is not installed.{hint}")
        raise BackendUnavailable(
            backend,
            f"builds model {name!r} with torch, also for OneFlow, and torch is not installed",
            f"Install it: pip install '{_install_name(name)}', or train {' or '.join(MODELS)}, or a callable that "
            "builds a OneFlow module.",
        )
    return load_zoo("torch")


def _install_name(name: str) -> str:
    return "timm" if name.startswith(TIMM) else "layered-lr[torch]"
