"""The trace of a ``oneflow.nn.Graph``: what runs in it, and the tensors that stand for eager ones in it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from layered_lr.errors import SpecError, Unsupported
from layered_lr.models.nn_modules import list_modules
from layered_lr_oneflow.oneflow_types import Graph, LazyLookup, Module, Tensor
from layered_lr_oneflow.runtime import flow

Build: TypeAlias = Callable[..., Any]
"""A graph's ``build``, without the graph as first argument."""


def get_build(graph: Graph) -> Build:
    """Get the function that a graph's trace runs, wrapped or not.

    It holds no reference to the graph: a graph must end with its last user.
    """
    wrapped: Build | None = vars(graph).get("build")
    if wrapped is not None:
        return wrapped
    build, reference = type(graph).build, weakref.ref(graph)
    return lambda *args, **kwargs: build(reference(), *args, **kwargs)


def collect_garbage_first(graph: Graph) -> None:
    """Let the graph's trace begin with a garbage collection.

    OneFlow 0.9 keeps the variables of the graph that is being compiled in a registry of the whole process. When any
    other graph ends, the registry is emptied, and OneFlow says that a parameter "must be a variable created in
    nn.Graph". Graphs are in reference cycles: they end when Python collects garbage, and compiling makes that likely.
    """
    build = get_build(graph)

    def collected(*args: Any, **kwargs: Any) -> Any:
        gc.collect()
        return build(*args, **kwargs)

    graph.build = collected


def check_names(model: Module) -> None:
    """Refuse names that OneFlow's Graph takes for parts of its own: it aborts the process at a ``/``.

    Raises:
        Unsupported: A module, a parameter or a buffer has such a name.
    """
    for prefix, module in list_modules(model):
        for name in (*module._modules, *module._parameters, *module._buffers):
            if "/" in name or ":" in name:
                raise Unsupported(
                    f"model: {prefix + name!r} has a '/' or a ':' in its name, which OneFlow's Graph cannot have. Give "
                    "it another name, or train in eager mode (oneflow-eager)."
                )


def check_no_grad_scaler(graph: Graph, what: str) -> None:
    """Refuse a graph whose gradients are still multiplied by a scale when the library reads them.

    Args:
        graph: In its trace.
        what: What reads the gradients.

    Raises:
        Unsupported: The graph has a ``GradScaler``.
    """
    if getattr(graph, "_grad_scaler", None) is not None:
        raise Unsupported(
            f"set_grad_scaler does not go with {what}: OneFlow multiplies the gradients inside the graph, and takes "
            "the scale out only in optimizers that it compiles in. Leave the scaler out, or train in eager mode."
        )


def make_lazy_lookup(graph: Graph) -> LazyLookup:
    """Make a function that finds the tensor of a graph's trace that stands for an eager parameter or buffer."""
    proxies = {id(proxy.to(flow.Tensor)): proxy for proxy in graph._state()}

    def lazy(tensor: Tensor, name: str) -> Tensor:
        if id(tensor) not in proxies:
            raise SpecError(
                f"{name!r} is not in {type(graph).__name__}: its model must be an attribute of the graph, and hold the "
                "same parameters as when the updates were made."
            )
        proxy = proxies[id(tensor)]
        proxy.try_build()
        return proxy.lazy_origin

    return lazy


def find_variable_names(graph: Graph) -> dict[int, str]:
    """Find the names that a graph has for its eager parameters and buffers, by the tensor's ``id``."""
    found: dict[int, str] = {}
    for proxy in graph._state():
        block = proxy.to(flow.nn.graph.GraphTensor)
        found.setdefault(
            id(proxy.to(flow.Tensor)), block.name_prefix + block.name
        )  # of several names, the first counts
    return found


def zeros_like(tensor: Tensor) -> Tensor:
    """Make zeros, also in a trace: ``flow.zeros_like`` would warn there of a module that is not in the graph."""
    return flow._C.constant(tuple(tensor.shape), 0, dtype=tensor.dtype, device=tensor.device)
