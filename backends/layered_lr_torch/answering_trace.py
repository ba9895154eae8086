"""Follows a forward pass from the images to the answer: which layers make it, with no other layer behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.utils._pytree import tree_leaves

from layered_lr.models.answering_layer import path_of_layer
from layered_lr_torch.torch_types import Tensor

_LAYERS: Final = frozenset(
    [
        "linear",
        "bilinear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "matmul",
        "__matmul__",
        "__rmatmul__",
        "mm",
        "bmm",
        "addmm",
        "baddbmm",
        "einsum",
        "tensordot",
        "embedding",
        "embedding_bag",
        "multi_head_attention_forward",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "rnn_tanh_cell",
        "rnn_relu_cell",
        "gru_cell",
        "lstm_cell",
        "inner",
        "outer",
        "kron",
        "mv",
        "addmv",
        "addbmm",
        "chain_matmul",
        "linalg_multi_dot",
        "linalg_vecdot",
        "cdist",
        "cosine_similarity",
        "pairwise_distance",
        "scaled_dot_product_attention",
    ]
)
"""Functions whose result is that of a new layer, where they take a weight."""

_SHAPES_ALONE: Final = frozenset(
    [f"{name}_like" for name in ("zeros", "ones", "full", "empty", "rand", "randn", "randint")]
    + [f"new_{name}" for name in ("zeros", "ones", "full", "empty", "tensor")]
)
"""Functions whose result has a tensor's shape or dtype, and none of its numbers."""

_JOINING: Final = ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack")
"""Functions whose result is larger than what they take, and nothing else than that."""


class AnsweringTrace:
    """Knows of each tensor which layers it comes from, without another layer between.

    Args:
        names: Of the model's tensors, by their ids.
        parameters: The model's tensors, by name.
    """

    def __init__(self, names: Mapping[int, str], parameters: Mapping[str, Tensor]) -> None:
        weights = {name for name, tensor in parameters.items() if tensor.dim() > 1}
        self._weights = {key: frozenset({path_of_layer(name)}) for key, name in names.items() if name in weights}
        self._answers: dict[int, frozenset[str]] = {}
        self._held: list[Tensor] = []  # so that no id belongs to two tensors

    def begin(self, images: Tensor) -> None:
        """Take note of the images."""
        self._answers[id(images)] = frozenset()
        self._held.append(images)

    def follow(self, name: str, given: list[Any], result: Any) -> None:
        """Take note of what a function gives.

        Args:
            name: Of the function.
            given: All that it was called with.
            result: What it gave; None of one that changes its first argument.
        """
        if name in _SHAPES_ALONE:
            return
        keys = [id(leaf) for leaf in given if isinstance(leaf, torch.Tensor)]
        weights = frozenset[str]().union(*(self._weights.get(key, ()) for key in keys))
        from_images = [self._answers[key] for key in keys if key in self._answers]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not made and name in ("__setitem__", "copy_"):
            made = [leaf for leaf in given if isinstance(leaf, torch.Tensor)][:1]
        if from_images:
            sizes = [leaf.numel() for leaf in given if isinstance(leaf, torch.Tensor) and id(leaf) in self._answers]
            grows = name not in _JOINING and any(tensor.numel() > max(sizes) for tensor in made)  # x[:, None] * weight
            is_layer = weights and (name in _LAYERS or grows)
            found, table = weights if is_layer else frozenset[str]().union(*from_images), self._answers
        else:
            found, table = weights, self._weights
        if found or from_images:
            table.update((id(tensor), found) for tensor in made)
            self._held += made

    def find(self, output: Tensor) -> frozenset[str] | None:
        """Return the paths of the layers that make an answer; None where it does not come from the images."""
        return self._answers.get(id(output))
