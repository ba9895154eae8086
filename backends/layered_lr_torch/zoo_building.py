"""Models by name: torchvision's classifiers, and timm's where it is installed. What they are is read off them.

A model is first built without numbers (on torch's ``meta`` device), which costs a tenth of a second whatever its size.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from layered_lr.errors import BackendUnavailable, SpecError
from layered_lr.files import describe_error
from layered_lr.models.zoo import TIMM, ZooFacts
from layered_lr.spelling import did_you_mean
from layered_lr.tools import is_installed
from layered_lr_torch.heads import find_head_path, list_outputs, put_head
from layered_lr_torch.torch_types import Module

_UNUSUAL_CLASSES = 12347  # a layer that has as many outputs is one that answers
_BATCH = 2  # a batch normalisation refuses to train on one image
_SIZES = (1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224, 256, 448, 512)
_OPTIONAL = {"aux_logits": False, "init_weights": True}
"""Arguments of constructors that are given where they are taken.

A run learns from the answer alone, so auxiliary heads would learn nothing. googlenet and inception_v3 warn where nobody
says how they are to be initialised.
"""


def list_names() -> list[str]:
    """List torchvision's classifiers by name."""
    return list(_torchvision().list_models(module=_torchvision()))


def list_timm_names() -> list[str]:
    """List timm's models, as ``timm:NAME``; none where it is not installed."""
    if not is_installed("timm"):
        return []
    return [TIMM + name for name in importlib.import_module("timm").list_models()]


def check_name(name: str) -> None:
    """Refuse a name that no model has.

    Raises:
        SpecError: Neither torchvision nor timm has such a model.
        BackendUnavailable: The library that would have it is not installed.
    """
    if name.startswith(TIMM):
        _check_timm_name(name)
        return
    known = ["mobilenet_v2", *list_names()]
    if name not in known:
        hint = did_you_mean(name, known)
        if not hint and TIMM + name in list_timm_names():
            hint = f" Did you mean {TIMM + name!r}?"
        raise SpecError(
            f"model={name!r}: must be the name of one of torchvision's {len(known) - 1} classifiers (`layered-lr "
            "models` lists them), timm:NAME, or a callable that builds an nn.Module (in a command or a recipe its "
            f"import path, package.module:callable).{hint}"
        )


def _check_timm_name(name: str) -> None:
    timm = _timm()
    known = [TIMM + each for each in timm.list_models()]
    own, _, tag = name.partition(".")  # timm:resnet18.a1_in1k names weights too
    if own not in known:
        hint = did_you_mean(own, known) if own != TIMM else " Give a name behind it, such as 'timm:resnet18'."
        raise SpecError(
            f"model={name!r}: timm {timm.__version__} has no such model.{hint} It has {len(known)}: timm.list_models()."
        )
    if tag:
        try:
            timm.get_pretrained_cfg(name.removeprefix(TIMM))
        except RuntimeError:
            tags = [each.partition(".")[2] for each in timm.list_pretrained(own.removeprefix(TIMM))]
            raise SpecError(
                f"model={name!r}: timm {timm.__version__} has no weights {tag!r} of that model."
                f"{did_you_mean(tag, tags)} It has {', '.join(tags) or 'none'}."
            ) from None


def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.models")
    except Exception as error:  # a torchvision of another torch raises more than ImportError
        raise BackendUnavailable(
            "torch-eager",
            f"takes models by name from torchvision, which cannot be imported: {describe_error(error)}",
            "Install it with: pip install 'layered-lr[torch]'.",
        ) from None


def _timm() -> Any:
    what = "is not installed"
    try:
        if is_installed("timm"):
            return importlib.import_module("timm")
    except Exception as error:  # as above
        what = f"cannot be imported: {describe_error(error)}"
    raise BackendUnavailable(
        "torch-eager", f"takes models timm:NAME from timm, which {what}", "Install it with: pip install timm."
    )


def make(name: str, num_classes: int, options: Mapping[str, Any]) -> Module:
    """Make a model with the weights that its constructor draws.

    Args:
        name: Of the model; it is there.
        num_classes: Outputs.
        options: Other arguments of the constructor, from ``find_options``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constructors about themselves
        if name.startswith(TIMM):
            made: Module = _timm().create_model(name.removeprefix(TIMM), num_classes=num_classes, **options)
        else:
            made = _torchvision().get_model(name, num_classes=num_classes, **options)
    return made


class _CountsOnCpu(TorchFunctionMode):
    """Lets constructors count with real numbers, while their weights have none."""

    def __torch_function__(
        self, func: Any, types_: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.arange, torch.linspace, torch.tensor) and kwargs.get("device") is None:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def make_empty(build: Callable[[], Module]) -> Module:
    """Build a model without numbers, on torch's ``meta`` device."""
    with torch.device("meta"), _CountsOnCpu():
        made = build()
    return made.to("meta")


@functools.cache
def _takes_argument(name: str, argument: str, value: Any) -> bool:
    """Whether a model's constructor takes an argument, and does not only let any pass."""
    return _accepts(name, argument, value) and not _accepts(name, "no_such_argument", 0)


@functools.cache
def _accepts(name: str, argument: str, value: Any) -> bool:
    try:
        make_empty(lambda: make(name, _UNUSUAL_CLASSES, {argument: value}))
    except TypeError:
        return False
    except Exception:  # it is taken, and this value cannot be
        return True
    return True


def _optional_arguments(name: str) -> dict[str, Any]:
    """Those of ``_OPTIONAL`` that a model's constructor takes."""
    return {argument: value for argument, value in _OPTIONAL.items() if _takes_argument(name, argument, value)}


def _size_arguments(name: str, height: int, width: int) -> Iterator[Mapping[str, Any]]:
    """Yield the ways to tell a constructor the size of the images; most take none."""
    if name.startswith(TIMM):
        known: dict[str, Any] = {"img_size": (height, width)}
    else:
        known = {"image_size": height, "input_size": (height, width)}
    for argument, value in known.items():
        if _takes_argument(name, argument, 224 if isinstance(value, int) else (224, 224)):
            yield {argument: value}


@functools.cache
def find_options(name: str, image_shape: tuple[int, int, int]) -> Mapping[str, Any] | None:
    """Find the arguments with which a model's constructor makes one that takes such images.

    Args:
        name: Of the model; it is there.
        image_shape: (channels, height, width).

    Returns:
        The arguments; None where no model of that name takes such images.
    """
    channels, height, width = image_shape
    own = _optional_arguments(name)
    if name.startswith(TIMM) and channels != 3:
        own["in_chans"] = channels
    if takes(_empty(name, tuple(own.items())), image_shape):
        return own
    for more in _size_arguments(name, height, width):
        try:
            model = make_empty(functools.partial(make, name, _UNUSUAL_CLASSES, {**own, **more}))
        except Exception:  # whatever a constructor raises about a size that cannot be
            continue
        if takes(model, image_shape):
            return {**own, **more}
    return None


@functools.lru_cache(maxsize=4)
def _empty(name: str, options: tuple[tuple[str, Any], ...]) -> Module:
    return make_empty(functools.partial(make, name, _UNUSUAL_CLASSES, dict(options)))


def takes(model: Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether a model without numbers trains on such images."""
    try:
        model.train()
        model(torch.zeros((_BATCH, *image_shape), device="meta"))
    except Exception as error:  # whatever a forward pass raises
        return _is_about_autocast(error) and _takes_on_cpu(model, image_shape)
    return True


def _is_about_autocast(error: Exception) -> bool:
    """Whether a forward pass ended at ``autocast`` for the device of its tensors, which no ``meta`` device has."""
    return isinstance(error, RuntimeError) and ("unsupported scalarType" in str(error) or "autocast" in str(error))


def _takes_on_cpu(model: Module, image_shape: tuple[int, int, int]) -> bool:
    """``takes`` with tensors that say that they are on the CPU: slower, and without numbers too."""
    model = copy.deepcopy(model)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")(torch.zeros((_BATCH, *image_shape)))
    except Exception:  # as above
        return False
    return True


@functools.cache
def find_least_size(name: str) -> int | None:
    """Find the least number of pixels of a side of square images that a model trains on; None where there is none."""
    return search_least_size(lambda size: find_options(name, (3, size, size)) is not None)


def search_least_size(takes: Callable[[int], bool]) -> int | None:
    """Search the least number of pixels of a side of square images that a model takes.

    Args:
        takes: Whether it takes images of such a side.

    Returns:
        The side; None where the model takes none of some usual ones.
    """
    failed = 0
    for size in _SIZES:
        if takes(size):
            break
        failed = size
    else:
        return None
    while size - failed > 1:
        middle = (size + failed) // 2
        if takes(middle):
            size = middle
        else:
            failed = middle
    return size


def check_size(name: str, image_shape: tuple[int, int, int]) -> Mapping[str, Any]:
    """Return the arguments of a constructor for such images.

    Raises:
        SpecError: No model of that name takes them.
    """
    options = find_options(name, image_shape)
    if options is not None:
        return options
    channels, height, width = image_shape
    if channels != 3 and find_options(name, (3, height, width)) is not None:
        raise SpecError(f"model={name!r}: takes images of 3 channels, but the data has {channels}.")
    least = find_least_size(name)
    if least is None:
        raise SpecError(f"model={name!r}: takes no images of {height}x{width} pixels, nor any other square ones.")
    is_square = height == width or all(find_options(name, (channels, side, side)) is None for side in (height, width))
    size = _next_size(name, least, max(height, width))
    raise wrong_size(f"model={name!r}", image_shape, least, size, wants_square=not is_square)


def wrong_size(
    model: str, image_shape: tuple[int, ...], least: int, size: int, wants_square: bool = False
) -> SpecError:
    """Make the error for images of a size that a model does not take.

    Args:
        model: As the message names it.
        image_shape: (channels, height, width).
        least: Pixels of a side of the smallest square images that it takes.
        size: The ``image_size`` to give.
        wants_square: Whether it takes images of such a height or width, but square ones alone.
    """
    _, height, width = image_shape
    why = "are too small" if min(height, width) < least else "do not fit"
    why = "are not square, and it takes square ones alone" if wants_square else why
    return SpecError(
        f"{model}: images of {height}x{width} pixels {why}: the least that it takes is {least}x{least}. Give "
        f"image_size={size}, which resizes the images, or another model."
    )


def _next_size(name: str, least: int, wanted: int) -> int:
    """A size that a model takes, not below the wanted one if there is such a one near."""
    near = [size for size in range(wanted, wanted + 33) if size > least] if wanted > least else []
    return next((size for size in near if find_options(name, (3, size, size)) is not None), least)


def find_outputs(name: str, options: Mapping[str, Any]) -> list[str]:
    """Find the paths of the layers that answer: the head, and auxiliary ones before it."""
    model = make_empty(functools.partial(make, name, _UNUSUAL_CLASSES, options))
    return list_outputs(model, _UNUSUAL_CLASSES)


def make_with_head(name: str, num_classes: int, options: Mapping[str, Any], head: str) -> Module:
    """Make a model whose head has one output for each class.

    Args:
        name: Of the model; it is there.
        num_classes: Of the data.
        options: From ``check_size``.
        head: ``"auto"``, or the path of the layer to put a new one in the place of.

    Raises:
        SpecError: There is no such layer, or none that can be a head.
    """
    if head == "auto":
        return make(name, num_classes, options)
    if head in find_outputs(name, options):
        return make(name, num_classes, options)
    model = make(name, num_classes, options)
    put_head(model, find_head_path(model, head), num_classes)
    return model


def describe(name: str) -> ZooFacts:
    """Find what a list of models says of one."""
    least = find_least_size(name)
    options = None if least is None else find_options(name, (3, least, least))
    model = make_empty(functools.partial(make, name, 1000, options or _optional_arguments(name)))
    outputs = find_outputs(name, options or _optional_arguments(name))
    groups = [path for path, child in model.named_children() if any(True for _ in child.parameters())]
    count = sum(parameter.numel() for parameter in model.parameters())
    return ZooFacts(name, count, least, tuple(groups), outputs[-1] if outputs else "")
