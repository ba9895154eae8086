"""Targets of samples; those and the class names that a data set of torch or Hugging Face tells without its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layered_lr.arrays import Array
from layered_lr.counts import read_whole_number
from layered_lr.data.arrays import widened
from layered_lr.errors import DataError
from layered_lr.printed import shown


def read_target(where: str, target: Any) -> Array:
    """Read what one sample is to be: a class number, or numbers of any shape.

    Args:
        where: Which sample it is, for messages.
        target: A number, an array or tensor, a list of numbers, or a Pillow image that is a mask.

    Raises:
        DataError: It is none of these.
    """
    if (number := read_whole_number(target)) is not None:
        return np.array(number)
    try:
        array = np.asarray(widened(target.detach().cpu()) if hasattr(target, "detach") else target)
    except Exception:  # of a ragged list, or whatever a foreign __array__ raises
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: its label is {shown(target)}: must be a class number; of a name class_names.index(name). Or "
            "numbers, as an array, for targets of another kind."
        )
    return array


def stack_targets(name: str, targets: Sequence[Array]) -> Array:
    """Put the targets of samples together; the first axis counts.

    Args:
        name: Of the data set, for messages.
        targets: From ``read_target``.

    Raises:
        DataError: Their shapes, or their kinds, differ.
    """
    first = targets[0]
    for index, target in enumerate(targets):
        if target.shape != first.shape or (target.dtype.kind == "f") != (first.dtype.kind == "f"):
            raise DataError(
                f"{name}[{index}]: its label is {target.dtype} of shape {target.shape}, but the first one is "
                f"{first.dtype} of shape {first.shape}: all must be alike."
            )
    return np.stack(targets)


def _is_told(key: str | int) -> bool:
    """Whether what a data set tells of its labels may be of these: not where another place in its tuples is meant."""
    return isinstance(key, str) or key == 1


def find_labels(source: Any, key: str | int) -> Any:
    """Find the list of labels of a data set; None where it has none, so that its samples must be read.

    What is found is compared with each sample's own label when the sample is read.

    Args:
        source: The data set.
        key: Of labels in its samples.
    """
    if not _is_told(key):
        return None
    length = len(source)
    column_names = getattr(source, "column_names", None)
    if isinstance(column_names, list) and key in column_names:  # of Hugging Face
        return _checked(source[key], length, any_numbers=True)
    indices, inner = getattr(source, "indices", None), getattr(source, "dataset", None)
    if inner is not None and indices is not None and type(source).__name__ == "Subset":
        own = find_labels(inner, key)
        return None if own is None else _checked(own[np.asarray(indices, np.int64)], length, any_numbers=True)
    parts = getattr(source, "datasets", None)
    if type(source).__name__ == "ConcatDataset" and parts:
        found = [find_labels(part, key) for part in parts]
        alike = (
            not any(each is None for each in found) and len({(each.dtype.kind, each.shape[1:]) for each in found}) == 1
        )
        return np.concatenate(found) if alike else None
    tensors = getattr(source, "tensors", None)
    if type(source).__name__ == "TensorDataset" and isinstance(tensors, tuple) and len(tensors) >= 2:
        return _checked(tensors[1], length, any_numbers=True)
    if getattr(source, "target_transform", None) is not None:
        return None
    return _checked(getattr(source, "targets", None), length)


def find_class_names(source: Any, key: str | int) -> list[str] | None:
    """Find the names of the classes; None where the data set tells none."""
    if not _is_told(key):
        return None
    features = getattr(source, "features", None)
    names = getattr(features.get(key), "names", None) if isinstance(features, Mapping) else None
    if names is None and getattr(source, "target_transform", None) is None:
        names = getattr(source, "classes", None)
    if names is None and type(source).__name__ == "Subset":
        return find_class_names(getattr(source, "dataset", None), key)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        return None
    return list(names) if 2 <= len(set(names)) == len(names) else None


def _checked(labels: Any, length: int, *, any_numbers: bool = False) -> Any:
    """The labels as an array, if they are one whole number for each sample, or ``any_numbers`` of one shape."""
    if labels is None or isinstance(labels, str | Mapping) or callable(labels):
        return None
    try:
        array = np.asarray(widened(labels.detach().cpu()) if hasattr(labels, "detach") else labels[:])
    except Exception:  # of something else by that name
        return None
    if any_numbers:
        return array if array.dtype.kind in "biuf" and array.shape[:1] == (length,) else None
    return array if array.dtype.kind in "iu" and array.shape == (length,) else None
