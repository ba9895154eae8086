"""Builds a OneFlow module from a traced model, and lets it be tried before anything trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from layered_lr.errors import DataError, Unsupported
from layered_lr.models.graph import HeldModule, HeldTensor, InputFacts, ModelGraph
from layered_lr.models.nn_modules import framework_of
from layered_lr.models.own_depths import OWN_DEPTHS
from layered_lr.models.user_models import find_single_dtype, make_model
from layered_lr.registry import load_tracer
from layered_lr_oneflow import models
from layered_lr_oneflow.forward_passes import Retrace
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.translated_containers import CONTAINERS
from layered_lr_oneflow.translated_module import Translated
from layered_lr_oneflow.translated_parts import OWN_PREFIX, GraphConstants, TranslatedPart
from layered_lr_oneflow.translated_program import CONSTANTS
from layered_lr_oneflow.translation_trial import try_both_modes


def build_users_model(
    make: Callable[[], Any],
    seed: int,
    dtype: str,
    device: str,
    batch_shape: tuple[int, ...] | None,
    other_shapes: Sequence[tuple[int, ...]] = (),
) -> Module:
    """Make a model with the user's callable; one of torch is translated, with the weights that torch drew.

    Args:
        make: Without arguments; returns an ``nn.Module`` of OneFlow or torch.
        seed: Of the framework's generator, from which the callable draws.
        dtype: Of parameters and floating-point buffers.
        device: OneFlow's name of where the model will run.
        batch_shape: (N, C, H, W) of the batches; None lets a model of torch be traced at its first batch.
        other_shapes: Of batches that have another size of images, or another number of them.

    Raises:
        SpecError: The callable makes something else, or a model that fails on such images.
        Unsupported: OneFlow cannot compute what a model of torch computes, or cannot train a parameter's dtype.
    """
    flow.manual_seed(seed)
    seeded = _seed_torch(seed)
    made = make_model(make)
    if framework_of(made) == "oneflow":
        single = find_single_dtype(made, dtype)
        return made.to(device, flow.float64) if single == "float64" else made.to(device)
    if not seeded:  # the callable itself has imported torch
        _seed_torch(seed)
        made = make_model(make)
    tracer = load_tracer("torch")
    model = tracer.prepare_traced(made, dtype)
    if batch_shape is not None:
        single = find_single_dtype(model, dtype)
        built = build_translated(tracer.trace_model(model, (np.zeros(batch_shape, single),)))
        for shape in other_shapes:
            facts = (InputFacts(tuple(shape[1:]), single),)
            if built.layered_lr_passes.knows(facts):
                with suppress(DataError):  # a normalisation of one number: the run refuses it, and names the layer
                    built.layered_lr_passes.prepare(facts, shape[0])
                continue
            graph = tracer.trace_model(model, (np.zeros(shape, single),))
            build_translated(graph)  # to try it
            built.layered_lr_passes.add(built, graph)
        return built.to(device)
    return build_translated(tracer.trace_model(model, ()), tracer.make_retrace(model)).to(device)


def _seed_torch(seed: int) -> bool:
    """Seed torch's generator if torch is imported, which this package does not do; returns whether it is."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    torch.manual_seed(seed)
    return True


def build_translated(graph: ModelGraph, retrace: Retrace | None = None) -> Module:
    """Build a module that has the names of a traced model, its weights, and its forward pass.

    Args:
        graph: The traced model.
        retrace: Traces it anew for inputs of another shape; None refuses them.

    Raises:
        Unsupported: OneFlow cannot run an operator, or gives other numbers than torch.
    """
    root = _name_class(Translated, graph.modules[0])(_try_graph, retrace)
    if depths := {tensor.name: tensor.depth for tensor in graph.tensors if tensor.depth is not None}:
        setattr(root, OWN_DEPTHS, depths)
    parts = _add_modules(root, graph.modules)
    _add_tensors(parts, graph.tensors)
    root._modules[CONSTANTS] = GraphConstants()
    if graph.inputs:
        root.layered_lr_passes.add(root, graph)
        models.load_state(root, graph.state)
        try_both_modes(root, graph)
    models.load_state(root, graph.state)
    for module in graph.modules:
        parts[module.path].training = module.trains
    return root


def _try_graph(graph: ModelGraph) -> None:
    """Try a graph in a module of its own: the user's keeps its numbers and gradients."""
    with flow.enable_grad():
        build_translated(graph)


def _name_class(base: type, module: HeldModule) -> Any:
    """Make a class with the name of torch's, which tells a reader, and this library, what the module is."""
    container = next((CONTAINERS[name] for name in module.types if name in CONTAINERS), None)
    facts = {"layered_lr_stands_for": module.types, "layered_lr_path": module.path}
    bases = (base,) if container is None else (container, base)
    return type(module.kind, bases, {"__module__": base.__module__, **facts})


def _add_modules(root: Module, modules: tuple[HeldModule, ...]) -> dict[str, Module]:
    parts: dict[str, Module] = {"": root}
    for module in modules:
        if not module.path:
            continue
        made = parts[module.alias_of] if module.alias_of is not None else _name_class(TranslatedPart, module)()
        parts[module.path] = made
        parent, _, name = module.path.rpartition(".")
        _check_name(parts[parent], module.path)
        flow.nn.Module.add_module(parts[parent], name, made)
    for module in modules:
        for absent in module.absent:
            flow.nn.Module.register_parameter(parts[module.path], absent, None)
    return parts


def _check_name(parent: Module, path: str) -> None:
    """Refuse a name that OneFlow's modules have for something of their own, such as ``to_local``, or this library."""
    name = path.rpartition(".")[2]
    is_taken = hasattr(parent, name) and not any(
        name in own for own in (parent._modules, parent._parameters, parent._buffers)
    )
    if path == CONSTANTS or (is_taken and name.startswith(OWN_PREFIX)):
        raise Unsupported(
            f"model: {path!r} has the name under which a translated model keeps what it computes with. Give it another "
            "name."
        )
    if is_taken:
        raise Unsupported(
            f"model: {path!r} has the name of something that every module of OneFlow has ({name}). Give it another "
            "name, or train on a torch backend."
        )


def _add_tensors(parts: dict[str, Module], tensors: tuple[HeldTensor, ...]) -> None:
    made: dict[str, Tensor] = {}
    for held in tensors:
        path, _, name = held.name.rpartition(".")
        tensor = made[held.alias_of] if held.alias_of is not None else _make_tensor(held)
        made[held.name] = tensor
        _check_name(parts[path], held.name)
        if held.kind == "parameter":
            flow.nn.Module.register_parameter(parts[path], name, tensor)
        else:
            flow.nn.Module.register_buffer(parts[path], name, tensor, persistent=held.persistent)


def _make_tensor(held: HeldTensor) -> Tensor:
    tensor = flow.tensor(np.zeros(held.shape, held.dtype))
    return flow.nn.Parameter(tensor, requires_grad=held.requires_grad) if held.kind == "parameter" else tensor
