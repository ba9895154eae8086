"""Counts the batches of normalisations in a graph: OneFlow 0.9 updates their statistics there, but not this count."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from layered_lr_oneflow.oneflow_types import Graph, Module, Tensor
from layered_lr_oneflow.rules.base import assign
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.tracing import get_build, make_lazy_lookup


def count_batches_in_build(graph: Graph, model: Module) -> None:
    """Let each call of a graph add to every ``num_batches_tracked`` how often its module was called in training mode.

    Args:
        graph: Not yet compiled.
        model: What the graph trains.
    """
    norms = {id(module): module for module in model.modules() if _counts(module)}
    if not norms:
        return
    build, reference = get_build(graph), weakref.ref(graph)  # no cycle: a graph must end with its last user

    def build_and_count(*args: Any, **kwargs: Any) -> Any:
        with _count_calls(list(norms.values())) as calls:
            outputs = build(*args, **kwargs)
        lazy = make_lazy_lookup(reference())
        with flow.no_grad():
            for key, number in calls.items():
                count = lazy(norms[key].num_batches_tracked, "num_batches_tracked")
                assign(count, count + number)
        return outputs

    graph.build = build_and_count


def _counts(module: Module) -> bool:
    if not isinstance(module, flow.nn.modules.batchnorm._BatchNorm):
        return False
    count = module.num_batches_tracked
    return count is not None and not count.is_global  # OneFlow assigns to local tensors alone


@contextmanager
def _count_calls(norms: list[Module]) -> Iterator[Counter[int]]:
    """Count the calls of each normalisation in training mode, inside of a ``with`` block in a graph's trace."""
    calls: Counter[int] = Counter()
    kept = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False  # its own count is lost in a graph, and in the way of ours
        norm.forward = MethodType(_make_forward(norm, calls), norm)
    try:
        yield calls
    finally:
        for norm, tracks in zip(norms, kept, strict=True):
            norm.track_running_stats = tracks
            del norm.__dict__["forward"]


def _make_forward(norm: Module, calls: Counter[int]) -> Any:
    own = type(norm).forward

    def forward(self: Module, x: Tensor) -> Any:
        calls[id(norm)] += bool(norm.training)
        return own(self, x)

    return forward
