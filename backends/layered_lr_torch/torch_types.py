"""Names for values of torch that have no type of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Module: TypeAlias = torch.nn.Module

Options: TypeAlias = Mapping[str, Any]
"""Hyperparameters of an optimizer, by torch's names."""

ParamGroup: TypeAlias = dict[str, Any]
"""One param group of an optimizer: ``params``, and the hyperparameters of these parameters."""

ParameterState: TypeAlias = dict[str, Any]
"""What an optimizer keeps of one parameter: tensors or numbers, by torch's name of the slot."""

Parameters: TypeAlias = Mapping[str, Tensor]
"""A model's parameters, by name."""

Forward: TypeAlias = Callable[[Tensor], Tensor]
"""A forward pass: images, shape (N, C, H, W), to logits, shape (N, classes)."""

Closure: TypeAlias = Callable[[], Any]
"""What a user may give to ``optimizer.step``: it evaluates the model once more and returns the loss."""
