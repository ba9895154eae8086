"""Weights that the user gives, read from a file or a mapping, and checked against a model by name and shape."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import BFLOAT16, Array, Weights, find_bfloat16, kind_of
from layered_lr.errors import DataError, SpecError
from layered_lr.files import UnreadableError, as_path, describe_error, one_line, read_archive
from layered_lr.models.matching import find_common_prefix, find_paths, match_names
from layered_lr.models.nn_modules import dtype_of
from layered_lr.models.patterns import compile_pattern
from layered_lr.models.wrappers import find_prefixes, strip_wrappers
from layered_lr.registry import load_state_dict_reader
from layered_lr.spelling import did_you_mean
from layered_lr.state.safetensors_files import read_safetensors

WEIGHT_FILES = (".npz", ".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""How the names of files of weights end. Those from ``.pth`` on are torch's; ``.bin`` is Hugging Face's, ``.ckpt``
Lightning's, ``.tar`` (``checkpoint.pth.tar``) that of torch's ImageNet example."""

_RESULT = '"format": "layered_lr.Result '  # in the file that Result.save writes, beside its arrays
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")  # of Lightning, torch's tutorials, timm, DeepSpeed
_DEEPEST = 6  # tables in tables
_COUNT = "n_averaged"  # beside the weights in torch.optim.swa_utils.AveragedModel, whose other names begin so:
_AVERAGED = "module."


def read_weights(source: str | Path | Mapping[str, object], what: str = "initial_weights") -> dict[str, Array]:
    """Read arrays by name.

    Args:
        source: A mapping of names to arrays, or the path of a file: ``.npz``, ``.safetensors``, or one that torch has
            written (``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.tar``). torch reads the last ones, so it must be
            installed; it loads only tensors.
        what: The option that messages speak of.

    Raises:
        SpecError: Neither a mapping nor such a path.
        DataError: The file is missing, damaged, contains something other than arrays, or more than one set of weights.
    """
    if isinstance(source, Mapping):
        return _arrays(find_weights(source, what), what)
    if not isinstance(source, str | Path):
        raise SpecError(f"{what}: got a {type(source).__name__}; must be a path or a mapping of arrays.")
    path = as_path(what, source)
    if not names_weight_file(path.name):
        raise SpecError(f"{what}={str(path)!r}: must end in one of {', '.join(WEIGHT_FILES)}.")
    if not path.is_file():
        why = "is no plain file; give the path of one" if os.path.lexists(path) else "there is no such file; check it"
        raise DataError(f"{what}={str(path)!r}: {why}.")
    return {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix.lower(), _torch)(path)


def names_weight_file(name: str) -> bool:
    """Whether a name ends as those of files of weights do, in whatever capitals.

    Example:
        >>> names_weight_file("BEST.PTH"), names_weight_file("IMAGENET1K_V1")
        (True, False)
    """
    return name.lower().endswith(WEIGHT_FILES)


def find_weights(table: Mapping[Any, Any], said: str = "initial_weights") -> Mapping[Any, Any]:
    """Return the weights in what a training script saved: they may be inside, under one name or several.

    Args:
        table: What it saved.
        said: What messages call it.

    Raises:
        DataError: It holds more than one set of weights, such as a model's and their moving average.

    Example:
        >>> find_weights({"epoch": 3, "model": {"state_dict": {"head.weight": [1.0]}}})
        {'head.weight': [1.0]}
    """
    inside = _list_inside(table)
    if len(inside) > 1:
        first, second = [".".join(place) for place in inside][:2]
        keys = "".join(f"[{key!r}]" for key in next(iter(inside)))
        raise DataError(
            f"{said}: holds {len(inside)} sets of weights, such as {first!r} and {second!r}. Give the one you mean, "
            f"as ll.InitialWeights(torch.load(path){keys}) or in a file of its own."
        )
    weights = next(iter(inside.values()), table)
    if _COUNT in weights and all(str(name).startswith(_AVERAGED) for name in weights if name != _COUNT):
        return {name: value for name, value in weights.items() if name != _COUNT}
    return weights


def _list_inside(table: Mapping[Any, Any], depth: int = 0) -> dict[tuple[str, ...], Mapping[Any, Any]]:
    """The sets of weights in a table, each by the keys that lead to it; none where the table may be one itself."""
    if depth == _DEEPEST:  # a table of a hostile file may hold itself
        return {}
    inner = {name: value for name, value in table.items() if isinstance(name, str) and isinstance(value, Mapping)}
    chosen = next((name for name in _CONTAINERS if name in inner), None)
    if chosen is None and any((_count_axes(value) or 0) > 0 for value in table.values()):
        return {}
    found: dict[tuple[str, ...], Mapping[Any, Any]] = {}
    for name, value in inner.items():
        below = _list_inside(value, depth + 1)
        if not below and (name == chosen or (value and all(_count_axes(each) is not None for each in value.values()))):
            below = {(): value}
        found.update({(name, *place): weights for place, weights in below.items()})
    if chosen is None:
        return found
    names = [_names_of(weights) for place, weights in found.items() if place[0] == chosen]
    return {place: weights for place, weights in found.items() if place[0] == chosen or _names_of(weights) in names}


def _count_axes(value: Any) -> int | None:
    """How many axes an array or a tensor has; None for anything else, which may raise what it likes."""
    try:
        return len(value.shape)
    except Exception:
        return None


def _names_of(weights: Mapping[Any, Any]) -> set[str]:
    """The names of one set of weights, to tell whether another one is of the same model."""
    return set(strip_wrappers(str(name) for name in weights if name != _COUNT).values())


def _arrays(weights: Mapping[Any, Any], said: str) -> dict[str, Array]:
    return {str(name): _array(str(name), value, said) for name, value in weights.items()}


def _array(name: str, value: object, said: str) -> Array:
    """Turn an array, or a tensor of either framework, into an array of numbers."""
    try:
        array = read_tensor(value) if hasattr(value, "detach") else np.asarray(value)
    except Exception as error:  # a tensor or an object of the user may raise anything
        raise DataError(f"{said}: {name!r} is not an array of numbers: {one_line(error)}") from None
    if kind_of(array) not in "fiubc":
        raise DataError(f"{said}: {name!r} holds {array.dtype}; must be numbers.")
    return in_native_order(array)


def in_native_order(array: Array) -> Array:
    """Return an array with its bytes in this machine's order, as torch and OneFlow want them."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def read_tensor(tensor: Any) -> Array:
    """Copy a tensor of either framework to an array of its dtype; ``numpy()`` has no bfloat16."""
    here = tensor.detach().cpu()
    if dtype_of(here) == BFLOAT16:
        return np.asarray(here.float().numpy()).astype(find_bfloat16())
    return np.asarray((here.resolve_conj().resolve_neg() if hasattr(here, "resolve_conj") else here).numpy())


def _npz(path: Path) -> dict[str, Array]:
    try:
        arrays = read_archive(path)
    except UnreadableError as error:
        raise DataError(f"{path}: not a readable .npz of arrays: {error}") from None
    if _RESULT in str(arrays.get("about", "")):
        raise DataError(
            f"{path}: is a result of a run, not weights alone. Give "
            f"initial_weights=ll.Result.load({str(path)!r}).weights, or a file that numpy.savez has written of these."
        )
    return {name: in_native_order(array) for name, array in arrays.items()}


def _safetensors(path: Path) -> dict[str, Array]:
    try:
        return read_safetensors(path)
    except UnreadableError as error:
        raise DataError(f"{path}: not a readable .safetensors: {error}") from None


def _torch(path: Path) -> dict[str, Array]:
    try:
        read_state_dict = load_state_dict_reader()
    except ImportError:
        raise DataError(
            f"{path}: reading a {path.suffix} file needs torch, which is not installed (pip install "
            "'layered-lr[torch]'). Without torch, give a .npz or .safetensors file."
        ) from None
    try:
        tensors = read_state_dict(path)
    except Exception as error:  # errors of torch, pickle and zipfile
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            raise DataError(
                f"{path}: holds other objects than tensors, such as a whole model, and nothing else is unpickled. Save "
                "its weights alone: torch.save(model.state_dict(), path)."
            ) from None
        if isinstance(error, UnreadableError):
            why = str(error)
        elif isinstance(error, pickle.UnpicklingError | KeyError | IndexError | EOFError):  # of other bytes
            why = "it is no file of torch"
        else:
            why = describe_error(error)
        raise DataError(
            f"{path}: not a readable state_dict: {why}. Give a file that "
            "torch.save(model.state_dict(), path) has written."
        ) from None
    return _arrays(find_weights(tensors, str(path)), str(path))


def merge_weights(start: Weights, parameters: Sequence[str], given: Weights, reset: Sequence[str]) -> dict[str, Array]:
    """Return the state that a model starts from: the given arrays, except those that ``reset`` names.

    Args:
        start: The model's own first state: every parameter and buffer.
        parameters: The names of the parameters in it. Buffers may be missing in ``given``, parameters may not.
        given: The user's arrays.
        reset: Patterns (as in ``Group.match``) of the arrays that keep their own first values, given or not.

    Raises:
        SpecError: A name that the model does not have, another shape or kind of number, NaN or infinity, a parameter
            that is missing, or a pattern that matches nothing.
    """
    fresh = find_reset(start, reset)
    prefix = find_common_prefix(given, start)
    if all(name.startswith(prefix) for name in given):
        given = {name.removeprefix(prefix): array for name, array in given.items()}
    own_names = match_names(given, start)
    wanted = {own_names[name]: array for name, array in given.items() if own_names[name] not in fresh}
    for name, array in wanted.items():
        _check(name, array, start)
    missing = [name for name in parameters if name not in wanted and name not in fresh]
    if missing:
        raise SpecError(
            f"initial_weights lacks {len(missing)} of the model's {len(parameters)} parameters, {missing[0]!r} first. "
            "Name what to initialise instead: ll.InitialWeights(..., reset=[...]) or --reset-weights."
        )
    return {name: wanted[name].astype(own.dtype) if name in wanted else own for name, own in start.items()}


def find_reset(start: Weights, reset: Sequence[str]) -> set[str]:
    """Return the names of the arrays that ``reset`` names.

    Args:
        start: Every parameter and buffer of a model.
        reset: Patterns, as in ``Group.match``.

    Raises:
        SpecError: One of them matches nothing.
    """
    plain = strip_wrappers(start)  # a pattern matches as in Group.match: with the parts of a wrapper or without
    paths = find_paths(start)
    tests = {pattern: compile_pattern(pattern, paths) for pattern in reset}
    taken = {pattern: [name for name in start if test(name) or test(plain[name])] for pattern, test in tests.items()}
    for pattern, names in taken.items():
        if not names:
            raise SpecError(
                f"initial_weights: reset={pattern!r} matches none of the model's {len(start)} arrays: name what "
                "the model has, such as its last layer."
            )
    return {name for names in taken.values() for name in names}


def _check(name: str, array: Array, start: Weights) -> None:
    if name not in start:
        for wrapper in find_prefixes(name)[1:]:
            if name.removeprefix(wrapper) in start:
                raise SpecError(
                    f"initial_weights: the model has no {name!r}: a wrapper has added {wrapper!r}. Give the arrays "
                    f"without it: {{name.removeprefix({wrapper!r}): array for name, array in weights.items()}}"
                )
        raise SpecError(f"initial_weights: the model has no {name!r}.{did_you_mean(name, start)}")
    own = start[name]
    if array.shape != own.shape:
        module = name.rpartition(".")[0] or name
        raise SpecError(
            f"initial_weights: {name!r} has shape {array.shape}, the model's has {own.shape}. "
            f"To initialise it instead: ll.InitialWeights(..., reset=[{module!r}]) or --reset-weights {module}."
        )
    check_numbers("initial_weights", name, array, own)


def check_numbers(what: str, name: str, array: Array, own: Array) -> None:
    """Refuse an array whose numbers do not fit a model's.

    Args:
        what: What was given, for the message.
        name: Of the array.
        array: As given.
        own: The model's array of that name, of the same shape.

    Raises:
        SpecError: It holds another kind of number, NaN, infinity, or numbers too large for the model's dtype.
    """
    if kind_of(array) != kind_of(own):
        raise SpecError(f"{what}: {name!r} holds {array.dtype}, but the model's holds {own.dtype}.")
    with np.errstate(over="ignore"):
        taken = array.astype(own.dtype)
        if kind_of(array) in "fc" and not (np.isfinite(taken) | (taken == own)).all():  # a mask of -inf is its own
            raise SpecError(
                f"{what}: {name!r} holds NaN or infinity, or numbers too large for {own.dtype}: all must be finite."
            )
