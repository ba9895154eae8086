"""The trace of a ``oneflow.nn.Graph``: what runs in it, and the tensors that stand for eager ones there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from layered_lr.errors import SpecError
from layered_lr_oneflow.runtime import flow


def build_of(graph: Any) -> Callable[..., Any]:
    """What a graph's trace runs, wrapped or not, without a reference to the graph: it must go when its user lets go."""
    wrapped = vars(graph).get("build")
    if wrapped is not None:
        return wrapped  # type: ignore[no-any-return]
    build, reference = type(graph).build, weakref.ref(graph)
    return lambda *args, **kwargs: build(reference(), *args, **kwargs)


def collect_garbage_first(graph: Any) -> None:
    """Let the graph's trace begin with a garbage collection.

    The variables of the graph that is being compiled are in a registry of the whole process, which the end of any other
    graph empties: OneFlow 0.9 then says that a parameter "must be a variable created in nn.Graph". Graphs are in cycles
    of their own, so that they end when Python collects garbage, which compiling another one makes likely.
    """
    build = build_of(graph)

    def collected(*args: Any, **kwargs: Any) -> Any:
        gc.collect()
        return build(*args, **kwargs)

    graph.build = collected


def lazy_tensors(graph: Any) -> Callable[[Any, str], Any]:
    """A function from an eager parameter or buffer of a graph to the tensor that stands for it in its trace."""
    proxies = {id(proxy.to(flow.Tensor)): proxy for proxy in graph._state()}

    def lazy(tensor: Any, name: str) -> Any:
        if id(tensor) not in proxies:
            raise SpecError(
                f"{name!r} is not in {type(graph).__name__}: its model must be an attribute of the graph, and hold the "
                "same parameters as when the updates were made."
            )
        proxy = proxies[id(tensor)]
        proxy.try_build()
        return proxy.lazy_origin

    return lazy


def variables_of(graph: Any) -> dict[int, str]:
    """The names that a graph has for its eager parameters and buffers, by their ``id``."""
    found: dict[int, str] = {}
    for proxy in graph._state():
        block = proxy.to(flow.nn.graph.GraphTensor)
        found.setdefault(id(proxy.to(flow.Tensor)), block.name_prefix + block.name)  # of several, the first counts
    return found


def zeros_like(tensor: Any) -> Any:
    """Zeros, in a trace too, where ``flow.zeros_like`` would warn the user of a module that is not in the graph."""
    return flow._C.constant(tuple(tensor.shape), 0, dtype=tensor.dtype, device=tensor.device)
