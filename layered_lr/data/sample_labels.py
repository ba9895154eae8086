"""Labels and class names that a data set of torch or Hugging Face tells without reading its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def find_labels(source: Any, key: str | int) -> Any:
    """Find the list of labels of a data set; None where it has none, so that its samples must be read.

    What is found is compared with each sample's own label when the sample is read.

    Args:
        source: The data set.
        key: Of labels in its samples.
    """
    length = len(source)
    column_names = getattr(source, "column_names", None)
    if isinstance(column_names, list) and key in column_names:  # of Hugging Face
        return _checked(source[key], length)
    indices, inner = getattr(source, "indices", None), getattr(source, "dataset", None)
    if inner is not None and indices is not None and type(source).__name__ == "Subset":
        own = find_labels(inner, key)
        return None if own is None else _checked(own[np.asarray(indices, np.int64)], length)
    parts = getattr(source, "datasets", None)
    if type(source).__name__ == "ConcatDataset" and parts:
        found = [find_labels(part, key) for part in parts]
        return None if any(each is None for each in found) else np.concatenate(found)
    tensors = getattr(source, "tensors", None)
    if type(source).__name__ == "TensorDataset" and isinstance(tensors, tuple) and len(tensors) >= 2:
        return _checked(tensors[1], length)
    if getattr(source, "target_transform", None) is not None:
        return None
    return _checked(getattr(source, "targets", None), length)


def find_class_names(source: Any, key: str | int) -> list[str] | None:
    """Find the names of the classes; None where the data set tells none."""
    features = getattr(source, "features", None)
    names = getattr(features.get(key), "names", None) if isinstance(features, Mapping) else None
    if names is None and getattr(source, "target_transform", None) is None:
        names = getattr(source, "classes", None)
    if names is None and type(source).__name__ == "Subset":
        return find_class_names(getattr(source, "dataset", None), key)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        return None
    return list(names) if 2 <= len(set(names)) == len(names) else None


def _checked(labels: Any, length: int) -> Any:
    """The labels as an array, if they are one whole number for each sample."""
    if labels is None or isinstance(labels, str | Mapping) or callable(labels):
        return None
    try:
        array = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels[:])
    except Exception:  # of something else by that name
        return None
    return array if array.dtype.kind in "iu" and array.shape == (length,) else None
