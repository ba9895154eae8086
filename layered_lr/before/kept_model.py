"""Keeps a user's model as it is while something trains it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from layered_lr.backend.base import Backend
from layered_lr.models.nn_modules import Module, list_modules, set_trainable, trainable_parameters


@contextmanager
def model_kept(backend: Backend, model: Module) -> Iterator[None]:
    """Give a model its weights, buffers, modes and gradients' switches back at the end, bitwise.

    Args:
        backend: Who trains it.
        model: From ``Backend.build``.
    """
    weights, trainable = backend.state(model), trainable_parameters(model)
    modes = [(module, module.training) for _, module in list_modules(model)]
    try:
        yield
    finally:
        set_trainable(model, frozenset(), trainable)
        for module, mode in modes:
            module.training = mode
        backend.load(model, weights)
